"""Exponential moving average of the generator's weights, with its half-life counted in images."""

import copy

import torch
from torch import Tensor, nn


class EmaGenerator:
    """Holds `module`, a copy of the generator whose weights trail the trained ones. Buffers are not averaged."""

    def __init__(self, generator: nn.Module, half_life_kimg: float, rampup: float) -> None:
        self.half_life = half_life_kimg * 1000
        self.rampup = rampup
        self.module = copy.deepcopy(generator).eval().requires_grad_(False)
        self._own: list[Tensor] = list(self.module.parameters())
        self._trained: list[Tensor] = list(generator.parameters())

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew at the trained weights as they stand."""
        torch._foreach_copy_(self._own, self._trained)

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Move towards the trained weights after an update of `batch` images that ends at `images` seen."""
        half_life = min(self.half_life, max(images * self.rampup, 1e-8))
        torch._foreach_lerp_(self._own, self._trained, 1.0 - 0.5 ** (batch / half_life))
