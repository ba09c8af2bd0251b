"""What a source is: raw images with labels and factors, in an order of their own, readable in any order.

A source is one class in one file, registered under its name:

    @register("mnist")
    class Mnist(Source):
        Options = MnistOptions            # a frozen dataclass: every field has a default and a help text
        ...

Its constructor takes the options, opens the raw data and sets the attributes below; it raises `UserError` or
`DataError` when something is missing. `sample` is called from several processes at once and must not depend
on earlier calls.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError

VALIDATION_EVERY = 12  # of a source's own train split, every 12th sample goes to validation (MNIST: 55,000 + 5,000)


@dataclass(frozen=True)
class Sample:
    """One raw sample.

    Attributes:
        key: its position in the source's own split; increasing within a split.
        image: uint8 [H, W, C].
        label: index into the source's classes; None without one.
        factors: name -> value for each of the source's factors; None where the source has none.
    """

    key: int
    image: NDArray[np.uint8]
    label: int | None = None
    factors: dict[str, float | int] | None = None


class UnreadableImage(DataError):
    """A single raw image that cannot be read; a source may be asked to leave such images out."""


def option(default: Any, help: str, identity: bool = True) -> Any:
    """A field of a source's options.

    Args:
        help: one line for `--help`.
        identity: whether the option shapes the data. A path or a download does not: it is left out of the
            manifest.
    """
    return dataclasses.field(default=default, metadata={"help": help, "identity": identity})


class Source(ABC):
    """Raw data, opened.

    Attributes:
        kind: the name that it is registered under.
        Options: its options, a frozen dataclass.
        shape: (height, width, channels) of every image; 1 or 3 channels.
        classes: class names, label 0 first; empty without labels.
        factors: as in the manifest; empty without factors.
        splits: name -> number of samples, in the order in which they are built.
        fingerprint: sha256 of the raw data, or of its listing where it is large.
        skip_unreadable: leave images out that raise `UnreadableImage`, instead of stopping.
        published: what its authors publish, as in `found`; empty where there is nothing to compare with.
    """

    kind: ClassVar[str] = ""
    Options: ClassVar[type[Any]]
    options: Any
    shape: tuple[int, int, int]
    classes: tuple[str, ...] = ()
    factors: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # replaced, never changed
    splits: dict[str, int]
    fingerprint: str
    skip_unreadable: bool = False
    published: dict[str, int] = {}  # noqa: RUF012  # replaced, never changed

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def sample(self, split: str, i: int) -> Sample:
        """Sample `i` of a split, 0 <= i < splits[split]."""

    def identity_options(self) -> dict[str, Any]:
        """The options that shape the data."""
        return {
            field.name: getattr(self.options, field.name)
            for field in dataclasses.fields(self.options)
            if field.metadata.get("identity", True)
        }

    def found(self) -> dict[str, int]:
        """What the raw data holds, counted in the terms that its authors use: what -> how many."""
        return {f"{split} images": count for split, count in self.splits.items()}

    def lacks(self) -> list[str]:
        """How the raw data differs from what its authors publish, one line each; empty where it is complete."""
        found = self.found()
        return [
            f"{found.get(what, 0):,} {what} instead of the {count:,} published"
            for what, count in self.published.items()
            if found.get(what, 0) != count
        ]

    def describe(self) -> dict[str, Any]:
        """The manifest's `source` section, but for the number of skipped images."""
        return {"kind": self.kind, "options": self.identity_options(), "fingerprint": self.fingerprint}


def validation_of(samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cuts validation from a train split: the positions that stay in train, and those that go."""
    positions = np.arange(samples)
    chosen = positions % VALIDATION_EVERY == VALIDATION_EVERY - 1
    return positions[~chosen], positions[chosen]
