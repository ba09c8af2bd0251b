"""Small sources whose every pixel is known, and data sets made from them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.dataset import Dataset, open_dataset
from shards.errors import DataError
from shards.sources import Sample, Source, open_source
from shards.writer import build


@dataclass(frozen=True)
class PatternOptions:
    """Options of `Pattern`; all shape the data."""

    train: int = 100
    test: int = 20
    classes: int = 3
    channels: int = 1
    factors: bool = False


class Pattern(Source):
    """Images whose pixels are a fixed function of split and position: anyone can work them out anew."""

    kind = "pattern"
    Options = PatternOptions

    def __init__(self, options: PatternOptions) -> None:
        self.options = options
        self.shape = (6, 5, options.channels)
        self.classes = tuple(f"class {i}" for i in range(options.classes))
        self.splits = {"train": options.train, "test": options.test}
        self.fingerprint = "0" * 64
        if options.factors:
            self.factors = {  # type: ignore[misc]
                "angle": {"kind": "continuous", "range": [0.0, 1.0], "periodic": True},
                "form": {"kind": "categorical", "values": 4},
            }

    def sample(self, split: str, i: int) -> Sample:
        seed = i * 2 + (split == "test")
        image = np.random.RandomState(seed).randint(0, 256, self.shape).astype(np.uint8)
        label = i % len(self.classes) if self.classes else None
        factors = {"angle": (i % 10) / 10, "form": i % 4} if self.factors else None
        return Sample(i * 3, image, label, factors)


@pytest.fixture(scope="session")
def pattern() -> Callable[..., Pattern]:
    """Makes a `Pattern` source from its options."""

    def make(**options: Any) -> Pattern:
        return Pattern(PatternOptions(**options))

    return make


@pytest.fixture(scope="session")
def _master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("master") / "pattern"
    build(Pattern(PatternOptions()), root, shard_size=32, workers=1, progress=False)
    return root


@pytest.fixture
def root(_master: Path, tmp_path: Path) -> Path:
    """A data set to read or to break: 100 train samples in four shards, 20 test samples in one."""
    shutil.copytree(_master, tmp_path / "pattern")
    return tmp_path / "pattern"


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return open_dataset(root)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with mnist/ and fashion_mnist/."""
    folder = os.environ.get("INFOGAN_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("INFOGAN_TEST_DATA names no folder with mnist/ and fashion_mnist/")
    return Path(folder)


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder: relative path -> content."""

    def read(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    return read


@pytest.fixture(scope="session")
def packed(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed file of the small head model."""
    return small.write_packed(tmp_path_factory.mktemp("model"))  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Opening and building a source must fail with one line that matches."""

    def refuse(message: str, name: str, **options: Any) -> None:
        with pytest.raises(DataError, match=message) as caught:
            build(open_source(name, **options), tmp_path_factory.mktemp("refused") / name, progress=False)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500

    return refuse
