"""Mutual information between codes and images: the lower bound L_I per code, on freshly generated images.

L_I = E[log Q(c|x)] + H(c) <= I(c; G(z, c)) (paper, Eq. 4-5), in nats, beside its ceiling. For a continuous
code also the bound that a Gaussian of the best standard deviation for the present error would reach: the
one number that can be compared between fixed, learned and clamped deviations.
"""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING

import torch

from infogan.codes import ContinuousPosterior, bound_at_best_std
from infogan.evaluation.metrics import Metric, Outcome, Uncertainty
from infogan.evaluation.samples import draw
from infogan.model import Model

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

DRAWS = 5


def measure(context: Context) -> Outcome:
    """`mi/<code>`, mean over 5 draws of latents; `mi_best_std/<code>` for continuous codes."""
    each = max(200, context.sample_count // DRAWS)
    draws: list[dict[str, float]] = []
    for number in range(DRAWS):
        fresh = draw(context.model, each, context.options.seed, f"information/{number}")
        draws.append(bounds(context.model, fresh.images, fresh.values))
    ceilings = context.model.codes.ceilings()
    outcome = Outcome()
    for name in draws[0]:
        stem, code = name.split("/")
        values = [found[name] for found in draws]
        protocol = context.sampling_protocol(
            unit="nats",
            ceiling=ceilings[code] if stem == "mi" else None,
            critic="weights of the checkpoint; BatchNorm statistics of the generated images, as in training",
        )
        protocol |= {"generated_images": each * DRAWS, "draws": DRAWS}
        for unused in ("split", "real_images"):
            del protocol[unused]
        uncertainty = Uncertainty("latent draws", stdev(values), DRAWS)
        outcome.metrics.append(Metric(name, fmean(values), uncertainty, protocol))
    return outcome


def bounds(model: Model, images: torch.Tensor, values: dict[str, torch.Tensor]) -> dict[str, float]:
    """Means over generated `images` (uint8 [n, C, H, W]) made from `values`: name of the number => nats."""
    posteriors = model.with_critic_statistics_of(images).encode(images)
    found = {f"mi/{name}": float(nats.mean()) for name, nats in model.codes.bounds(posteriors, values).items()}
    for name, posterior in posteriors.items():
        if isinstance(posterior, ContinuousPosterior):
            error = float((posterior.mean - values[name]).square().mean())
            found[f"mi_best_std/{name}"] = bound_at_best_std(error)
    return found
