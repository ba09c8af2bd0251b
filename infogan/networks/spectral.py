"""Plain convolutions with a spectrally normalised critic: the networks of InfoGAN-CR for dSprites, at any size.

InfoGAN-CR (Lin et al. 2020) trains its "modified" InfoGAN with them: at 64x64 and a base of 32 they are its networks
to the layer. Below, what its published code has and we keep: slopes of 0.2, activation before BatchNorm and a bias
before both in the generator, spectral normalisation on every layer of the critic, heads included.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from infogan.batchnorm import BatchNorm1d, BatchNorm2d
from infogan.networks.base import NETWORKS
from infogan.networks.critic import Critic
from infogan.networks.layers import ToFeatures, ToVolume, channels_last, initialise, size
from infogan.networks.modern import SLOPE, ModernNetwork
from infogan.networks.spectral_norm import SpectralConv2d, SpectralLinear


@NETWORKS.register("spectral")
@dataclass(frozen=True)
class Spectral(ModernNetwork):
    """4x4 convolutions of stride 2 down to a side of 4 to 7, then a fully connected layer; G is the mirror image.

    | D / Q                                   | G                                   |
    |-----------------------------------------|-------------------------------------|
    | conv base, base, 2 base, 2 base, 4 base | FC features, ReLU, BN               |
    | (as many as there are halvings)         | FC volume, ReLU, BN                 |
    | FC features                             | upconv, leaky ReLU, BN (mirrored)   |
    | FC -> D; FC features, FC -> Q           | upconv channels, sigmoid or tanh    |
    """

    @property
    def stages(self) -> tuple[int, ...]:
        """They double at every second convolution."""
        return tuple(self.base << (stage // 2) for stage in range(self.halvings))

    def generator(self, input_width: int) -> nn.Module:
        modules: list[nn.Module] = []
        for into, out in pairwise((input_width, self.features, size(self.volume))):
            modules += [nn.Linear(into, out), nn.ReLU(), BatchNorm1d(out)]
        modules.append(ToVolume(self.volume))
        upwards = self.stages[::-1]
        for into, out in pairwise(upwards):
            up = nn.ConvTranspose2d(into, out, 4, stride=2, padding=1)
            modules += [up, nn.LeakyReLU(SLOPE), BatchNorm2d(out)]
        last = nn.ConvTranspose2d(upwards[-1], self.channels, 4, stride=2, padding=1)
        return channels_last(nn.Sequential(*modules, last, self.output_activation()))

    def critic(self, q_width: int) -> Critic:
        modules: list[nn.Module] = []
        for into, out in pairwise((self.channels, *self.stages)):
            modules += [SpectralConv2d(into, out, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        modules += [ToFeatures(), SpectralLinear(size(self.volume), self.features), nn.LeakyReLU(SLOPE)]
        return channels_last(Critic(nn.Sequential(*modules), *self.heads(q_width)))

    def initialise(self, module: nn.Module, generator: torch.Generator) -> None:
        initialise(module, generator, lambda weight: 0.02)
