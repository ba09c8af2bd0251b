"""The critic: the discriminator D and the recognition network Q on one shared trunk, as one module."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class CriticOutput(NamedTuple):
    """What one call of the critic returns; a part that was not asked for is None.

    real_logit, fake_logit: D's logit that an image is real, [n]. q: Q's raw output on the fake images, [n, q width],
    cut into posteriors by `Codes.split`.
    """

    real_logit: Tensor | None
    fake_logit: Tensor | None
    q: Tensor | None


class NoCodes(nn.Module):
    """The Q head of a model without codes, which is a plain GAN: [n, features] => [n, 0], and no parameters."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :0]


class Critic(nn.Module):
    """Trunk, D head and Q head. Its parameters all belong to the critic's optimizer.

    Real and fake images pass the trunk one after the other, never joined, so BatchNorm sees them apart; and both
    pass in one call, so that DistributedDataParallel sees one forward for one backward.
    """

    def __init__(self, trunk: nn.Module, d_head: nn.Module, q_head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.d_head = d_head
        self.q_head = q_head
        self.detach_q = False

    def forward(self, real: Tensor | None, fake: Tensor | None, clean: Tensor | None = None) -> CriticOutput:
        """real, fake: [n, C, H, W] in the network's image range, either may be None.

        `clean`: the fakes before augmentation. Where it is given Q reads those, in a pass of their own.

        With `detach_q` (the objective's `mi_gradient: head`) Q reads detached trunk features while the critic
        trains, so that the mutual-information term reaches Q's head but not the trunk.
        """
        real_logit = fake_logit = q = None
        if real is not None:
            real_logit = _at_least_float32(self.d_head(self.trunk(real)).squeeze(1))
        if fake is not None:
            features = self.trunk(fake)
            fake_logit = _at_least_float32(self.d_head(features).squeeze(1))
            for_generator = fake.requires_grad
            if clean is not None:
                features = self.trunk(clean)
            q = self.q_head(features.detach() if self.detach_q and not for_generator else features)
            q = _at_least_float32(q)
        return CriticOutput(real_logit, fake_logit, q)


def _at_least_float32(x: Tensor) -> Tensor:
    """Losses are computed in float32 also where autocast ran the network in bfloat16 or float16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
