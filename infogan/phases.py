"""One update as a list of phases: what each trains, and the loss it minimises. Mathematics only, no I/O.

D step, then G step, with fresh latents for each, as in the official code. The optimizers' parameters are disjoint:
the critic's owns trunk, D head and Q head; the generator's owns the generator alone, and gets the gradient of the
mutual-information term through a frozen critic.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from infogan.codes import Codes, ContinuousPosterior, Latents
from infogan.networks import Critic
from infogan.objectives import Objective, information_loss

Statistics = dict[str, Tensor]


class LossFunction(Protocol):
    def __call__(self, real: Tensor, latents: Latents) -> tuple[Tensor, Statistics]: ...


@dataclass(frozen=True)
class Phase:
    """`name`: who plays, as in the config's `optimizer` section; `module`: whom it trains, as it is called meanwhile.

    `loss`: (real images [n, C, H, W] in the image range, latents) => (scalar to minimise, scalars to log).
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
    players: Players, codes: Codes, objective: Objective, real: Tensor, latents: Latents
) -> tuple[Tensor, Statistics]:
    """D's loss and -lambda L_I, for trunk, D head and Q head."""
    with torch.no_grad():
        fake = players.generator(latents.vector)
    out = players.wrapped_critic(real, fake)
    adversarial = objective.critic_loss(out.real_logit, out.fake_logit)
    bounds = codes.bounds(codes.split(out.q), latents.values)
    statistics = {
        "loss/critic": adversarial,
        "score/real": out.real_logit.sigmoid().mean(),
        "score/fake": out.fake_logit.sigmoid().mean(),
        "diversity/real": _diversity(real),
    }
    return adversarial + information_loss(codes, bounds), statistics


def generator_loss(players: Players, codes: Codes, objective: Objective, latents: Latents) -> tuple[Tensor, Statistics]:
    """G's loss and -lambda L_I, through a frozen critic."""
    fake = players.wrapped_generator(latents.vector)
    with _frozen(players.critic):
        out = players.critic(None, fake)
    adversarial = objective.generator_loss(out.fake_logit)
    posteriors = codes.split(out.q)
    bounds = codes.bounds(posteriors, latents.values)
    information = information_loss(codes, bounds)
    statistics = {"loss/generator": adversarial, "diversity/fake": _diversity(fake.detach())}
    for name, bound in bounds.items():
        statistics[f"mi/{name}"] = bound.mean()
        posterior = posteriors[name]
        if isinstance(posterior, ContinuousPosterior):
            statistics[f"mse/{name}"] = (posterior.mean - latents.values[name]).square().mean()
    return adversarial + information, statistics


def build_phases(players: Players, codes: Codes, objective: Objective) -> list[Phase]:
    """The phases of an update, in the order in which they are played."""
    return [
        Phase(
            "critic",
            players.wrapped_critic,
            lambda real, latents: critic_loss(players, codes, objective, real, latents),
        ),
        Phase(
            "generator",
            players.wrapped_generator,
            lambda real, latents: generator_loss(players, codes, objective, latents),
        ),
    ]


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
