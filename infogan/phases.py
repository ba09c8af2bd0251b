"""One update as a list of phases: what each trains, and the loss it minimises. Mathematics only, no I/O.

D step, then G step, with fresh latents for each, as in the official code. The optimizers' parameters are disjoint:
the critic's owns trunk, D head and Q head; the generator's owns the generator alone, and gets the gradient of the
mutual-information term through a frozen critic.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infogan.augment import Augmentation
from infogan.codes import Codes, ContinuousPosterior, Latents
from infogan.networks import Critic
from infogan.objectives import Objective, information_loss, r1_penalty

Statistics = dict[str, Tensor]
LossFunction = Callable[[Tensor, Latents, Augmentation | None, float], tuple[Tensor, Statistics]]


@dataclass(frozen=True)
class Phase:
    """`name`: who plays, as in the config's `optimizer` section; `module`: whom it trains, as it is called meanwhile.

    `loss`: (real images [n, C, H, W] in the image range, latents, how D's images are augmented, what lambda is
    multiplied by) => (scalar to minimise, scalars to log).
    """

    name: str
    module: nn.Module
    loss: LossFunction


@dataclass(frozen=True)
class Players:
    """Generator and critic, each bare and as it is called in the phase that trains it."""

    generator: nn.Module
    critic: Critic
    wrapped_generator: nn.Module
    wrapped_critic: nn.Module


def critic_loss(
    players: Players,
    codes: Codes,
    objective: Objective,
    real: Tensor,
    latents: Latents,
    augmentation: Augmentation | None,
    lambda_share: float,
) -> tuple[Tensor, Statistics]:
    """D's loss, with its penalty, and -lambda L_I, for trunk, D head and Q head."""
    with torch.no_grad():
        fake = players.generator(latents.vector)
        shown, clean = _shown(fake, augmentation)
    if objective.r1:
        real = real.detach().requires_grad_()
    out = players.wrapped_critic(augmentation.of_real(real) if augmentation else real, shown, clean)
    adversarial = objective.critic_loss(out.real_logit, out.fake_logit)
    bounds = codes.bounds(codes.split(out.q), latents.values)
    statistics = {
        "loss/critic": adversarial,
        "score/real": out.real_logit.sigmoid().mean(),
        "score/fake": out.fake_logit.sigmoid().mean(),
        "diversity/real": _diversity(real.detach()),
    }
    loss = adversarial + lambda_share * information_loss(codes, bounds)
    if objective.r1:
        penalty = r1_penalty(out.real_logit, real)
        statistics["penalty/r1"] = penalty
        loss = loss + objective.r1 / 2 * penalty
    return loss, statistics


def generator_loss(
    players: Players,
    codes: Codes,
    objective: Objective,
    latents: Latents,
    augmentation: Augmentation | None,
    lambda_share: float,
) -> tuple[Tensor, Statistics]:
    """G's loss and -lambda L_I, through a frozen critic."""
    fake = players.wrapped_generator(latents.vector)
    shown, clean = _shown(fake, augmentation)
    with _frozen(players.critic):
        out = players.critic(None, shown, clean)
    adversarial = objective.generator_loss(out.fake_logit)
    posteriors = codes.split(out.q)
    bounds = codes.bounds(posteriors, latents.values)
    information = lambda_share * information_loss(codes, bounds)
    statistics = {"loss/generator": adversarial, "diversity/fake": _diversity(fake.detach())}
    for name, bound in bounds.items():
        statistics[f"mi/{name}"] = bound.mean()
        posterior = posteriors[name]
        if isinstance(posterior, ContinuousPosterior):
            statistics[f"mse/{name}"] = (posterior.mean - latents.values[name]).square().mean()
    return adversarial + information, statistics


def build_phases(players: Players, codes: Codes, objective: Objective) -> list[Phase]:
    """The phases of an update, in the order in which they are played."""

    def of_critic(
        real: Tensor, latents: Latents, augmentation: Augmentation | None, lambda_share: float
    ) -> tuple[Tensor, Statistics]:
        return critic_loss(players, codes, objective, real, latents, augmentation, lambda_share)

    def of_generator(
        real: Tensor, latents: Latents, augmentation: Augmentation | None, lambda_share: float
    ) -> tuple[Tensor, Statistics]:
        return generator_loss(players, codes, objective, latents, augmentation, lambda_share)

    return [
        Phase("critic", players.wrapped_critic, of_critic),
        Phase("generator", players.wrapped_generator, of_generator),
    ]


def _shown(fake: Tensor, augmentation: Augmentation | None) -> tuple[Tensor, Tensor | None]:
    """Fakes as D is to see them and, only where those are augmented, the clean ones for Q."""
    shown = augmentation.of_fake(fake) if augmentation else fake
    return shown, None if shown is fake else fake


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through `module` to its input, but none is computed for its weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _diversity(images: Tensor) -> Tensor:
    """Mean over pixels of the standard deviation over the batch: 0 where all images are the same."""
    return images.float().std(dim=0, correction=0).mean()
