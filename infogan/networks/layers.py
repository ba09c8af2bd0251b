"""The vocabulary in which the networks of the paper are written down, and the builder that makes modules of it.

A network is a tuple of layers, as in a table of the paper's appendix. Conventions shared by all of them:

- kernels are 4x4; stride 2 with padding 1 halves or doubles a side exactly; stride 1 keeps it, which an even kernel
  does with 1 pixel of padding before and 2 after (TensorFlow's "same", in which the official code was written);
- order convolution -> BatchNorm -> activation, or activation -> BatchNorm where a family says so;
- no bias where BatchNorm follows, a bias elsewhere;
- BatchNorm after a fully connected layer normalises its features, before any reshape;
- features of a reshaped fully connected layer are laid out height, width, channel: in memory that is channels-last,
  which is what convolutions like best, so neither reshape copies anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from infogan.batchnorm import BatchNorm1d, BatchNorm2d
from infogan.networks.spectral_norm import SpectralNorm

Module = TypeVar("Module", bound=nn.Module)

Shape = tuple[int, ...]  # of one sample: (features,) or (channels, height, width)


@dataclass(frozen=True)
class FC:
    """Fully connected layer to `features` outputs, or to a (channels, height, width) volume."""

    features: int | tuple[int, int, int]
    norm: bool = True


@dataclass(frozen=True)
class Conv:
    """4x4 convolution: stride 2 halves the sides, stride 1 keeps them."""

    channels: int
    norm: bool = True
    stride: int = 2


@dataclass(frozen=True)
class UpConv:
    """4x4 transposed convolution: stride 2 doubles the sides, stride 1 keeps them."""

    channels: int
    norm: bool = True
    stride: int = 2


Layer = FC | Conv | UpConv


class ToVolume(nn.Module):
    """[n, height * width * channels] => [n, channels, height, width] in channels-last memory, without a copy."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels, self.height, self.width = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)


class Crop(nn.Module):
    """[n, channels, height + 1, width + 1] => [n, channels, height, width]: drops the last row and column."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :-1, :-1].contiguous(memory_format=torch.channels_last)


class ToFeatures(nn.Module):
    """[n, channels, height, width] => [n, height * width * channels]; free for channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def build(
    layers: Sequence[Layer],
    in_shape: Shape,
    activation: Callable[[], nn.Module],
    *,
    activation_first: bool = False,
    batch_norm: bool = True,
) -> tuple[nn.Sequential, Shape]:
    """Build the modules of `layers` for inputs of `in_shape`; every layer is followed by `activation`.

    Without `batch_norm` every BatchNorm is left out and its layer has a bias instead. Returns the module and the
    shape of one of its outputs.
    """
    modules: list[nn.Module] = []
    shape = in_shape
    for layer in layers:
        if not batch_norm:
            layer = replace(layer, norm=False)
        linear, normed, shape = _linear_part(layer, shape)
        modules += linear
        tail = [normed, activation()] if layer.norm else [activation()]
        modules += reversed(tail) if activation_first else tail
        if isinstance(layer, FC) and isinstance(layer.features, tuple):
            modules.append(ToVolume(layer.features))
            shape = layer.features
    return nn.Sequential(*modules), shape


def _linear_part(layer: Layer, shape: Shape) -> tuple[list[nn.Module], nn.Module, Shape]:
    """The layer's linear part as modules, its BatchNorm and its flat output shape."""
    bias = not layer.norm
    if isinstance(layer, FC):
        width = size(layer.features) if isinstance(layer.features, tuple) else layer.features
        linear = nn.Linear(size(shape), width, bias=bias)
        return [ToFeatures(), linear] if len(shape) == 3 else [linear], BatchNorm1d(width), (width,)
    channels, height, width = shape
    norm = BatchNorm2d(layer.channels)
    if isinstance(layer, Conv):
        padding = 1 if layer.stride == 2 else 0
        conv = nn.Conv2d(channels, layer.channels, 4, layer.stride, padding, bias=bias)
        modules: list[nn.Module] = [conv] if layer.stride == 2 else [nn.ZeroPad2d((1, 2, 1, 2)), conv]
        return modules, norm, (layer.channels, height // layer.stride, width // layer.stride)
    upconv = nn.ConvTranspose2d(channels, layer.channels, 4, layer.stride, padding=1, bias=bias)
    modules = [upconv] if layer.stride == 2 else [upconv, Crop()]
    return modules, norm, (layer.channels, height * layer.stride, width * layer.stride)


def channels_last(module: Module) -> Module:
    """Lay the convolution weights of `module` out as oneDNN and cuDNN read them fastest."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return module


def size(shape: Shape) -> int:
    """Number of values in one sample of `shape`."""
    product = 1
    for side in shape:
        product *= side
    return product


@torch.no_grad()
def initialise(
    module: nn.Module, generator: torch.Generator, std: Callable[[Tensor], float], *, scale_std: float | None = None
) -> None:
    """Draw the first weights of `module`, part by part in its order.

    Weights are N(0, std(weight)), biases 0, BatchNorm scales 1 or N(1, scale_std); the vectors of a spectrally
    normalised layer follow its weight.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            part.weight.normal_(0.0, std(part.weight), generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.weight.fill_(1.0)
            part.bias.zero_()
            if scale_std is not None:
                part.weight.normal_(1.0, scale_std, generator=generator)
        if isinstance(part, SpectralNorm):
            part.begin(generator)
