"""Splits for data whose authors give none: dealt out by a hash of each name, so that no other file moves them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(
    names: Sequence[str], groups: NDArray[np.int64], validation: float, test: float
) -> dict[str, NDArray[np.int64]]:
    """Deals named things out to train, validation and test, in the order of a hash of their names.

    Args:
        groups: int64 [n]; each group (a class) gives the same fractions to every split.
        validation, test: fractions of each group.

    Returns:
        split -> increasing positions in `names`.
    """
    # Backslashreplace: a name that is not valid text still hashes to one value on every machine.
    rank = [hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest() for name in names]
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for group in np.unique(groups):
        members = sorted(np.flatnonzero(groups == group).tolist(), key=rank.__getitem__)
        for place, position in enumerate(members):
            quantile = (place + 0.5) / len(members)
            split = "test" if quantile < test else "validation" if quantile < test + validation else "train"
            parts[split].append(position)
    return {name: np.array(sorted(positions), np.int64) for name, positions in parts.items()}
