"""What the modern families share: any size from 28 to 128 pixels, and a critic without BatchNorm.

Their critics are spectrally normalised instead (see spectral_norm.py), so real and fake images have no statistics to
share, and a critic judges an image alike in any batch. A family halves the sides until the shorter one is 4 to 7.
"""

from abc import abstractmethod
from dataclasses import dataclass
from itertools import product

from torch import nn

from infogan.checks import at_least, one_of
from infogan.networks.base import Network
from infogan.networks.critic import NoCodes
from infogan.networks.spectral_norm import SpectralLinear

SMALLEST, LARGEST = 28, 128
SMALLEST_VOLUME = 4  # the shorter side of the volume between convolutions and fully connected layers
SLOPE = 0.2  # of every leaky ReLU


@dataclass(frozen=True)
class ModernNetwork(Network):
    """Options that the families have in common.

    `height`, `width`, `channels`: of the images. `base`: channels of the critic's first stage, of which all others are
    multiples. `features`: width of the fully connected layers. `output`: what G ends in, `sigmoid` for images in (0, 1)
    or `tanh` for (-1, 1). `q_norm`: whether Q's head is spectrally normalised like the rest of the critic; without it Q
    can be as sure of a category as it likes.
    """

    height: int = 64
    width: int = 64
    channels: int = 1
    base: int = 32
    features: int = 128
    output: str = "sigmoid"
    q_norm: str = "spectral"

    def __post_init__(self) -> None:
        check_sides(self.height, self.width)
        if self.channels not in (1, 3):
            raise ValueError(f"channels: {self.channels}: must be 1 (grey) or 3 (colour)")
        at_least("base", self.base, 1, below=4097)
        at_least("features", self.features, 1, below=65_537)
        one_of("output", self.output, ("sigmoid", "tanh"))
        one_of("q_norm", self.q_norm, ("spectral", "none"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def image_range(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.output == "sigmoid" else (-1.0, 1.0)

    @property
    def halvings(self) -> int:
        """How many times the critic halves the sides, and the generator doubles them."""
        return halvings(self.height, self.width)

    @property
    @abstractmethod
    def stages(self) -> tuple[int, ...]:
        """The critic's channels after each halving."""

    @property
    def volume(self) -> tuple[int, int, int]:
        """(channels, height, width) where the convolutions meet the fully connected layers."""
        return self.stages[-1], self.height >> self.halvings, self.width >> self.halvings

    def output_activation(self) -> nn.Module:
        return nn.Sigmoid() if self.output == "sigmoid" else nn.Tanh()

    def heads(self, q_width: int) -> tuple[nn.Module, nn.Module]:
        """D's head, FC 1, and Q's, FC `features` and FC `q_width`, on the trunk's `features`."""
        d_head = SpectralLinear(self.features, 1)
        if not q_width:
            return d_head, NoCodes()
        linear = SpectralLinear if self.q_norm == "spectral" else nn.Linear
        hidden, last = linear(self.features, self.features), linear(self.features, q_width)
        return d_head, nn.Sequential(hidden, nn.LeakyReLU(SLOPE), last)


def halvings(height: int, width: int) -> int:
    """How often the sides are halved until the shorter one is 4 to 7."""
    return (min(height, width) // SMALLEST_VOLUME).bit_length() - 1


def fits(height: int, width: int) -> bool:
    """Whether both sides are in reach and can be halved without a remainder."""
    in_reach = min(height, width) >= SMALLEST and max(height, width) <= LARGEST
    return in_reach and (height | width) % (1 << halvings(height, width)) == 0


def check_sides(height: int, width: int) -> None:
    """Refuse sides that do not fit, naming the nearest that do: squares for a square."""
    if fits(height, width):
        return
    sides = range(SMALLEST, LARGEST + 1)
    pairs = zip(sides, sides, strict=True) if height == width else product(sides, sides)
    near = sorted((abs(h - height) + abs(w - width), h, w) for h, w in pairs if fits(h, w))[:2]
    nearest = " and ".join(f"{h}x{w}" for _, h, w in near)
    raise ValueError(
        f"height, width: {height}x{width}: sides must be {SMALLEST} to {LARGEST} and halve evenly until the shorter is "
        f"4 to 7; the nearest that fit are {nearest}"
    )
