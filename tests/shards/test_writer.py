"""Builds are reproducible to the byte and standard; what cannot be built is named."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from shards import atomic
from shards.errors import DataError, UserError
from shards.manifest import Manifest
from shards.sources import Sample, UnreadableImage
from shards.verify import verify
from shards.writer import build

Tree = Callable[[Path], dict[str, bytes]]


def test_two_builds_give_identical_bytes(pattern: Any, tmp_path: Path, tree: Tree) -> None:
    build(pattern(), tmp_path / "one" / "set", shard_size=16, workers=1, progress=False)
    time.sleep(1.1)  # a time stamp in the tar would show
    build(pattern(), tmp_path / "two" / "set", shard_size=16, workers=3, progress=False)
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert one == two
    assert len([name for name in one if name.endswith(".tar")]) == 7 + 2


def test_the_digest_is_over_the_samples_and_not_over_the_bytes(pattern: Any, tmp_path: Path) -> None:
    manifests = [
        build(pattern(), tmp_path / f"{size}{encoding}", shard_size=size, encoding=encoding, progress=False)
        for size, encoding in ((16, "png"), (100, "png"), (7, "npy"))
    ]
    assert len({manifest.digest for manifest in manifests}) == 1
    other = build(pattern(test=19), tmp_path / "other", progress=False)
    assert other.digest != manifests[0].digest


def test_the_digest_is_what_its_description_says(pattern: Any, tmp_path: Path) -> None:
    source = pattern(train=5, test=2, factors=True)
    manifest = build(source, tmp_path / "set", progress=False)
    total = hashlib.sha256(b"infogan-dataset-1")
    for split, count in (("train", 5), ("test", 2)):
        for i in range(count):
            sample = source.sample(split, i)
            factors = {name: float(value) for name, value in sample.factors.items()}
            head = ["infogan-sample-1", split, sample.key, [6, 5, 1], sample.label, factors]
            text = json.dumps(head, separators=(",", ":")).encode() + b"\0"
            total.update(hashlib.sha256(text + sample.image.tobytes()).digest())
    assert manifest.digest == total.hexdigest()


@pytest.mark.parametrize("encoding", ["png", "npy"])
def test_webdataset_itself_reads_our_shards(pattern: Any, tmp_path: Path, encoding: str) -> None:
    source = pattern(channels=3, factors=True)
    manifest = build(source, tmp_path / "set", shard_size=32, encoding=encoding, progress=False)
    urls = [str(tmp_path / "set" / shard.name) for shard in manifest.splits["train"].shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(read) == 100
    for i, sample in enumerate(read):
        expected = source.sample("train", i)
        assert sample["__key__"] == f"{expected.key:08d}"
        assert int(sample["cls"]) == expected.label
        assert json.loads(sample["json"]) == expected.factors
        pixels = decoded(sample[encoding], encoding)
        np.testing.assert_array_equal(pixels, expected.image)


def decoded(data: bytes, encoding: str) -> np.ndarray[Any, Any]:
    from PIL import Image

    if encoding == "npy":
        loaded: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return loaded
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_complete_data_set_is_left_as_it_is(root: Path, pattern: Any, tree: Tree, capsys: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    build(pattern(), root, shard_size=32, progress=False)
    assert "already complete" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_data_set_in_the_way_is_refused_and_force_replaces_it(
    root: Path, pattern: Any, tree: Tree, tmp_path: Path
) -> None:
    before = tree(root)
    for source, options in ((pattern(train=90), {"shard_size": 32}), (pattern(), {"shard_size": 10})):
        with pytest.raises(UserError, match=r"already holds another data set.*differs in .*--force"):
            build(source, root, progress=False, **options)
    assert tree(root) == before
    build(pattern(train=90), root, shard_size=32, progress=False, force=True)
    build(pattern(train=90), tmp_path / "fresh" / "pattern", shard_size=32, progress=False)
    assert tree(root) == tree(tmp_path / "fresh" / "pattern")
    assert verify(root, progress=False) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "pattern"]


@pytest.mark.parametrize("force", [False, True])
def test_foreign_files_are_never_touched(pattern: Any, tmp_path: Path, force: bool) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        build(pattern(), tmp_path / "set", progress=False, force=force)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["thesis.tex"]


def test_an_unfinished_build_of_other_options_is_refused(pattern: Any, tmp_path: Path) -> None:
    class Breaks(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            if i == 60:
                raise DataError("image 60 is gone")
            return super().sample(split, i)

    with pytest.raises(DataError, match="image 60 is gone"):
        build(Breaks(pattern().options), tmp_path / "set", shard_size=32, workers=1, progress=False)
    assert (tmp_path / "set" / "train" / "000000.tar").exists()
    with pytest.raises(UserError, match=r"unfinished build.*shard_size"):
        build(pattern(), tmp_path / "set", shard_size=16, progress=False)
    build(pattern(), tmp_path / "set", shard_size=16, progress=False, force=True)
    assert verify(tmp_path / "set", progress=False) == []


def test_finished_shards_are_kept_and_damaged_ones_built_again(pattern: Any, tmp_path: Path, tree: Tree) -> None:
    read: list[int] = []

    class Counted(type(pattern())):  # type: ignore[misc]
        broken = True

        def sample(self, split: str, i: int) -> Sample:
            if self.broken and split == "test":
                raise DataError("no test split yet")
            with open(tmp_path / "log", "a") as log:  # the workers are other processes
                log.write(f"{split} {i}\n")
            return super().sample(split, i)

    source = Counted(pattern().options)
    with pytest.raises(DataError):
        build(source, tmp_path / "set", shard_size=25, workers=1, progress=False)
    (tmp_path / "log").unlink()
    damaged = tmp_path / "set" / "train" / "000001.tar"
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(data)
    source.broken = False
    build(source, tmp_path / "set", shard_size=25, workers=1, progress=False)
    read = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("train")]
    assert read == list(range(25, 50))
    assert verify(tmp_path / "set", progress=False) == []


def test_unreadable_images_stop_the_build_or_are_left_out_and_listed(pattern: Any, tmp_path: Path) -> None:
    class Holes(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            if split == "train" and (i % 10 == 3 or 32 <= i < 64):
                raise UnreadableImage(f"image-{i}.png cannot be read")
            return super().sample(split, i)

    source = Holes(pattern().options)
    with pytest.raises(DataError, match=r"image-\d+\.png cannot be read"):
        build(source, tmp_path / "strict", shard_size=32, progress=False)
    source.skip_unreadable = True
    manifest = build(source, tmp_path / "set", shard_size=32, progress=False)
    kept = [i for i in range(100) if i % 10 != 3 and not 32 <= i < 64]
    assert manifest.splits["train"].samples == len(kept)
    assert manifest.source["skipped"] == 100 - len(kept)
    listed = json.loads((tmp_path / "set" / "skipped.json").read_text())
    assert len(listed) == 100 - len(kept)
    assert listed[0] == "image-3.png cannot be read"
    assert [shard.name for shard in manifest.splits["train"].shards] == [
        f"train/{n:06d}.tar" for n in (0, 2, 3)
    ]  # the second shard would have been empty
    assert verify(tmp_path / "set", progress=False) == []


def test_a_source_that_breaks_its_word_is_named(pattern: Any, tmp_path: Path) -> None:
    class Wrong(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            sample = super().sample(split, i)
            return Sample(sample.key, sample.image, 3 if i == 5 else sample.label)

    with pytest.raises(DataError, match=r"sample 15 of train.*label 3.*3 classes"):
        build(Wrong(pattern().options), tmp_path / "set", workers=1, progress=False)


def test_numbers_of_a_sample_may_be_numpys(pattern: Any, tmp_path: Path) -> None:
    class Numpys(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            sample = super().sample(split, i)
            factors = {"angle": np.float32(0.5), "form": np.int64(i % 4)}
            return Sample(np.int64(sample.key), sample.image, np.uint8(sample.label), factors)

    class Plain(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            sample = super().sample(split, i)
            return Sample(sample.key, sample.image, sample.label, {"angle": 0.5, "form": i % 4})

    options = pattern(train=9, test=3, factors=True).options
    digests = [build(kind(options), tmp_path / kind.__name__, progress=False).digest for kind in (Numpys, Plain)]
    assert digests[0] == digests[1]


IMAGE = np.zeros((6, 5, 1), np.uint8)
FACTORS = {"angle": 0.5, "form": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "train: the source gave a NoneType; shards.sources.Sample is needed"),
        (Sample("1", IMAGE, 0, FACTORS), "gave a key that is a str; a whole number is needed"),  # type: ignore[arg-type]
        (Sample(1, [[1]], 0, FACTORS), "gave an image that is a list; a numpy array is needed"),  # type: ignore[arg-type]
        (Sample(1, IMAGE, 0.5, FACTORS), "gave a label that is a float; a whole number is needed"),  # type: ignore[arg-type]
        (
            Sample(1, IMAGE, 0, {"angle": "wide", "form": 1}),
            "sample 1 of train: the factor angle is 'wide', not a number",
        ),  # type: ignore[dict-item]
        (Sample(1, IMAGE, 0, {"angle": IMAGE, "form": 1}), "gave factors that are no numbers .ndarray is no number"),  # type: ignore[dict-item]
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_a_sample_of_another_kind_is_named(pattern: Any, tmp_path: Path, given: Any, message: str) -> None:
    class Wrong(type(pattern())):  # type: ignore[misc]
        def sample(self, split: str, i: int) -> Sample:
            if isinstance(given, BaseException):
                raise given
            return given  # type: ignore[no-any-return]

    with pytest.raises(RuntimeError if isinstance(given, SystemExit) else DataError, match=message):
        build(Wrong(pattern(factors=True).options), tmp_path / "set", workers=1, progress=False)


NAN = float("nan")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("splits", {"train": 9, "../../evil": 20}, r"splits must have names of .*, not '\.\./\.\./evil'"),
        ("splits", {"train": -5}, "splits.train must be a whole number of at least 0, not -5"),
        ("splits", {"train": 0, "test": 9}, "no training images"),
        ("splits", {"test": 9}, "no training images"),
        ("splits", {"train": 1.5}, "splits.train must be a whole number"),
        ("splits", None, "splits must be a mapping"),
        ("shape", (6, 5), r"shape is \(6, 5\): \(height, width, channels\) is needed"),
        ("shape", (6, 5, 4), "image.channels must be 1 or 3, not 4"),
        ("shape", (6, 0, 1), "image.width must be a whole number of at least 1"),
        ("fingerprint", None, "fingerprint must be a text, not None"),
        ("fingerprint", b"1", "cannot be written as JSON"),
        ("classes", (1, 2), "classes must be a list of names"),
        ("factors", {"f": {"kind": "weird"}}, "factors.f.kind must be categorical or continuous, not 'weird'"),
        ("factors", {"f": {"kind": "continuous", "range": [0, NAN], "periodic": False}}, "factors.f.range must be two"),
    ],
)
def test_what_a_source_promises_is_checked_before_anything_is_written(
    pattern: Any, tmp_path: Path, attribute: str, value: Any, message: str
) -> None:
    source = pattern()
    setattr(source, attribute, value)
    with pytest.raises(DataError, match=rf"source 'pattern': .*{message}") as caught:
        build(source, tmp_path / "deep" / "set", workers=1, progress=False)
    assert "\n" not in str(caught.value)
    delattr(source, attribute)
    if attribute in ("splits", "shape", "fingerprint"):
        with pytest.raises(DataError, match=rf"does not set self\.{attribute}"):
            build(source, tmp_path / "deep" / "set", workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left_is_one_line_and_leaves_nothing_torn(
    pattern: Any, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.fsync
    calls = {"left": 3}

    def full(descriptor: int) -> None:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*(full|quota).*run the same command again") as caught:
        build(pattern(), tmp_path / "set", shard_size=16, workers=1, progress=False)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not any(atomic.is_temporary(path.name) for path in (tmp_path / "set").rglob("*"))
    build(pattern(), tmp_path / "set", shard_size=16, progress=False)
    assert verify(tmp_path / "set", progress=False) == []


def test_a_truly_full_disk_is_one_line_and_the_build_continues_elsewhere_later(pattern: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(UserError, match=rf"cannot write {disk}.*the disk is full"):
            build(pattern(train=400), disk / "set", shard_size=16, workers=1, progress=False)
        assert not any(atomic.is_temporary(path.name) for path in (disk / "set").rglob("*"))
        subprocess.run(["mount", "-o", "remount,size=5m", str(disk)], check=True)
        build(pattern(train=400), disk / "set", shard_size=16, workers=1, progress=False)
        assert verify(disk / "set", progress=False) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_options_out_of_range_are_named(pattern: Any, tmp_path: Path) -> None:
    for options, message in (
        ({"shard_size": 0}, "shard size is 0"),
        ({"encoding": "bmp"}, "encoding is 'bmp': choose png or npy"),
        ({"workers": 0}, "workers is 0"),
    ):
        with pytest.raises(UserError, match=message):
            build(pattern(), tmp_path / "set", progress=False, **options)
    assert not (tmp_path / "set").exists()


def test_manifest_lists_versions_and_no_path_of_this_machine(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    assert set(Manifest.load(root).made_with) == {"infogan", "pillow", "webdataset"}
    assert str(root.parent) not in text
