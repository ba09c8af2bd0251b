"""A network small enough for hundreds of runs: 8x8 grey images, BatchNorm where the paper has it. For tests only."""

from dataclasses import dataclass

from infogan.networks.layers import FC, Conv, UpConv
from infogan.networks.paper import PaperNetwork


@dataclass(frozen=True)
class TinyNetwork(PaperNetwork):
    """MNIST's tables at a hundredth of their width."""

    name = "tiny"
    side = 8
    channels = 1
    q_hidden = 16
    trunk_layers = (Conv(4, norm=False), Conv(8), FC(32))
    generator_layers = (FC(32), FC((8, 2, 2)), UpConv(8))
