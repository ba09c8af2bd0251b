"""The game between generator and critic, and the mutual-information term that both play for.

All losses are means over a batch, float32 scalars on the device. Logits are D's output before the sigmoid.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from infogan.checks import one_of
from infogan.codes import Codes
from infogan.registry import Registry


@dataclass(frozen=True)
class Objective(ABC):
    """The adversarial half of the losses, picked by name.

    `mi_gradient` says whom the mutual-information term teaches while the critic trains. `critic`: trunk and Q head, at
    the critic's learning rate, as the official code does. The paper writes min over (G, Q), which leaves the owner of
    the shared trunk open: the official code gives it to D's optimizer, and so do we. `head`: Q's head only, on detached
    trunk features, close to what several ports do; it is there for comparison.
    """

    name: ClassVar[str]
    mi_gradient: str = "critic"

    def __post_init__(self) -> None:
        one_of("mi_gradient", self.mi_gradient, ("critic", "head"))

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
    """The official code's game (Goodfellow et al. 2014, section 3)."""

    def critic_loss(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        """-log D(x) - log(1 - D(G(z, c)))."""
        return F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()

    def generator_loss(self, fake_logit: Tensor) -> Tensor:
        """-log D(G(z, c))."""
        return F.softplus(-fake_logit).mean()


def information_loss(codes: Codes, bounds: Mapping[str, Tensor]) -> Tensor | float:
    """-sum of lambda * L_I over the codes (paper, Eq. 6): a scalar, to be minimised by G and by the critic alike."""
    terms = [-code.weight * bounds[name].mean() for name, code in codes.codes.items()]
    return sum(terms[1:], start=terms[0]) if terms else 0.0
