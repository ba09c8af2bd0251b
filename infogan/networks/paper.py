"""The networks of the paper (arXiv 1606.03657, appendix C), one description per table.

Each table is two tuples of layers, read top to bottom like the table. Parameter counts are tested against the paper's
layers worked out by hand.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from infogan.checks import at_least, one_of
from infogan.networks.base import NETWORKS, Network
from infogan.networks.critic import Critic, NoCodes
from infogan.networks.layers import FC, Conv, Layer, ToFeatures, UpConv, build, channels_last, initialise, size


@dataclass(frozen=True)
class PaperNetwork(Network):
    """What the tables share; a table fills in the class variables.

    `norm: none` leaves every BatchNorm out (a comparison, not the paper). `critic_slope` is the leaky ReLU of the
    critic: 0.1 in the paper, 0.01 in the official MNIST code.
    """

    norm: str = "batch"
    critic_slope: float = 0.1

    side: ClassVar[int]
    channels: ClassVar[int]
    trunk_layers: ClassVar[tuple[Layer, ...]]
    generator_layers: ClassVar[tuple[Layer, ...]]
    q_hidden: ClassVar[int | None] = 128
    generator_activation_first: ClassVar[bool] = False
    output: ClassVar[type[nn.Module]] = nn.Sigmoid

    def __post_init__(self) -> None:
        one_of("norm", self.norm, ("batch", "none"))
        at_least("critic_slope", self.critic_slope, 0, below=1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side

    @property
    def image_range(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.output is nn.Sigmoid else (-1.0, 1.0)

    def generator_activation(self) -> nn.Module:
        return nn.ReLU()

    def generator(self, input_width: int) -> nn.Module:
        hidden, shape = build(
            self.generator_layers,
            (input_width,),
            self.generator_activation,
            activation_first=self.generator_activation_first,
            batch_norm=self.norm == "batch",
        )
        last = nn.ConvTranspose2d(shape[0], self.channels, 4, stride=2, padding=1)
        return channels_last(nn.Sequential(*hidden, last, self.output()))

    def critic(self, q_width: int) -> Critic:
        def leaky() -> nn.Module:
            return nn.LeakyReLU(self.critic_slope)

        batch_norm = self.norm == "batch"
        trunk, shape = build(self.trunk_layers, self.image_shape, leaky, batch_norm=batch_norm)
        if len(shape) == 3:
            trunk.append(ToFeatures())
            shape = (size(shape),)
        hidden = () if self.q_hidden is None else (FC(self.q_hidden),)
        q_trunk, q_shape = build(hidden, shape, leaky, batch_norm=batch_norm)
        q_head = nn.Sequential(*q_trunk, nn.Linear(q_shape[0], q_width)) if q_width else NoCodes()
        return channels_last(Critic(trunk, nn.Linear(shape[0], 1), q_head))

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        """Weights N(0, 0.02), BatchNorm scales N(1, 0.02), biases 0, as in the official code but for one thing.

        That draws the critic's convolutions from a normal cut off at two deviations, whose std is 0.0176; here they
        are drawn like the rest.
        """
        initialise(module, generator, lambda weight: 0.02, scale_std=0.02)


@NETWORKS.register("mnist")
@dataclass(frozen=True)
class MNIST(PaperNetwork):
    """Table 1."""

    side = 28
    channels = 1
    trunk_layers = (Conv(64, norm=False), Conv(128), FC(1024))
    generator_layers = (FC(1024), FC((128, 7, 7)), UpConv(64))


@NETWORKS.register("fashion_mnist")
@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """The study's deck: MNIST's critic; a generator with leaky ReLU before BatchNorm, ending in tanh.

    The deck gives no slope for the generator's leaky ReLU; it is the critic's 0.1 here.
    """

    generator_activation_first = True
    output = nn.Tanh

    def generator_activation(self) -> nn.Module:
        return nn.LeakyReLU(0.1)


@NETWORKS.register("colour32")
@dataclass(frozen=True)
class Colour32(PaperNetwork):
    """Tables 2 and 3 (SVHN and CelebA), which differ only in their codes."""

    side = 32
    channels = 3
    trunk_layers = (Conv(64, norm=False), Conv(128), Conv(256))
    generator_layers = (FC((448, 2, 2)), UpConv(256), UpConv(128, norm=False), UpConv(64, norm=False))
    output = nn.Tanh


@NETWORKS.register("faces")
@dataclass(frozen=True)
class Faces(PaperNetwork):
    """Table 4. Q shares the whole network and adds its output units only."""

    side = 32
    channels = 1
    trunk_layers = (Conv(64, norm=False), Conv(128), FC(1024))
    generator_layers = (FC(1024), FC((128, 8, 8)), UpConv(64))
    q_hidden = None


@NETWORKS.register("chairs")
@dataclass(frozen=True)
class Chairs(PaperNetwork):
    """Table 6. Q shares the whole network and adds its output units only."""

    side = 64
    channels = 1
    trunk_layers = (
        Conv(64, norm=False),
        Conv(128),
        Conv(256),
        Conv(256, stride=1),
        Conv(256, stride=1),
        FC(1024),
    )
    generator_layers = (
        FC(1024),
        FC((256, 8, 8)),
        UpConv(256, stride=1),
        UpConv(256, stride=1),
        UpConv(128),
        UpConv(64),
    )
    q_hidden = None
