"""What a network is to the rest of the code: an image shape and range, and a way to build generator and critic."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from infogan.networks.critic import Critic
from infogan.registry import Registry


@dataclass(frozen=True)
class Network(ABC):
    """A pair of networks that a config picks by name; its fields are the options of the config's `network` section."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images it makes and reads."""

    @property
    @abstractmethod
    def image_range(self) -> tuple[float, float]:
        """The values that black and white have for it: (0, 1) where it ends in a sigmoid, (-1, 1) in a tanh."""

    @abstractmethod
    def generator(self, input_width: int) -> nn.Module:
        """Build G: [n, input_width] => [n, C, H, W] in `image_range`; not yet initialised."""

    @abstractmethod
    def critic(self, q_width: int) -> Critic:
        """Build the critic, D and Q on one trunk; not yet initialised."""

    @abstractmethod
    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        """Draw the initial weights of G or of the critic, in place."""


NETWORKS: Registry[Network] = Registry("network")


def to_network_range(images: Tensor, image_range: tuple[float, float], dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [n, C, H, W] => `dtype` in `image_range`, channels-last."""
    low, high = image_range
    scaled = images.to(dtype=dtype, memory_format=torch.channels_last)
    return scaled.mul_((high - low) / 255).add_(low)


def to_uint8(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Float [n, C, H, W] in `image_range` => uint8, rounded to the nearest level."""
    low, high = image_range
    return ((images.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8).contiguous()
