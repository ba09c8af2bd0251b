"""Does a categorical code find the classes? Accuracy under a one-to-one matching, NMI and ARI.

Everything is computed from the contingency matrix [ways, classes]: how many images that Q reads as category
k carry label y. The matching of codes to classes is the assignment with the most hits (Hungarian method).
It is fitted on the training split and scored once on the test split; papers often fit it on the test split
itself, which is higher by construction and goes by a name of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from infogan.evaluation.metrics import Metric, Outcome, Uncertainty
from infogan.evaluation.resampling import RESAMPLES, rng
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

Counts = npt.NDArray[np.int64]
Matching = dict[int, int]  # category => class; a category without a partner is absent


@dataclass(frozen=True)
class Clustering:
    """Scores of one code on one split, each with its uncertainty by a bootstrap over the images."""

    accuracy: tuple[float, Uncertainty]
    accuracy_fitted_here: tuple[float, Uncertainty]
    nmi: tuple[float, Uncertainty]
    ari: tuple[float, Uncertainty]


def measure(context: Context) -> Outcome:
    """`accuracy_<split>/<code>`, the same fitted on that split, NMI, ARI, and the contingency matrix."""
    name = context.dataset.manifest.name
    if not context.classes:
        if "accuracy" in context.options.only:
            raise UserError(
                f"accuracy: data set {name} has no labels to compare codes with; leave accuracy out, or"
                " build the set from a folder with one subfolder per class"
            )
        return Outcome(notes=[f"accuracy, NMI, ARI: data set {name} has no labels"])
    if not context.model.codes.categorical:
        return Outcome(notes=["accuracy, NMI, ARI: the model has no categorical code"])
    split, outcome = context.options.split, Outcome()
    counts_by_code = context.contingencies(context.reader(split), np.arange(context.real_count), f"{split} images")
    for code, counts in counts_by_code.items():
        matching = context.matchings[code]
        scored = score(counts, matching, context.options.seed)
        common = context.protocol(
            reads="Q's likeliest category, critic of the checkpoint",
            batchnorm="evaluation mode; the critic's statistics estimated afresh on training images",
            precision="float32",
        )
        fitted_elsewhere = {
            "matching": "Hungarian, fitted on the train split",
            "matching_images": context.matching_images,
        }
        fitted_here = {"matching": f"Hungarian, fitted on the {split} split itself, as papers do: optimistic"}
        outcome.metrics += [
            Metric(f"accuracy_{split}/{code}", *scored.accuracy, common | fitted_elsewhere),
            Metric(
                f"accuracy_{split}_fitted_on_{split}/{code}",
                *scored.accuracy_fitted_here,
                common | fitted_here,
            ),
            Metric(f"nmi_{split}/{code}", *scored.nmi, common | {"normalisation": "arithmetic mean of entropies"}),
            Metric(f"ari_{split}/{code}", *scored.ari, common),
        ]
        outcome.tables.append(
            {
                "kind": "code_to_class",
                "code": code,
                "split": split,
                "classes": list(context.classes),
                "counts": counts.tolist(),
                "matching": {str(category): label for category, label in sorted(matching.items())},
            }
        )
    return outcome


def contingency(categories: npt.ArrayLike, labels: npt.ArrayLike, ways: int, classes: int) -> Counts:
    """Count images per (category, label): int64 [ways, classes]. Unlabelled images (-1) are left out."""
    k, y = np.asarray(categories), np.asarray(labels)
    counts = np.zeros((ways, classes), dtype=np.int64)
    np.add.at(counts, (k[y >= 0], y[y >= 0]), 1)
    return counts


def match(counts: Counts) -> Matching:
    """The one-to-one matching of categories to classes with the most hits in `counts` [ways, classes].

    With more categories than classes some categories stay unmatched, and their images count as wrong; with
    fewer, some classes are never predicted.
    """
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return {int(k): int(y) for k, y in zip(rows, columns, strict=True)}


def accuracy(counts: Counts, matching: Matching) -> float:
    """The share of images whose category is matched to their label."""
    return float(sum(counts[k, y] for k, y in matching.items()) / max(counts.sum(), 1))


def nmi(counts: Counts) -> float:
    """Normalised mutual information, arithmetic mean of the entropies, in [0, 1]."""
    return float(normalized_mutual_info_score(*_expand(counts)))


def ari(counts: Counts) -> float:
    """Adjusted Rand index: 0 for chance, 1 for the same partition."""
    return float(adjusted_rand_score(*_expand(counts)))


def score(counts: Counts, matching: Matching, seed: int = 0) -> Clustering:
    """All scores of one split's `counts` [ways, classes] under a matching fitted elsewhere.

    Resampling images with replacement is a multinomial draw of the contingency matrix. For the accuracy
    fitted here, the matching is fitted anew in each resample, as it was for the value itself.
    """
    draws = _resample(counts, seed)
    return Clustering(
        accuracy=_with_std(accuracy(counts, matching), [accuracy(draw, matching) for draw in draws]),
        accuracy_fitted_here=_with_std(accuracy(counts, match(counts)), [accuracy(d, match(d)) for d in draws]),
        nmi=_with_std(nmi(counts), [nmi(draw) for draw in draws]),
        ari=_with_std(ari(counts), [ari(draw) for draw in draws]),
    )


def _resample(counts: Counts, seed: int) -> list[Counts]:
    total = int(counts.sum())
    shares = counts.ravel() / max(total, 1)
    flat = rng(seed, "evaluation/bootstrap").multinomial(total, shares, size=RESAMPLES)
    return [draw.reshape(counts.shape) for draw in flat]


def _with_std(value: float, draws: list[float]) -> tuple[float, Uncertainty]:
    return value, Uncertainty("bootstrap", float(np.std(draws, ddof=1)), len(draws))


def _expand(counts: Counts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One (label, category) pair per image again, which is what scikit-learn's functions take."""
    k, y = np.indices(counts.shape)
    return np.repeat(y.ravel(), counts.ravel()), np.repeat(k.ravel(), counts.ravel())
