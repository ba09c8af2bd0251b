"""`digits`: the 1,797 handwritten digits that scikit-learn carries, at MNIST's size. Needs no download.

The originals are 8x8 with 17 levels, counts of ink in 4x4 blocks of a 32x32 scan. They are enlarged to 20x20,
MNIST's own box, by a smooth filter, their contrast raised to strokes that are white at the core as MNIST's
are, and set in the middle of 28x28 black.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.sources import register
from shards.sources.base import Sample, Source

_TEST_EVERY, _VALIDATION_EVERY = 7, 13


@dataclass(frozen=True)
class DigitsOptions:
    """No options: the data is built in."""


@register("digits")
class Digits(Source):
    """1,797 handwritten digits, 28x28 grey, ten classes: built in, no download.

    Of each digit every 7th is test; every 13th that is not test is validation.
    """

    Options = DigitsOptions

    def __init__(self, options: DigitsOptions) -> None:
        from sklearn.datasets import load_digits  # a second to import

        data = load_digits()
        self.options = options
        self._raw = np.rint(data.images).astype(np.uint8)  # [1797, 8, 8], 0..16
        self._labels = data.target.astype(np.int64)
        self.shape = (28, 28, 1)
        self.classes = tuple(str(digit) for digit in range(10))
        positions = np.arange(len(self._raw))
        place = np.empty_like(positions)  # of each image among those of its digit, so that all splits are balanced
        for digit in range(10):
            place[self._labels == digit] = np.arange(np.count_nonzero(self._labels == digit))
        test = place % _TEST_EVERY == _TEST_EVERY - 1
        validation = ~test & (place % _VALIDATION_EVERY == _VALIDATION_EVERY - 1)
        self._positions = {
            "train": positions[~test & ~validation],
            "validation": positions[validation],
            "test": positions[test],
        }
        self.splits = {name: len(chosen) for name, chosen in self._positions.items()}
        self.fingerprint = hashlib.sha256(self._raw.tobytes() + self._labels.tobytes()).hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        return Sample(key, enlarge(self._raw[key]), int(self._labels[key]))


def enlarge(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[8, 8] uint8 in 0..16 -> [28, 28, 1] uint8, white on black."""
    ink = Image.fromarray(small.astype(np.float32) / 16.0)
    large = np.asarray(ink.resize((20, 20), Image.Resampling.BICUBIC))
    edge = np.clip((large - 0.3) / 0.5, 0.0, 1.0)  # below 0.3 is the blur around a stroke, above 0.8 its core
    smooth = edge * edge * (3.0 - 2.0 * edge)
    return np.pad(np.rint(smooth * 255.0).astype(np.uint8), 4)[..., None]
