"""Adjusted mutual information between every code and every factor, and its bootstrap.

    AMI = (I(c; v) - E[I]) / (min(H(c), H(v)) - E[I])

with E[I] the mean of I over all ways to pair the same categories at random (Vinh, Epps and Bailey 2010: their AMI with
the smaller entropy; scikit-learn's `adjusted_mutual_info_score(average_method="min")`). It is 0 for chance and 1 where
the one decides the other, whatever the numbers of categories; unlike a rank correlation it finds relations of any
shape. 0 by definition where either side never varies. What is continuous is cut into 20 bins of equal frequency.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics.cluster import expected_mutual_information

from infogan.evaluation.resampling import Draws

BINS = 20

Floats = npt.NDArray[np.float64]
Categories = npt.NDArray[np.int64]


def equal_frequency(values: Floats) -> Categories:
    """Cut numbers, float64 [n], into 20 bins of equal frequency: int64 [n]. Equal numbers share a bin."""
    middle = rankdata(values) - 0.5  # 0.5 to n - 0.5
    bins: Categories = np.floor(middle * BINS / len(values)).astype(np.int64)
    return bins


def adjusted_information(
    codes: Sequence[Categories], factors: Sequence[Categories], draws: Draws | None = None
) -> Floats:
    """AMI of each code with each factor, int64 [n] each: float64 [R, C, F], one per row of `draws`.

    `draws`, int64 [R, n]: how often each image counts; by default once, R = 1. E[I], a matter of the marginals alone,
    is that of the images themselves in every resample.
    """
    n = len(codes[0])
    counts = np.ones((1, n), np.int64) if draws is None else draws
    rows, columns = _one_hot(codes), _one_hot(factors)
    whole = rows.T @ columns
    blocks = [
        ((c, f), np.s_[row, column])
        for c, row in enumerate(_blocks(codes))
        for f, column in enumerate(_blocks(factors))
    ]
    chance = {place: _expected(whole[block]) for place, block in blocks}
    found = np.zeros((len(counts), len(codes), len(factors)))
    for number, drawn in enumerate(counts.astype(np.float32)):
        tables = (rows * drawn[:, None]).T @ columns  # all contingency matrices; counts are exact in float32
        for place, block in blocks:
            found[(number, *place)] = _adjusted(tables[block], chance[place])
    return found


def _adjusted(counts: npt.NDArray[np.float32], chance: float) -> float:
    """AMI of a contingency matrix [K, V] whose expected mutual information is `chance`, in nats."""
    shares = counts.astype(np.float64) / counts.sum()
    of_code, of_factor = _entropy(shares.sum(axis=1)), _entropy(shares.sum(axis=0))
    least = min(of_code, of_factor)
    if least <= chance:  # one side never varies, or as good as never
        return 0.0
    return (of_code + of_factor - _entropy(shares.ravel()) - chance) / (least - chance)


def _expected(counts: npt.NDArray[np.float32]) -> float:
    present = counts[counts.any(axis=1)][:, counts.any(axis=0)].astype(np.int64)
    return float(expected_mutual_information(present, int(present.sum())))


def _entropy(shares: Floats) -> float:
    """In nats, of shares that add up to 1."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def _one_hot(columns: Sequence[Categories]) -> npt.NDArray[np.float32]:
    """Every column's categories side by side: float32 [n, sum of categories]."""
    return np.hstack([np.eye(int(column.max()) + 1, dtype=np.float32)[column] for column in columns])


def _blocks(columns: Sequence[Categories]) -> list[slice]:
    """Where each column's categories stand among those of `_one_hot`."""
    ends = np.cumsum([int(column.max()) + 1 for column in columns])
    starts = np.concatenate([[0], ends[:-1]])
    return [slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
