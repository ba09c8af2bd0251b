"""The game between generator and critic, and the mutual-information term that both play for.

All losses are means over a batch, float32 scalars on the device. Logits are D's output before the sigmoid.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from infogan.checks import at_least, one_of
from infogan.codes import Codes
from infogan.registry import Registry


@dataclass(frozen=True)
class Objective(ABC):
    """The adversarial half of the losses, picked by name.

    `mi_gradient` says whom the mutual-information term teaches while the critic trains. `critic`: trunk and Q head, at
    the critic's learning rate, as the official code does. The paper writes min over (G, Q), which leaves the owner of
    the shared trunk open: the official code gives it to D's optimizer, and so do we. `head`: Q's head only, on detached
    trunk features, close to what several ports do; it is there for comparison.

    `r1` is the weight gamma of a gradient penalty on real images, which joins D's loss: see `r1_penalty`. 0 is none.

    `ramp_kimg`: over how many thousand images lambda grows from 0 to the codes' weights. 0, as in the paper: lambda is
    whole from the start. With many codes and a critic with BatchNorm that can be too much too early: the codes settle
    in differences between images that only BatchNorm makes large, and all images of the generator look alike.

    `saturated`: mean scores, sigmoids of D's logits, of real and of generated images beyond which D's loss teaches next
    to nothing. A game that does not say is not complained about.
    """

    name: ClassVar[str]
    saturated: ClassVar[tuple[float, float] | None] = None
    mi_gradient: str = "critic"
    r1: float = 0.0
    ramp_kimg: float = 0.0

    def __post_init__(self) -> None:
        one_of("mi_gradient", self.mi_gradient, ("critic", "head"))
        at_least("r1", self.r1, 0)
        at_least("ramp_kimg", self.ramp_kimg, 0)

    def lambda_share(self, images: int) -> float:
        """What lambda is multiplied by at `images` seen: it rises from 0 to 1 over `ramp_kimg`."""
        return min(1.0, images / (1000 * self.ramp_kimg)) if self.ramp_kimg else 1.0

    @abstractmethod
    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        """What D minimises: logits [n] => scalar."""

    @abstractmethod
    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        """What G minimises: logits [n] => scalar."""


OBJECTIVES: Registry[Objective] = Registry("objective")


@OBJECTIVES.register("non_saturating")
@dataclass(frozen=True)
class NonSaturating(Objective):
    """The official code's game (Goodfellow et al. 2014, section 3). Its scores are D's probabilities of being real."""

    saturated = (0.98, 0.02)

    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        """-log D(x) - log(1 - D(G(z, c)))."""
        return F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()

    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        """-log D(G(z, c))."""
        return F.softplus(-fake_logit).mean()


@OBJECTIVES.register("hinge")
@dataclass(frozen=True)
class Hinge(Objective):
    """The hinge game (Lim and Ye 2017; Miyato et al. 2018, Eq. 16-17): D is taught no further beyond a margin of 1.

    Its logits stay near -1 to 1, so that `score/real` and `score/fake`, their sigmoids, stay near 0.27 to 0.73. Where
    the means are beyond these, most images are beyond the margin and add nothing to D's gradient.
    """

    saturated = (0.73, 0.27)

    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        """max(0, 1 - d(x)) + max(0, 1 + d(G(z, c))), with d the logit."""
        return F.relu(1 - real_logit).mean() + F.relu(1 + fake_logit).mean()

    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        """-d(G(z, c))."""
        return -fake_logit.mean()


def r1_penalty(real_logit: Tensor, real: Tensor) -> Tensor:
    """E |grad_x d(x)|^2 over real images (Mescheder et al. 2018, Eq. 9), of which D's loss takes gamma / 2.

    real_logit: [n], computed from `real` [n, C, H, W], which requires a gradient. The gradient is that by the image in
    the network's range, before any augmentation. Returns a scalar that can be differentiated once more; in a critic
    with BatchNorm, where one image's logit depends on all, it is the gradient of the batch's sum of logits.
    """
    (gradient,) = torch.autograd.grad(real_logit.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def information_loss(codes: Codes, bounds: Mapping[str, Tensor]) -> Tensor | float:
    """-sum of lambda * L_I over the codes (paper, Eq. 6): a scalar, to be minimised by G and by the critic alike."""
    terms = [-code.weight * bounds[name].mean() for name, code in codes.codes.items()]
    return sum(terms[1:], start=terms[0]) if terms else 0.0
