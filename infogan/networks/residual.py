"""Residual networks with a spectrally normalised critic, after SNGAN (Miyato et al. 2018, appendix B), at any size.

Differences from SNGAN, among others. Its critic sums its last features over all positions, but Q has to read where
things are: here a fully connected layer sees every position, and D and Q share its features. Activations are leaky
ReLUs throughout, as in R3GAN. Channels grow to 8 times the base, SNGAN's at 128x128 to 16 times. First weights are He's
normal ones, SNGAN's Glorot's uniform ones.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from infogan.batchnorm import BatchNorm2d
from infogan.checks import one_of
from infogan.networks.base import NETWORKS
from infogan.networks.critic import Critic
from infogan.networks.layers import ToFeatures, ToVolume, channels_last, initialise, size
from infogan.networks.modern import SLOPE, ModernNetwork
from infogan.networks.spectral_norm import SpectralConv2d, SpectralLinear

WIDEST = 8  # channels at most, in multiples of the base


class UpBlock(nn.Module):
    """G's block: [n, into, h, w] => [n, out, 2 h, 2 w]. The shortcut is resized by nearest neighbour."""

    def __init__(self, into: int, out: int, *, batch_norm: bool) -> None:
        super().__init__()
        norms = [BatchNorm2d(channels) if batch_norm else nn.Identity() for channels in (into, out)]
        self.residual = nn.Sequential(
            norms[0], nn.LeakyReLU(SLOPE), nn.Upsample(scale_factor=2),
            nn.Conv2d(into, out, 3, padding=1, bias=not batch_norm),
            norms[1], nn.LeakyReLU(SLOPE), nn.Conv2d(out, out, 3, padding=1),
        )  # fmt: skip
        fit = nn.Identity() if into == out else nn.Conv2d(into, out, 1)
        self.shortcut = nn.Sequential(fit, nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


class DownBlock(nn.Module):
    """The critic's block: [n, into, h, w] => [n, out, h / 2, w / 2], or of the same sides without `halve`.

    `of_images`: the first block, which is given images and does not begin with an activation.
    """

    def __init__(self, into: int, out: int, *, halve: bool = True, of_images: bool = False) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Identity() if of_images else nn.LeakyReLU(SLOPE),
            SpectralConv2d(into, out, 3, padding=1), nn.LeakyReLU(SLOPE), SpectralConv2d(out, out, 3, padding=1),
            nn.AvgPool2d(2) if halve else nn.Identity(),
        )  # fmt: skip
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2) if halve else nn.Identity(),
            nn.Identity() if into == out else SpectralConv2d(into, out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


@NETWORKS.register("residual")
@dataclass(frozen=True)
class Residual(ModernNetwork):
    """Residual blocks of 3x3 convolutions; `norm` is the generator's, `batch` or `none`: the critic has none.

    | D / Q                                        | G                                 |
    |----------------------------------------------|-----------------------------------|
    | down blocks base, 2 base, 4 base, 8 base,    | FC volume                         |
    | 8 base (as many as there are halvings)       | up blocks (mirrored), BN          |
    | block of the same sides, FC features         | 3x3 conv channels, tanh           |
    | FC -> D; FC features, FC -> Q                | or sigmoid                        |
    """

    base: int = 64
    features: int = 256
    output: str = "tanh"
    q_norm: str = "none"
    norm: str = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("norm", self.norm, ("batch", "none"))

    @property
    def stages(self) -> tuple[int, ...]:
        """They double from one down block to the next, up to `WIDEST`."""
        return tuple(self.base * min(1 << stage, WIDEST) for stage in range(self.halvings))

    def generator(self, input_width: int) -> nn.Module:
        batch_norm = self.norm == "batch"
        upwards = (*self.stages[::-1], self.base)
        blocks = [UpBlock(into, out, batch_norm=batch_norm) for into, out in pairwise(upwards)]
        last_norm = [BatchNorm2d(self.base)] if batch_norm else []
        last = nn.Conv2d(self.base, self.channels, 3, padding=1)
        begin = (nn.Linear(input_width, size(self.volume)), ToVolume(self.volume))
        end = (*last_norm, nn.LeakyReLU(SLOPE), last, self.output_activation())
        return channels_last(nn.Sequential(*begin, *blocks, *end))

    def critic(self, q_width: int) -> Critic:
        first, *others = pairwise((self.channels, *self.stages))
        trunk = nn.Sequential(
            DownBlock(*first, of_images=True),
            *(DownBlock(*sizes) for sizes in others),
            DownBlock(self.stages[-1], self.stages[-1], halve=False),
            nn.LeakyReLU(SLOPE),
            ToFeatures(),
            SpectralLinear(size(self.volume), self.features),
            nn.LeakyReLU(SLOPE),
        )
        return channels_last(Critic(trunk, *self.heads(q_width)))

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        """Weights of variance 2 / fan-in (He et al. 2015), which carries a signal through blocks without BatchNorm."""
        initialise(module, generator, lambda weight: math.sqrt(2 / weight[0].numel()))
