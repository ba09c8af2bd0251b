"""Tars that others wrote become a data set without a byte of them changing, or one line says why they cannot."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.adopt import Choices, adopt
from shards.cache import CacheOptions
from shards.dataset import open_dataset
from shards.decode import RUNNING_CODE
from shards.errors import DataError, UserError
from shards.loader import open_reader
from shards.verify import verify

SHAPE = (6, 5, 3)


def picture(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)


def encoded(number: int, kind: str = "PNG", shape: tuple[int, ...] = SHAPE, mode: str = "") -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(picture(number, shape))
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("folder/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # type: ignore[assignment]  # as webdataset does: an extra header
            tar.addfile(info, io.BytesIO(data))


def sample(number: int, key: str = "", **members: bytes) -> list[tuple[str, bytes]]:
    key = key or f"folder/n{number:04d}"
    body = {"png": encoded(number), "cls": b"%d" % (number % 3)} | members
    return [(f"{key}.{extension.replace('_', '.')}", data) for extension, data in body.items() if data]


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Four tars as webdataset writes them: 30 train samples, 10 of validation."""
    root = tmp_path / "tars"
    root.mkdir()
    for name, begin in (("train-00000", 0), ("train-00001", 10), ("train-00002", 20), ("val-00000", 30)):
        with webdataset.TarWriter(str(root / f"{name}.tar")) as tar:
            for number in range(begin, begin + 10):
                tar.write(
                    {
                        "__key__": f"im_{number}",
                        "png": encoded(number),
                        "cls": number % 3,
                        "json": {"n": 1},
                        "txt": "a cat",
                    }
                )
    return root


def test_tars_of_webdataset_are_adopted_in_place(
    tars: Path, tree: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    before = tree(tars)
    manifest = adopt(tars, count=1, progress=False)
    after = tree(tars)
    assert {name: data for name, data in after.items() if name.endswith(".tar")} == before
    assert after.keys() - before.keys() == {"manifest.json", *(name.replace(".tar", ".idx") for name in before)}
    assert {name: part.samples for name, part in manifest.splits.items()} == {"train": 30, "validation": 10, "test": 0}
    assert json.loads(after["manifest.json"])["format"] == 2
    assert verify(tars, progress=False) == []
    for kind, workers in (("resident", 1), ("indexed", 0), ("indexed", 1)):
        reader = open_reader(open_dataset(tars), "train", kind=kind, workers=workers)  # type: ignore[arg-type]
        batch = reader.gather(np.array([29, 0, 11]))
        for row, number in enumerate((29, 0, 11)):
            np.testing.assert_array_equal(batch.images[row].numpy(), picture(number).transpose(2, 0, 1))
        assert batch.labels.tolist() == [2, 0, 2]
        reader.close()


def test_adopting_changes_nothing_about_what_webdataset_reads(tars: Path) -> None:
    adopt(tars, count=1, progress=False)
    urls = sorted(str(path) for path in tars.glob("train-*.tar"))
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [item["__key__"] for item in read] == [f"im_{number}" for number in range(30)]
    reader = open_reader(open_dataset(tars), "train", kind="indexed", workers=0)
    assert [int(item["cls"]) for item in read] == reader.gather(np.arange(30)).labels.tolist()
    reader.close()


def test_the_usual_spellings_are_read(tmp_path: Path) -> None:
    long = "folder/" + "x" * 130
    for number, (members, expected) in enumerate(
        {
            "jpeg, class": ([("a.JPEG", encoded(0, "JPEG")), ("a.class", b"1\n")], 1),
            "txt": ([("a.txt", b" 2 "), ("a.png", encoded(0)), ("a.url", b"http://x")], 2),
            "caption": ([("a.txt", b"a cat"), ("a.png", encoded(0))], -1),
            "npy": ([("a.cls", b"0"), ("a.npy", npy(picture(0)))], 0),
            "grey npy": ([("a.npy", npy(picture(0, (6, 5))))], -1),
            "a long name": ([(f"{long}.png", encoded(0)), (f"{long}.cls", b"1")], 1),
            "notes of webdataset": ([("__meta__.json", b"{}"), ("a.png", encoded(0))], -1),
        }.values()
    ):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            root = tmp_path / f"{number}-{form}"
            write_tar(root / "a.tar", members, form)
            adopt(root, count=1, progress=False)
            assert verify(root, progress=False) == []
            reader = open_reader(open_dataset(root), "train", kind="indexed", workers=0)
            assert reader.gather(np.array([0])).labels.tolist() == [expected]
            reader.close()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_which_image_label_and_factors_can_be_said(tmp_path: Path) -> None:
    members = [
        member
        for number in range(6)
        for member in sample(
            number,
            mask_png=encoded(100 + number, shape=(6, 5)),
            json=json.dumps({"kind": number % 2, "size": number / 4}).encode(),
        )
    ]
    write_tar(tmp_path / "tars" / "a.tar", members)
    with pytest.raises(DataError, match=r"several images \(png, mask\.png\): say which with --image"):
        adopt(tmp_path / "tars", count=1, progress=False)
    manifest = adopt(
        tmp_path / "tars",
        tmp_path / "out",
        choices=Choices(image="mask.png", label="none", factors=True),
        count=1,
        progress=False,
    )
    assert manifest.image.channels == 1
    assert manifest.classes == ()
    assert manifest.factors == {
        "kind": {"kind": "categorical", "values": 2},
        "size": {"kind": "continuous", "range": [0.0, 1.25], "periodic": False},
    }
    assert verify(tmp_path / "out", progress=False) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.idx", "manifest.json"]
    reader = open_reader(open_dataset(tmp_path / "out"), "train", kind="indexed", workers=0)
    batch = reader.gather(np.array([5]))
    assert batch.factors is not None
    assert batch.factors.tolist() == [[1.0, 1.25]]
    reader.close()


@pytest.mark.parametrize("extension", RUNNING_CODE)
def test_what_could_run_code_is_refused_by_name(tmp_path: Path, extension: str) -> None:
    write_tar(tmp_path / "a.tar", [*sample(0), *sample(1), (f"folder/n0001.{extension}", b"boom")])
    with pytest.raises(DataError, match=rf"a\.tar: member folder/n0001\.{extension}: .*can run code"):
        adopt(tmp_path, count=1, progress=False)
    assert not (tmp_path / "manifest.json").exists()


BAD: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "another size": (
        sample(9, png=encoded(9, shape=(7, 5, 3))),
        r"b\.tar: member folder/n0009\.png: the image is 7x5, not 6x5 as the first one, folder/n0000\.png of a\.tar; "
        r".*infogan shards build folder",
    ),
    "another mode": (sample(9, png=encoded(9, mode="RGBA")), r"b\.tar: member folder/n0009\.png: .*mode RGBA, not RGB"),
    "no label": (sample(9, cls=b""), r"b\.tar: sample folder/n0009 has no \.cls member"),
    "a label of letters": (sample(9, cls=b"cat"), r"b\.tar: member folder/n0009\.cls: the label b'cat' is not a whole"),
    "no image": (sample(9, png=b"", txt=b"x"), r"b\.tar: sample folder/n0009 has no \.png member"),
    "a damaged image": (sample(9, png=encoded(9)[:60]), r"b\.tar: member folder/n0009\.png: .*cannot be decoded"),
    "a key that comes twice": (sample(9) * 2, r"b\.tar: member folder/n0009\.png: the key occurs twice"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_adopted_is_named_with_its_shard(tmp_path: Path, fault: str) -> None:
    members, line = BAD[fault]
    write_tar(tmp_path / "a.tar", sample(0))
    write_tar(tmp_path / "b.tar", [*sample(8), *members])
    with pytest.raises(DataError, match=line) as caught:
        adopt(tmp_path, count=1, progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar"]


@pytest.mark.parametrize("cut", [700, 1600, 5000])
def test_a_tar_that_is_cut_off_is_not_adopted(tars: Path, cut: int) -> None:
    path = tars / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"train-00001\.tar: .*(cut off|end-of-archive)"):
        adopt(tars, count=1, progress=False)


def test_damage_after_adoption_is_found(tars: Path) -> None:
    adopt(tars, count=1, progress=False)
    data = bytearray((tars / "train-00001.tar").read_bytes())
    data[3000] ^= 1
    (tars / "train-00001.tar").write_bytes(data)
    assert {fault.shard for fault in verify(tars, progress=False)} == {"train-00001.tar"}
    with pytest.raises(DataError, match=r"train-00001\.tar: its sha256"):
        open_reader(open_dataset(tars), "train", kind="indexed", workers=0)


def test_splits_can_be_said_by_patterns(tars: Path) -> None:
    splits = {"train": ["train-{00000..00001}.tar"], "test": ["train-0000[2-9].tar"], "validation": ["val*"]}
    manifest = adopt(tars, splits=splits, count=1, progress=False)
    assert {name: part.samples for name, part in manifest.splits.items()} == {"train": 20, "test": 10, "validation": 10}
    for wrong, line in (
        ({"train": ["nosuch-*.tar"]}, r"--split train=nosuch-\*\.tar: matches no file"),
        ({"train": ["nosuch.tar"]}, r"nosuch\.tar: there is no such file"),
        ({"train": ["*.tar"], "test": ["val*"]}, r"val-00000\.tar: belongs to two splits"),
        ({"train": ["*.idx"]}, "only uncompressed .tar files"),
        ({"Train": ["*.tar"]}, "a split's name"),
    ):
        with pytest.raises(UserError, match=line):
            adopt(tars, splits=wrong, count=1, progress=False, force=True)
    with pytest.raises(UserError, match="holds a data set already"):
        adopt(tars, count=1, progress=False)
    (tars / "more.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"more\.tar: its name says no split, while others' do"):
        adopt(tars, count=1, progress=False, force=True)


def test_tars_at_a_url_are_adopted_and_read_there(tars: Path, tmp_path: Path, serve: Callable[[Path], Any]) -> None:
    server, cache = serve(tars), CacheOptions(str(tmp_path / "cache"))
    server.fail_at_random(0.2)
    with pytest.raises(UserError, match="say with --out FOLDER"):
        adopt(server.url, progress=False, cache=cache)
    splits = {"train": ["train-{00000..00002}.tar"], "validation": ["val-00000.tar"]}
    far = adopt(server.url, tmp_path / "out", splits=splits, count=1, progress=False, cache=cache)
    near = adopt(tars, count=1, progress=False)
    assert (far.digest, far.splits, far.image, far.classes) == (near.digest, near.splits, near.image, near.classes)
    assert not list((tmp_path / "cache" / "scratch").iterdir())
    assert verify(tmp_path / "out", progress=False, cache=cache) == []
    reader = open_reader(open_dataset(tmp_path / "out", cache), "train", workers=0)
    batch = reader.gather(np.arange(30))
    np.testing.assert_array_equal(batch.images[17].numpy(), picture(17).transpose(2, 0, 1))
    reader.close()
    # With its manifest and sidecars beside the tars it is a data set at a URL.
    reader = open_reader(open_dataset(server.url, cache), "train", workers=0)
    np.testing.assert_array_equal(reader.gather(np.arange(30)).images, batch.images)
    reader.close()
    assert verify(server.url, progress=False, cache=cache) == []


@pytest.mark.parametrize("place", ["/etc", "pipe:cat /etc/passwd"])
def test_a_manifest_from_a_url_names_no_folder_and_no_command(
    tars: Path, tmp_path: Path, serve: Callable[[Path], Any], place: str
) -> None:
    from dataclasses import replace

    manifest = adopt(tars, count=1, progress=False)
    assert manifest.adopted is not None
    replace(manifest, adopted=replace(manifest.adopted, tars=place)).save(tars)
    with pytest.raises(UserError, match=r"names the folder /etc of another machine|runs a command"):
        open_dataset(serve(tars).url, CacheOptions(str(tmp_path / "cache")))


@pytest.mark.parametrize("name", ["/etc/x.tar", "../x.tar", "a/../../x.tar", "a/.hidden/x.tar", "x.zip", "a\\b.tar"])
def test_a_manifest_cannot_name_a_tar_outside_its_folder(tars: Path, name: str) -> None:
    from shards.manifest import seal

    adopt(tars, count=1, progress=False)
    document = json.loads((tars / "manifest.json").read_text())
    document["splits"]["train"]["shards"][0]["name"] = name
    document["seal"] = seal(document)
    (tars / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"must be a relative path to a .tar"):
        open_dataset(tars)
