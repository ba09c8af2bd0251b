"""Spearman's rank correlation between every code and every factor, and its bootstrap.

rho is Pearson's correlation of the ranks, images of equal value sharing the mean of theirs (Spearman 1904; what
`scipy.stats.spearmanr` computes). It is 1 for any increasing relation and -1 for any decreasing one, 0 where there is
none, and 0 by definition where either side never varies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infogan.evaluation.resampling import Draws

Floats = npt.NDArray[np.float64]


def spearman(codes: Floats, factors: Floats, draws: Draws | None = None) -> Floats:
    """rho of each code, float64 [n, C], with each factor, float64 [n, F]: [R, C, F], one per row of `draws`.

    `draws`, int64 [R, n]: how often each image counts; by default once, R = 1. Ranks are whole or half numbers, whose
    sums float64 holds exactly, so the order of the images changes nothing.
    """
    n = len(codes)
    counts = np.ones((1, n), np.int64) if draws is None else draws
    groups = [np.unique(column, return_inverse=True)[1] for column in np.hstack([codes, factors]).T]
    split = codes.shape[1]
    found = np.zeros((len(counts), split, factors.shape[1]))
    for number, drawn in enumerate(counts.astype(np.float64)):
        ranks = np.stack([_midranks(group, drawn) for group in groups]) - (n + 1) / 2  # [C + F, n], mean 0
        weighted = ranks * drawn
        scale = np.sqrt((weighted * ranks).sum(axis=1))
        products = weighted[:split] @ ranks[split:].T
        norms = np.outer(scale[:split], scale[split:])
        np.divide(products, norms, out=found[number], where=norms > 0)
    return found


def _midranks(group: npt.NDArray[np.intp], drawn: Floats) -> Floats:
    """Rank of each image, [n], images of one `group` (numbered in increasing order of value) sharing their mean."""
    size = np.bincount(group, weights=drawn)
    return (np.cumsum(size) - size + (size + 1) / 2)[group]
