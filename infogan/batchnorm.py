"""BatchNorm without running averages.

While training, BatchNorm uses the batch at hand and remembers nothing: running averages taken over changing weights
are not evidence of anything, they would differ from process to process, and EMA weights never had any. Before a model
is used or judged, its statistics are estimated afresh, in one pass of its own weights over stated inputs: the
generator's over new latents, the critic's over real training images. One number is different: `L_I` on generated images
is measured with the critic's statistics of just these images, since that is how Q reads them in training.

The batch at hand is this process's part of it, or, after `synchronise`, that of all processes: then their number
changes nothing, on GPUs and CPUs alike.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class _Stateless(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose buffers are written by `estimate_statistics` only."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        del self.num_batches_tracked
        self.register_buffer("num_batches_tracked", None)
        self.averaging_factor: float | None = None
        self.synchronised = False

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # torch's own adds the counter, which we do not have, to every state that names no version
        nn.Module._load_from_state_dict(self, *arguments)

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if self.averaging_factor is not None:
            mean, var, factor = self.running_mean, self.running_var, self.averaging_factor
        elif self.training and self.synchronised:
            return self._over_all_processes(x)
        elif self.training:
            mean, var, factor = None, None, 0.0
        else:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, factor, self.eps)

    def _over_all_processes(self, x: Tensor) -> Tensor:
        """Normalise by mean and variance over the images of all processes, of which each has as many."""
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        centred = values - _MeanOverProcesses.apply(values.mean(over)).view(shape)
        var = _MeanOverProcesses.apply(centred.square().mean(over))
        scale = (var + self.eps).rsqrt() * self.weight
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


class _MeanOverProcesses(torch.autograd.Function):
    """The mean of a tensor over all processes, through which gradients pass, once or twice: it is its own adjoint, as
    each process's loss depends on what every process had."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        mean = local.clone()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _MeanOverProcesses.apply(gradient)


class BatchNorm1d(_Stateless, nn.BatchNorm1d):
    """Over features: [n, features]."""


class BatchNorm2d(_Stateless, nn.BatchNorm2d):
    """Over channels: [n, channels, height, width]."""


@torch.no_grad()
def estimate_statistics(module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Set the statistics of every BatchNorm in `module` to the mean of those of the batches, in float32.

    `forward` is called on each batch, with BatchNorm using that batch's own statistics as in training.
    """
    layers = [part for part in module.modules() if isinstance(part, _Stateless)]
    try:
        for seen, batch in enumerate(batches):
            for layer in layers:
                layer.averaging_factor = 1.0 / (seen + 1)
            forward(batch)
    finally:
        for layer in layers:
            layer.averaging_factor = None


def synchronise(module: nn.Module) -> None:
    """Let every BatchNorm in `module` see the images of all processes while it trains."""
    for part in module.modules():
        if isinstance(part, _Stateless):
            part.synchronised = True
