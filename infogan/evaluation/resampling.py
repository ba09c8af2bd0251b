"""The bootstrap over images: how far a number would move had the split held other images of the same kind.

A resample of n images with replacement is held as the number of times that each image was drawn, so that a measure
written for weighted images serves both the value and its spread.
"""

import numpy as np
import numpy.typing as npt

from infogan.randomness import generator

RESAMPLES = 200

Draws = npt.NDArray[np.int64]


def rng(seed: int, purpose: str) -> np.random.Generator:
    """numpy's generator, seeded as every other draw: by seed and purpose alone."""
    return np.random.default_rng(generator(seed, purpose).initial_seed() % 2**63)


def resamples(n: int, seed: int) -> Draws:
    """How often each of n images is in each resample: int64 [RESAMPLES, n], every row adding up to n."""
    random = rng(seed, "evaluation/bootstrap")
    return np.stack([np.bincount(random.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)])
