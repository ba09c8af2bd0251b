"""BatchNorm without running averages.

While training, BatchNorm uses the batch at hand and remembers nothing: running averages taken over changing weights
are not evidence of anything, they would differ from process to process, and EMA weights never had any. Before a model
is used or judged, its statistics are estimated afresh, in one pass of its own weights over stated inputs: the
generator's over new latents, the critic's over real training images. One number is different: `L_I` on generated images
is measured with the critic's statistics of just these images, since that is how Q reads them in training.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Stateless(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose buffers are written by `estimate_statistics` only."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        del self.num_batches_tracked
        self.register_buffer("num_batches_tracked", None)
        self.averaging_factor: float | None = None

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # torch's own adds the counter, which we do not have, to every state that names no version
        nn.Module._load_from_state_dict(self, *arguments)

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if self.averaging_factor is not None:
            mean, var, factor = self.running_mean, self.running_var, self.averaging_factor
        elif self.training:
            mean, var, factor = None, None, 0.0
        else:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, factor, self.eps)


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
