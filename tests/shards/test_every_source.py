"""Every entry of the registry keeps the contract of a source, on raw data in its original format.

A new source needs a writer in tests/originals.py and nothing here.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import sources
from shards.dataset import open_dataset
from shards.indexed import IndexedReader
from shards.resident import ResidentReader
from shards.sources import Source, open_source
from shards.sources.checking import check, location
from shards.verify import verify
from shards.writer import build

_LOOKED_AT = 40  # samples of each split

_raw: dict[str, dict[str, Any]] = {}


@pytest.fixture(params=sources.names())
def raw(request: Any, originals: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A source's name and the options that open its small raw data, which is written once and not to be changed."""
    name = request.param
    if name not in _raw:
        _raw[name] = originals.write(name, tmp_path_factory.mktemp("raw") / name)
    return name, _raw[name]


@pytest.fixture
def source(raw: tuple[str, dict[str, Any]]) -> Source:
    name, options = raw
    return open_source(name, **options)


def test_every_sample_is_what_its_source_promises(source: Source) -> None:
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.splits["train"] >= 8
    assert min(source.splits.values()) >= 1
    assert len(source.fingerprint) == 64
    assert len(set(source.classes)) == len(source.classes)
    for split, count in source.splits.items():
        keys = []
        for i in range(min(count, _LOOKED_AT)):
            sample = source.sample(split, i)
            assert sample.image.dtype == np.uint8
            assert sample.image.shape == source.shape
            assert (sample.label is not None) == bool(source.classes)
            assert sample.label is None or 0 <= sample.label < len(source.classes)
            assert list(sample.factors or {}) == list(source.factors)
            for name, value in (sample.factors or {}).items():
                _in_range(value, source.factors[name])
            keys.append(sample.key)
        assert keys == sorted(set(keys))


def _in_range(value: float, factor: dict[str, Any]) -> None:
    if factor["kind"] == "categorical":
        assert isinstance(value, int)
        assert 0 <= value < factor["values"]
    else:
        assert isinstance(value, float)
        low, high = factor["range"]
        assert low <= value <= high


def test_a_sample_is_the_same_whenever_it_is_asked_for(source: Source, raw: tuple[str, dict[str, Any]]) -> None:
    again = open_source(raw[0], **raw[1])
    assert again.describe() == source.describe()
    for split, count in source.splits.items():
        last = source.sample(split, count - 1)
        source.sample(split, 0)
        for other in (source.sample(split, count - 1), again.sample(split, count - 1)):
            np.testing.assert_array_equal(other.image, last.image)
            assert (other.key, other.label, other.factors) == (last.key, last.label, last.factors)


def test_images_show_something_and_none_is_in_two_splits(source: Source) -> None:
    seen: dict[bytes, str] = {}
    for split, count in source.splits.items():
        for i in range(min(count, _LOOKED_AT)):
            image = source.sample(split, i).image
            assert np.ptp(image) > 20
            assert seen.setdefault(image.tobytes(), split) == split


def test_where_the_raw_files_lie_changes_nothing(raw: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    name, options = raw
    if "path" not in options:
        pytest.skip(f"{name} reads no files")
    old = Path(options["path"])
    top = old.parent if old.is_file() else old
    new = shutil.copytree(top, tmp_path / "elsewhere")
    moved = open_source(name, **options | {"path": str(new / old.relative_to(top))})
    assert moved.describe() == open_source(name, **options).describe()


def test_bytes_do_not_depend_on_workers_and_readers_return_the_samples(
    source: Source, tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    size = 1 + source.splits["train"] // 3
    build(source, one, name="set", shard_size=size, workers=1, progress=False)
    build(source, two, name="set", shard_size=size, workers=2, progress=False)
    assert tree(one) == tree(two)
    assert verify(one, progress=False) == []
    dataset = open_dataset(one)
    assert dataset.manifest.source["kind"] == source.kind
    for split, count in source.splits.items():
        wanted = np.array([count - 1, 0], np.int64)
        expected = [source.sample(split, int(i)) for i in wanted]
        for kind in (IndexedReader, ResidentReader):
            reader = kind(dataset, split, device=torch.device("cpu"))
            batch = reader.gather(wanted)
            reader.close()
            for row, sample in enumerate(expected):
                np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0).numpy(), sample.image)
                assert batch.labels[row] == (-1 if sample.label is None else sample.label)
                if batch.factors is not None:
                    np.testing.assert_allclose(batch.factors[row].numpy(), list((sample.factors or {}).values()), 1e-6)


def test_check_compares_with_what_is_published(raw: tuple[str, dict[str, Any]]) -> None:
    name, options = raw
    kind = sources.get(name)
    opened, lines = check(kind, kind.Options(**options))
    assert opened is not None
    assert set(opened.published) <= set(opened.found())
    assert bool(lines) == bool(opened.published)  # a fixture is smaller than what is published
    assert all("\n" not in line for line in lines)


def test_a_path_without_the_raw_files_is_one_line_that_names_it(
    raw: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    kind = sources.get(raw[0])
    place = location(kind)
    if place is None:
        assert not [field for field in dataclasses.fields(kind.Options) if field.name in ("path", "download")]
        return
    (tmp_path / "file.txt").write_text("nothing that anyone wants")
    for path in (tmp_path / "nowhere", tmp_path / "file.txt", tmp_path):
        opened, lines = check(kind, kind.Options(**raw[1] | {place: str(path)}))
        assert opened is None
        assert len(lines) == 1
        assert str(path) in lines[0]
        assert "\n" not in lines[0]
        assert "path" in lines[0] or "http" in lines[0] or "looked for" in lines[0] or "again" in lines[0]
