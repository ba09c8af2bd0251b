"""What goes wrong in a run, said in words, with the override to try.

The thresholds are rules of thumb; each message states the number that it was raised by.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from infogan.codes import CategoricalCode, CategoricalPosterior, Codes, Posterior
from infogan.objectives import Objective

WARM_UP_KIMG = 40.0  # healthy runs of the presets complained until 38 kimg of fakes that vary too little

USED = 0.1  # share of H(c), or nats for a continuous code, below which a code counts as ignored
DIVERSE = 0.6  # diversity of fakes relative to real images
ALIKE = 0.2  # the same, in runs whose codes settled before their images differed: 0.04 and 0.10 were seen
SAME = 0.9  # correlation (Cramer's V for categorical codes) from which two codes count as one


def complaints(row: Mapping[str, float], codes: Codes, objective: Objective) -> list[str]:
    """What is wrong by one row of the log; empty while the run is healthy or young."""
    if row["kimg"] < WARM_UP_KIMG:
        return []
    found = []
    if objective.saturated is not None:
        real, fake = objective.saturated
        if row["score/real"] > real and row["score/fake"] < fake:
            found.append(
                f"critic saturated (score {row['score/real']:.2f} for real images, {row['score/fake']:.2f} for "
                "generated ones): try optimizer.critic.lr at half"
            )
    if row["lambda_share"] == 1:  # the purpose of a lambda that still rises
        found += _ignored(row, codes)
    diversity = row["diversity/fake"] / max(row["diversity/real"], 1e-8)
    if diversity < DIVERSE:
        early = diversity < ALIKE and not objective.ramp_kimg and codes.codes
        found.append(
            f"diversity falling (generated images vary {diversity:.0%} as much as real ones): "
            f"try {'a lambda that grows, objective.ramp_kimg=100' if early else 'optimizer.generator.lr at half'}"
        )
    return found


def _ignored(row: Mapping[str, float], codes: Codes) -> list[str]:
    found = []
    for name, code in codes.codes.items():
        categorical = isinstance(code, CategoricalCode)
        used = row[f"mi/{name}"] / (code.ceiling or 1.0) if categorical else row[f"mi/{name}/best_std"]
        if used < USED and code.weight > 0:
            amount = (
                f"{row[f'mi/{name}']:.2f} of {code.ceiling:.2f} nats"
                if categorical
                else f"{used:.2f} nats at the best std"
            )
            found.append(f"code {name} ignored (L_I {amount}): try codes.{name}.weight={code.weight * 2:g}")
    return found


def overlaps(posteriors: Mapping[str, Posterior]) -> list[str]:
    """Pairs of codes of one kind that Q reads alike from the same real images: two codes doing one thing."""
    found = []
    names = list(posteriors)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            strength = _association(posteriors[first], posteriors[second])
            if strength > SAME:
                found.append(
                    f"codes {first} and {second} do one thing (association {strength:.2f} on validation images): "
                    f"try codes.{second}=null"
                )
    return found


def _association(first: Posterior, second: Posterior) -> float:
    if isinstance(first, CategoricalPosterior) and isinstance(second, CategoricalPosterior):
        return _cramers_v(first.mode, second.mode, first.logits.shape[1], second.logits.shape[1])
    if isinstance(first, CategoricalPosterior) or isinstance(second, CategoricalPosterior):
        return 0.0
    correlation = torch.corrcoef(torch.stack([first.mean.double(), second.mean.double()]))[0, 1]
    return abs(float(correlation.nan_to_num()))


def _cramers_v(first: Tensor, second: Tensor, first_ways: int, second_ways: int) -> float:
    """Cramer's V of two categorical variables, 0 (independent) to 1 (each decides the other)."""
    table = torch.bincount(first * second_ways + second, minlength=first_ways * second_ways).double()
    table = table.view(first_ways, second_ways) / table.sum()
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
    chi_squared = ((table - expected).square() / expected.clamp(min=1e-12)).sum()
    return float((chi_squared / (min(first_ways, second_ways) - 1)).sqrt())
