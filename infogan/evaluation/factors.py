"""Do the codes follow the true factors? For data sets whose factors are known: rendered ones, and labelled by hand.

Two measures, each of every code with every factor on held-out images, each beside the same for an untrained critic and
for PCA (see `representations`):

- Spearman's rank correlation (`rank_correlation`) of a continuous code with a factor that has an order: a continuous
  one, or a categorical one of two values. A periodic factor v of period T counts three times: as it is, and as
  sin(2 pi v / T) and cos(2 pi v / T), which know no seam.
- Adjusted mutual information (`shared_information`) of any code with any factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infogan.evaluation.metrics import Metric, Outcome, Uncertainty, in_brackets
from infogan.evaluation.rank_correlation import spearman
from infogan.evaluation.representations import Representation, read_held_out
from infogan.evaluation.resampling import RESAMPLES, Draws, resamples
from infogan.evaluation.shared_information import BINS, adjusted_information, equal_frequency
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

Floats = npt.NDArray[np.float64]
Categories = npt.NDArray[np.int64]
Specs = Mapping[str, Mapping[str, Any]]  # as in the manifest


@dataclass(frozen=True)
class Measure:
    """A way to hold codes against factors.

    `codes`: those of an encoder that it can take. `formula`: codes and factors by name, [n] each, and resamples or
    None => [R, codes, factors]. `strength`: how much a value says; a factor's best code is the one with the most.
    """

    stem: str
    codes: Callable[[Representation], Mapping[str, Any]]
    formula: Callable[[Mapping[str, Any], Mapping[str, Any], Draws | None], Floats]
    strength: Callable[[Floats], Floats]
    protocol: Mapping[str, Any]


@dataclass(frozen=True)
class Scores:
    """One encoder under one measure: `values` and their bootstrap `std`, both [codes, factors].

    `best`, [factors]: the number of the strongest code; `best_value` its strength, and `best_std` the spread of the
    strength that is best in each resample.
    """

    representation: Representation
    codes: tuple[str, ...]
    values: Floats
    std: Floats
    best: npt.NDArray[np.int64]
    best_value: Floats
    best_std: Floats


def measure(context: Context) -> Outcome:
    """`spearman_<split>/<code>/<factor>`, `ami_<split>/<code>/<factor>`, the best code per factor, and the tables."""
    manifest, codes = context.dataset.manifest, context.model.codes
    lacking = "" if manifest.factors else f"data set {manifest.name} has no known factors"
    lacking = lacking or ("" if codes.codes else "the model has no codes")
    if lacking:
        if "factors" in context.options.only:
            raise UserError(f"factors: {lacking}: there is nothing to compare; leave factors out")
        return Outcome(notes=[f"codes against factors: {lacking}"])
    seen = read_held_out(context)
    draws = resamples(len(seen.factors), context.options.seed)
    varying = {
        name: column for name, column in zip(manifest.factors, seen.factors.T, strict=True) if np.ptp(column) > 0
    }
    outcome = Outcome()
    for name in sorted(set(manifest.factors) - set(varying)):
        outcome.notes.append(f"factor {name}: the same in all images of the {context.options.split} split")
    for kind, columns in (
        (RANK_CORRELATION, ordered(manifest.factors, varying)),
        (SHARED_INFORMATION, as_categories(manifest.factors, varying)),
    ):
        if columns and kind.codes(seen.representations[0]):
            read = [representation for representation in seen.representations if kind.codes(representation)]
            _add(outcome, context, kind, [score(r, columns, kind, draws) for r in read], list(columns))
    return outcome


def ordered(specs: Specs, factors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Of `factors`, [n] each, those with an order; a periodic one is followed by its sine and cosine."""
    found: dict[str, Floats] = {}
    for name, column in factors.items():
        if specs[name]["kind"] == "categorical" and specs[name]["values"] > 2:
            continue
        found[name] = column
        if specs[name].get("periodic"):
            low, high = specs[name]["range"]
            angle = 2 * np.pi * column / (high - low)
            found |= {f"sin({name})": np.sin(angle), f"cos({name})": np.cos(angle)}
    return found


def as_categories(specs: Specs, factors: Mapping[str, Floats]) -> dict[str, Categories]:
    """`factors`, [n] each, as categories; a continuous one in 20 bins of equal frequency."""
    return {
        name: column.astype(np.int64) if specs[name]["kind"] == "categorical" else equal_frequency(column)
        for name, column in factors.items()
    }


def score(representation: Representation, factors: Mapping[str, Any], kind: Measure, draws: Draws) -> Scores:
    """Hold what an encoder reads against `factors`, [n] each."""
    codes = kind.codes(representation)
    values, resampled = kind.formula(codes, factors, None)[0], kind.formula(codes, factors, draws)
    strength = kind.strength(values)
    return Scores(
        representation,
        tuple(codes),
        values,
        resampled.std(axis=0, ddof=1),
        strength.argmax(axis=0),
        strength.max(axis=0),
        kind.strength(resampled).max(axis=1).std(axis=0, ddof=1),
    )


def _add(outcome: Outcome, context: Context, kind: Measure, found: list[Scores], factors: list[str]) -> None:
    """Add the trained encoder's numbers, the best of every encoder per factor, and a table per encoder."""
    split, images = context.options.split, len(next(iter(found[0].representation.columns.values())))
    trained, baselines = found[0], found[1:]
    for scores in found:
        encoder = scores.representation.encoder
        common = context.protocol(encoder=encoder, **scores.representation.protocol, **kind.protocol)
        common["real_images"] = images
        for f, factor in enumerate(factors):
            best = {"code": scores.codes[scores.best[f]], "codes_to_choose_from": len(scores.codes)}
            if scores is trained:
                best |= {f"best_of_{other.representation.encoder}": float(other.best_value[f]) for other in baselines}
            name = in_brackets(f"{kind.stem}_best_{split}/{factor}", "" if scores is trained else encoder)
            outcome.metrics.append(
                Metric(name, float(scores.best_value[f]), _spread(scores.best_std[f]), common | best)
            )
        outcome.tables.append(_table(kind, scores, factors, split, images))
    common = context.protocol(**trained.representation.protocol, **kind.protocol) | {"real_images": images}
    for c, code in enumerate(trained.codes):
        for f, factor in enumerate(factors):
            name = f"{kind.stem}_{split}/{code}/{factor}"
            outcome.metrics.append(Metric(name, float(trained.values[c, f]), _spread(trained.std[c, f]), common))


def _table(kind: Measure, scores: Scores, factors: list[str], split: str, images: int) -> dict[str, Any]:
    return {
        "kind": "factors",
        "measure": kind.stem,
        "encoder": scores.representation.encoder,
        "split": split,
        "images": images,
        "codes": list(scores.codes),
        "factors": factors,
        "values": scores.values.tolist(),
        "std": scores.std.tolist(),
        "best": scores.best.tolist(),
    }


def _spread(std: float) -> Uncertainty:
    return Uncertainty("bootstrap", float(std), RESAMPLES)


def _rank_correlations(codes: Mapping[str, Floats], factors: Mapping[str, Floats], draws: Draws | None) -> Floats:
    return spearman(np.stack(list(codes.values()), axis=1), np.stack(list(factors.values()), axis=1), draws)


def _shared_information(codes: Mapping[str, Any], factors: Mapping[str, Categories], draws: Draws | None) -> Floats:
    binned = [equal_frequency(column) if column.dtype.kind == "f" else column for column in codes.values()]
    return adjusted_information(binned, list(factors.values()), draws)


RANK_CORRELATION = Measure(
    "spearman", lambda read: read.continuous, _rank_correlations, np.abs, {"ties": "share their mean rank"}
)
SHARED_INFORMATION = Measure(
    "ami",
    lambda read: read.columns,
    _shared_information,
    np.asarray,
    {
        "normalisation": "the smaller of the two entropies",
        "bins": f"{BINS} of equal frequency for what is continuous",
        "chance": "E[I] under random pairing, held fixed while resampling",
    },
)
