"""What the renderers share: how many images, how large, and how each gets random numbers of its own."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError
from shards.sources.base import Sample, Source, option

SPLITS = ("train", "validation", "test")
Factors = dict[str, float | int]


@dataclass(frozen=True)
class RenderedOptions:
    """How much to draw."""

    samples: int = option(50_000, "training images; validation and test get a tenth as many each")
    size: int = option(64, "side of the square images in pixels")
    seed: int = option(0, "another seed draws other images")

    def __post_init__(self) -> None:
        if not 10 <= self.samples <= 1_000_000_000:
            raise UserError(f"samples is {self.samples}: between 10 and 1,000,000,000 can be drawn")
        if not 16 <= self.size <= 256:
            raise UserError(f"size is {self.size}: between 16 and 256 pixels can be drawn")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed is {self.seed}: it must be a whole number from 0")


class Rendered(Source):
    """A source that draws its images. A sample depends on (seed, split, position) alone, so any worker can draw it.

    Attributes:
        channels: 1 or 3.
        version: raised when the same options draw other images than before; part of the fingerprint.
    """

    Options: ClassVar[type[Any]] = RenderedOptions
    channels: ClassVar[int]
    version: ClassVar[int]

    def __init__(self, options: Any) -> None:
        self.options = options
        self.shape = (options.size, options.size, self.channels)
        tenth = options.samples // 10
        self.splits = {"train": options.samples, "validation": tenth, "test": tenth}
        self.fingerprint = self.fingerprint_of()

    def fingerprint_of(self, *parts: bytes) -> str:
        """sha256 over what decides the images: renderer, version, options, and any `parts` such as a model's file."""
        state = hashlib.sha256(json.dumps([self.kind, self.version, self.identity_options()]).encode())
        for part in parts:
            state.update(part)
        return state.hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        rng = np.random.default_rng((self.options.seed, SPLITS.index(split), i))
        return self.draw(split, i, rng)

    @abstractmethod
    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        """Sample `i` of a split, drawn with its own random numbers: key `i`, an image of `shape`, label, factors."""


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Brightness in [0, 1], of any shape, rounded to the nearest of 256 levels."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
