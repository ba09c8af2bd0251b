"""The files themselves, against references made without our own code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards import decode, index
from shards.errors import DataError
from shards.manifest import ImageSpec, Manifest, seal
from shards.memory import free_host_memory
from shards.writer import build


def test_the_sidecar_is_what_the_standard_library_finds_in_the_tar(root: Path) -> None:
    tar = root / "train" / "000002.tar"
    with tarfile.open(tar) as opened:
        expected = [(member.offset_data, member.size) for member in opened]
    data = index.sidecar(tar).read_bytes()
    assert [struct.unpack_from("<QI", data, 12 * i) for i in range(len(data) // 12)] == expected
    assert index.build(tar).tolist() == index.load(tar).tolist() == expected


def test_foreign_tars_are_walked_as_the_standard_library_walks_them(tmp_path: Path) -> None:
    path = tmp_path / "foreign.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, size in (("a.png", 0), ("deep/b.cls", 1), ("c.json", 512), ("d.npy", 5000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    with tarfile.open(path) as tar, index.mapped(path) as data:
        assert [(m.name, m.offset_data, m.size) for m in tar] == [(m.name, m.offset, m.size) for m in index.walk(data)]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("00000000.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"member 0 \(00000000\.png/?\) is not a regular file"):
        index.build(tmp_path / "x.tar")


def test_members_have_a_fixed_time_owner_and_mode(root: Path) -> None:
    with tarfile.open(root / "train" / "000000.tar") as tar:
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar}
    assert facts == {(0, 0, 0, "infogan", "infogan", 0o444)}


def test_the_manifest_has_the_agreed_form(root: Path, pattern: Any, tmp_path: Path) -> None:
    document = json.loads((root / "manifest.json").read_text())
    assert set(document) == {
        "format", "name", "source", "image", "classes", "factors", "splits", "digest", "made_with", "seal",
    }  # fmt: skip
    assert document["image"] == {"height": 6, "width": 5, "channels": 1, "encoding": "png"}
    assert set(document["splits"]["train"]["shards"][0]) == {"name", "samples", "bytes", "sha256"}
    assert [shard["samples"] for shard in document["splits"]["train"]["shards"]] == [32, 32, 32, 4]
    manifest = Manifest.load(root)
    (tmp_path / "copy").mkdir()
    manifest.save(tmp_path / "copy")
    assert Manifest.load(tmp_path / "copy") == manifest
    factored = build(pattern(factors=True), tmp_path / "factored", progress=False)
    assert factored.factors == {
        "angle": {"kind": "continuous", "range": [0.0, 1.0], "periodic": True},
        "form": {"kind": "categorical", "values": 4},
    }


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("image", "channels"), 4, "image.channels must be 1 or 3"),
        (("image", "height"), 0, "image.height must be a whole number of at least 1"),
        (("image", "encoding"), "bmp", "image.encoding must be one of png, npy, jpg"),
        (("classes",), "0", "classes must be a list of names"),
        (("digest",), "abc", "digest must be a sha256"),
        (("splits", "train", "samples"), True, "splits.train.samples must be a whole number"),
        (("splits", "train", "shards", 0, "name"), "../../etc.tar", "name must be train/<number>.tar"),
        (("splits", "train", "shards", 0, "name"), "train/000001.tar", "name one shard twice"),
        (("factors",), {"x": {"kind": "odd"}}, "factors.x.kind must be categorical or continuous"),
        (("factors",), {"x": {"kind": "continuous", "range": [1, 1], "periodic": False}}, "factors.x.range"),
    ],
)
def test_a_manifest_with_a_wrong_value_names_the_place(root: Path, place: Any, value: Any, message: str) -> None:
    path = root / "manifest.json"
    document = json.loads(path.read_text())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message) as caught:
        Manifest.load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"a":' * 200_000, '{"format": ' + "9" * 5000 + "}", "null", "5", '"x"'],
    ids=["lists", "mappings", "digits", "null", "number", "text"],
)
def test_what_is_no_manifest_is_one_line(root: Path, content: str) -> None:
    (root / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"^[^\n]*manifest\.json[^\n]*build the data set again$"):
        Manifest.load(root)


def test_a_bound_that_no_float_can_hold_names_its_place(root: Path) -> None:
    document = json.loads((root / "manifest.json").read_text())
    document["factors"] = {"x": {"kind": "continuous", "range": [0, 10**400], "periodic": False}}
    (root / "manifest.json").write_text(json.dumps({**document, "seal": seal(document)}))
    with pytest.raises(DataError, match=r"factors\.x\.range must be two numbers"):
        Manifest.load(root)


SPEC = ImageSpec(4, 6, 3, "png")


def picture(mode: str = "RGB", size: tuple[int, int] = (6, 4), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be decoded"),
        (picture()[:-30], "cannot be decoded"),
        (picture(kind="JPEG"), "cannot be decoded"),
        (picture("L"), "mode L, not RGB"),
        (picture("P"), "mode P, not RGB"),
        (picture(size=(4, 6)), "6x4, not 4x6"),
    ],
)
def test_images_that_are_not_what_the_manifest_says_are_refused(data: bytes, message: str) -> None:
    assert decode.image(picture(), SPEC).shape == (4, 6, 3)
    with pytest.raises(DataError, match=message):
        decode.image(data, SPEC)


def test_arrays_are_read_without_pickle() -> None:
    spec = ImageSpec(4, 6, 3, "npy")

    def saved(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    good = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(decode.image(saved(good), spec), good)
    np.testing.assert_array_equal(decode.image(saved(np.asfortranarray(good)), spec), good)
    for bad in (good.astype(np.int32), good[:3], np.array([{"a": 1}], object)):
        with pytest.raises(DataError):
            decode.image(saved(bad), spec)
    with pytest.raises(DataError):
        decode.image(pickle.dumps(good), spec)


@pytest.mark.parametrize("name", ["00000001.pyd", "00000001.pickle", "00000001.PNG", "00000001", ".png", "a/b.pth"])
def test_only_listed_types_are_ever_opened(name: str) -> None:
    assert decode.split_name("00000001.png") == ("00000001", "png")
    with pytest.raises(DataError, match="never opened"):
        decode.split_name(name)


def test_free_memory_is_shared_by_the_processes_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = free_host_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 0.15 * alone < free_host_memory() < 0.4 * alone
