"""Spectral normalisation: layers whose weight is divided by its largest singular value (Miyato et al. 2018, Eq. 8).

For a weight W seen as a matrix [out, in], the singular value is estimated as sigma = u^T W v, with the unit vectors u
and v found by power iteration (their Algorithm 1). Calls only read u and v; `follow_weights` moves them on by one
iteration after each step of the optimizer that owns the weights. So every forward pass of an update, of any process
and of any micro-batch, in training and in evaluation, divides by the same number, and the generator's phase, which
reads a frozen critic, changes nothing. Where weights are equal on all processes, so are u and v, without being sent.

The vectors are buffers, so checkpoints and exports hold them, and a resumed run goes on with the same ones. They begin
as a function of the generator that draws the weights, never of torch's global one.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST_ITERATIONS = 20  # on the first weights; afterwards one for each update suffices, since weights change slowly


class SpectralNorm(nn.Module):
    """What the layers share; a layer is one of torch's with a `weight` [out, in, ...]."""

    weight: Tensor
    u: Tensor
    v: Tensor

    def add_vectors(self) -> None:
        """Register u [out] and v [kernel height * kernel width * in], some unit vectors until `begin` draws them."""
        out, into = self.weight.shape[0], self.weight[0].numel()
        self.register_buffer("u", torch.full((out,), out**-0.5))
        self.register_buffer("v", torch.full((into,), into**-0.5))

    def matrix(self) -> Tensor:
        """The weight as a matrix [out, kernel height * kernel width * in]: a view of channels-last memory."""
        return self.weight.permute(0, 2, 3, 1).flatten(1) if self.weight.ndim == 4 else self.weight

    def sigma(self) -> Tensor:
        """The estimate u^T W v of the largest singular value, a scalar through which W gets its gradient.

        Always in the precision of the weights, also where autocast computes the rest in another.
        """
        with _full_precision(self.weight):
            return self.u @ (self.matrix() @ self.v)

    def normalised_weight(self) -> Tensor:
        return self.weight / self.sigma()

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Draw u, and iterate until u and v fit the weights as they stand."""
        self.u.normal_(generator=generator)
        self.iterate(FIRST_ITERATIONS)

    @torch.no_grad()
    def iterate(self, times: int = 1) -> None:
        """Power iteration: v <- W^T u and u <- W v, each scaled to length 1."""
        matrix = self.matrix()
        for _ in range(times):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0))


class SpectralLinear(SpectralNorm, nn.Linear):
    """nn.Linear with a spectrally normalised weight."""

    def __init__(self, in_features: int, out_features: int) -> None:
        nn.Linear.__init__(self, in_features, out_features)
        self.add_vectors()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised_weight(), self.bias)


class SpectralConv2d(SpectralNorm, nn.Conv2d):
    """nn.Conv2d with a spectrally normalised weight."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel, stride=stride, padding=padding)
        self.add_vectors()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised_weight(), self.bias)


def follow_weights(module: nn.Module) -> None:
    """Move the vectors of every spectrally normalised layer in `module` on by one power iteration."""
    for part in module.modules():
        if isinstance(part, SpectralNorm):
            part.iterate()


def _full_precision(weight: Tensor) -> AbstractContextManager[object]:
    """Autocast switched off, on the devices that have it."""
    device = weight.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
