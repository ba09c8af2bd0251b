"""CelebA is read as published, the folder or the zip, and as repackaged; what is wrong with it is said in one line."""

from __future__ import annotations

import io
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.sources import open_source
from shards.verify import verify
from shards.writer import build


def test_celeba_is_the_same_from_the_zip_the_folder_and_repackaged_lists(tmp_path: Path, originals: Any) -> None:
    originals.write("celeba", tmp_path / "zip", 20)
    originals.celeba_repackaged(tmp_path / "csv", 20)
    folder = shutil.copytree(tmp_path / "zip", tmp_path / "folder" / "celeba", ignore=shutil.ignore_patterns("*.zip"))
    zipfile.ZipFile(tmp_path / "zip" / "img_align_celeba.zip").extractall(folder)
    opened = [open_source("celeba", path=str(tmp_path / where)) for where in ("zip", "csv", "folder")]
    names, flags, _ = originals.celeba_lists(20)
    for source in opened:
        assert source.splits == {"train": 16, "validation": 2, "test": 2}
        assert source.fingerprint == opened[0].fingerprint
        assert list(source.factors) == originals.ATTRIBUTES
        for split, first in (("train", 0), ("validation", 16), ("test", 18)):
            sample = source.sample(split, 1)
            assert sample.key == first + 1
            assert list((sample.factors or {}).values()) == flags[first + 1].tolist()
            np.testing.assert_array_equal(sample.image, opened[0].sample(split, 1).image)
    assert len(names) == 20


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_square_in_the_middle_of_a_face_is_cut(tmp_path: Path, originals: Any, size: int) -> None:
    originals.celeba_repackaged(tmp_path, 10)
    marked = np.zeros((218, 178, 3), np.uint8)
    marked[..., 0] = 255
    marked[35:183, 15:163] = (0, 0, 255)  # 148 pixels of 178 and of 218, by hand
    for path in (tmp_path / "img_align_celeba" / "img_align_celeba").iterdir():
        Image.fromarray(marked).save(path, "PNG")  # lossless; the content decides, not the name
    cut = open_source("celeba", path=str(tmp_path), size=size).sample("train", 0).image
    assert cut.shape == (size, size, 3)
    assert (cut == (0, 0, 255)).all()
    full = open_source("celeba", path=str(tmp_path), size=size, crop=178).sample("train", 0).image
    assert full[0, :, 0].min() > 200  # red, but for what the filter brings from the blue next to it


def test_the_png_edition_with_the_lists_of_the_jpegs_is_read(tmp_path: Path, originals: Any) -> None:
    options = originals.celeba_repackaged(tmp_path, 10)
    (tmp_path / "img_align_celeba" / "img_align_celeba" / "no_image_of_ours.jpg").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "img_align_celeba" / "img_align_celeba").glob("0*"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    assert open_source("celeba", **options).splits["train"] == 8


def _zip_of(folder: Path) -> Path:
    return folder / "img_align_celeba.zip"


def _torn_zip(folder: Path) -> None:
    os.truncate(_zip_of(folder), round(_zip_of(folder).stat().st_size * 0.7))


def _flipped(folder: Path) -> None:
    data = bytearray(_zip_of(folder).read_bytes())
    at = data.index(b"000001.jpg") + 2000
    data[at : at + 40] = bytes(40)
    _zip_of(folder).write_bytes(data)


def _absent(folder: Path) -> None:
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            if not name.endswith("000007.jpg"):
                new.writestr(name, old.read(name))
    (folder / "new").replace(_zip_of(folder))


def _no_image(folder: Path) -> None:
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"not a JPEG" if name.endswith("000003.jpg") else old.read(name))
    (folder / "new").replace(_zip_of(folder))


def _edited(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return edit


def _added(name: str) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(_zip_of(folder), "a") as archive:
            warnings.simplefilter("ignore")  # of the name that is there already
            archive.writestr(name, b"")

    return add


def _all_for_test(folder: Path) -> None:
    path = folder / "list_eval_partition.txt"
    path.write_text(re.sub(r"\d$", "2", path.read_text(), flags=re.MULTILINE))


def _misnamed(folder: Path) -> None:
    """The directory's last name is marked as UTF-8, which it is not."""
    data = bytearray(_zip_of(folder).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 9] |= 8
    data[at + 46] = 0xFF
    _zip_of(folder).write_bytes(data)


def _tiny(folder: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (100, 100)).save(stream, "PNG")
    with zipfile.ZipFile(_zip_of(folder)) as old, zipfile.ZipFile(folder / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name, stream.getvalue() if name.endswith(".jpg") else b"")
    (folder / "new").replace(_zip_of(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_torn_zip, r"img_align_celeba\.zip is no readable zip .*fetch it again"),
        (_flipped, r"img_align_celeba\.zip: img_align_celeba/000001\.jpg is damaged in the zip"),
        (_absent, r"lacks 1 of the 20 images that list_eval_partition\.txt names, the first is 000007\.jpg"),
        (_no_image, r"000003\.jpg cannot be read as an image"),
        (_tiny, r"0000\d\d\.jpg is 100x100, too small for the crop of 148x148"),
        (
            lambda folder: _zip_of(folder).unlink(),
            r"raw lacks img_align_celeba\.zip \(or its folder\): fetch from http",
        ),
        (lambda folder: (folder / "list_attr_celeba.txt").unlink(), r"lacks list_attr_celeba\.txt: fetch from"),
        (_edited("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg"), r"000005\.jpg: 39 values for 40 attributes"),
        (_edited("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg  7"), r"000005\.jpg: the value '7' is neither"),
        (_edited("list_attr_celeba.txt", "000005.jpg", "000099.jpg"), r"has no row for 000005\.jpg"),
        (_edited("list_attr_celeba.txt", "Young", "Male"), "or one twice"),
        (_edited("list_eval_partition.txt", "000004.jpg 0", "000004.jpg 3"), r"row 4: '000004\.jpg 3' is not an image"),
        (_edited("list_eval_partition.txt", "000004.jpg", "000003.jpg"), r"names 000003\.jpg twice"),
        (_edited("list_attr_celeba.txt", "000005.jpg", "000004.jpg"), r"two rows for 000004\.jpg"),
        (_edited("list_attr_celeba.txt", "20\n", ""), "does not begin with the number of its images"),
        (
            lambda folder: os.truncate(folder / "list_eval_partition.txt", 10 * len("000001.jpg 0\n")),
            r"names 10 images, .*attr_celeba\.txt has 20",
        ),
        (_all_for_test, "there are no training images, {'train': 0, 'validation': 0, 'test': 20}"),
        (_added("other/000003.jpg"), r"holds 000003\.jpg twice, as img_align_celeba/000003\.jpg and as other"),
        (_added("img_align_celeba/000003.jpg"), r"holds img_align_celeba/000003\.jpg twice"),
        (_misnamed, r"img_align_celeba\.zip is no readable zip"),
        (lambda folder: (folder / "list_eval_partition.txt").write_text(""), "names no image"),
        (lambda folder: (folder / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00"), "is no readable text"),
    ],
)
def test_a_spoiled_celeba_is_named(
    tmp_path: Path, originals: Any, spoil: Callable[[Path], None], message: str, refused: Any
) -> None:
    options = originals.write("celeba", tmp_path / "raw", 20)
    (tmp_path / "raw" / "list_attr_celeba.txt").write_text(
        (tmp_path / "raw" / "list_attr_celeba.txt").read_text().replace("000005.jpg  1", "000005.jpg -1")
    )
    spoil(tmp_path / "raw")
    refused(message, "celeba", **options)


def test_damaged_faces_can_be_left_out(tmp_path: Path, originals: Any) -> None:
    options = originals.write("celeba", tmp_path / "raw", 20)
    _no_image(tmp_path / "raw")
    manifest = build(open_source("celeba", **options, skip_unreadable=True), tmp_path / "set", progress=False)
    assert (manifest.samples, manifest.source["skipped"]) == (19, 1)
    assert verify(tmp_path / "set", progress=False) == []
