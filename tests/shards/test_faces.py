"""Faces from a folder or an array file, with a table of their factors, and what may be wrong with each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.errors import UserError
from shards.sources import open_source


def test_faces_come_from_a_folder_or_an_array_with_the_same_factors(tmp_path: Path, originals: Any) -> None:
    factors = originals.face_factors(20)
    renders = np.stack([originals.face_render(a, e) for a, e in zip(*factors.values(), strict=True)])
    lines = [f"{a!r},{e!r}" for a, e in zip(*(column.tolist() for column in factors.values()), strict=True)]
    (tmp_path / "folder").mkdir()
    for number, render in enumerate(renders):
        Image.fromarray(render).save(tmp_path / "folder" / f"{number:02d}.png")
    named = [f"{number:02d}.png,{line}" for number, line in enumerate(lines)]
    (tmp_path / "folder" / "factors.csv").write_text("\n".join(["file,azimuth,elevation", *named[::-1]]))
    np.save(tmp_path / "faces.npy", renders[..., None])
    (tmp_path / "faces.csv").write_text("\n".join(["azimuth,elevation", *lines]))
    np.savez(tmp_path / "packed.npz", pictures=renders, **factors)
    for place in ("folder", "faces.npy", "packed.npz"):
        faces = open_source("faces", path=str(tmp_path / place))
        assert faces.splits == {"train": 16, "validation": 2, "test": 2}
        assert faces.shape == (32, 32, 1)
        expected = [float(factors["azimuth"].min()), float(factors["azimuth"].max())]
        assert faces.factors["azimuth"] == {"kind": "continuous", "range": expected, "periodic": False}
        sample = faces.sample("validation", 1)
        assert sample.factors == {name: float(column[sample.key]) for name, column in factors.items()}
        # Half the size is close to the mean of each 2x2, worked out by itself.
        mean = renders[sample.key].reshape(32, 2, 32, 2).mean((1, 3))
        assert abs(sample.image[..., 0].astype(float) - mean).mean() < 3


def test_colour_arrays_and_subfolders_of_faces_are_read(tmp_path: Path, originals: Any) -> None:
    colour = np.zeros((20, 8, 8, 3), np.uint8) + np.array([200, 10, 10], np.uint8)
    np.save(tmp_path / "faces.npy", colour)
    image = open_source("faces", path=str(tmp_path / "faces.npy"), color="rgb", size="4").sample("train", 0).image
    assert (image == (200, 10, 10)).all()
    people = open_source("faces", path=originals.write("folder", tmp_path / "people", 20)["path"])
    assert people.classes == ("first", "second")
    assert people.factors == {}


GREY = np.random.RandomState(0).randint(0, 256, (20, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": GREY / 255.0}, r"images is of float64, whose range cannot be known: save it as uint8 .*np\.rint"),
        ({"images": GREY.astype(np.uint16)}, "images is of uint16"),
        ({"images": GREY[..., None].repeat(4, 3)}, r"\(20, 8, 8, 4\)"),
        ({"a": GREY, "b": GREY}, "holds 2 arrays of images"),
        ({"a": np.arange(20)}, "holds 0 arrays of images"),
        ({"images": GREY, "angle": np.arange(19)}, r"angle has the shape \(19,\) for 20 images"),
        ({"images": GREY, "angle": np.full(20, np.nan)}, "no finite numbers"),
        ({"images": GREY, "angle": np.ones(20)}, "the factor angle is 1 for every image: leave it out"),
        ({"images": GREY, "angle": np.array(["left"] * 20)}, "no finite numbers"),
        (
            {"images": GREY, "note": np.array([{"a": 1}] * 20, dtype=object)},
            "cannot be read .*pickled objects, which are never opened",
        ),
        ({"images": GREY[:0]}, r"images has the shape \(0, 8, 8\): there is nothing in it"),
        ({"images": GREY[:, :0, :0]}, r"\(20, 0, 0\): there is nothing in it"),
        ({"images": GREY[:, :1]}, r"image \d+ is 8x1: one colour is all"),
        ({"images": GREY[:1]}, "holds 1 images, 1 of them for training: at least 2 are needed; add images or lower"),
    ],
)
def test_an_array_that_is_no_faces_is_named(
    tmp_path: Path, content: dict[str, Any], message: str, refused: Any
) -> None:
    np.savez(tmp_path / "faces.npz", **content)
    refused(rf"faces\.npz.*{message}", "faces", path=str(tmp_path / "faces.npz"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("angle\n1\n2\n", "has 2 rows for 20 images"),
        ("angle,width\n" + "1,2\n" * 19 + "1\n", "line 21: 1 cells where the first row has 2"),
        ("angle\n" + "1\n" * 19 + "left\n", "line 21: 'left' is no number"),
        ("angle,angle\n" + "1,2\n" * 20, "must name each factor once"),
        ("1\n" * 20, "its first row must name the factors, and holds numbers"),
        ("", "must name each factor once"),
    ],
)
def test_a_table_of_factors_that_does_not_fit_is_named(tmp_path: Path, table: str, message: str, refused: Any) -> None:
    np.save(tmp_path / "faces.npy", GREY)
    (tmp_path / "faces.csv").write_text(table)
    refused(rf"faces\.csv.*{message}", "faces", path=str(tmp_path / "faces.npy"))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("03.png,9\n", r"line 22: 03\.png has a row already, in line 5"),
        ("3.png,9\n", r"line 22: there is no image 3\.png"),
    ],
)
def test_a_table_of_factors_has_one_row_for_each_image_and_no_other(
    tmp_path: Path, added: str, message: str, refused: Any
) -> None:
    for number, pixels in enumerate(GREY):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    rows = "".join(f"{number:02d}.png,{number}\n" for number in range(20))
    (tmp_path / "factors.csv").write_text(f"file,angle\n{rows}{added}")
    refused(rf"factors\.csv, {message}", "faces", path=str(tmp_path))


def test_factors_that_float32_cannot_tell_apart_are_refused(tmp_path: Path, refused: Any) -> None:
    for low, high in ((-1e307, 1e307), (1e-60, 2e-60), (1e9, 1e9 + 1)):
        np.savez(tmp_path / "faces.npz", images=GREY, angle=np.linspace(low, high, 20))
        refused("the factor angle goes from .* no range in float32", "faces", path=str(tmp_path / "faces.npz"))


def test_an_array_file_is_read_whatever_its_name_and_holds_arrays_alone(tmp_path: Path, refused: Any) -> None:
    np.savez(tmp_path / "faces.npz", images=GREY)
    (tmp_path / "faces.npz").rename(tmp_path / "archive.npy")
    assert open_source("faces", path=str(tmp_path / "archive.npy")).splits["train"] == 16
    with zipfile.ZipFile(tmp_path / "archive.npy", "a") as archive:
        archive.writestr("README.txt", "hello")
    refused(r"holds 'README\.txt', which is no array", "faces", path=str(tmp_path / "archive.npy"))


def _in_directory(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Sets a byte of every entry in a zip's directory."""

    def change(data: bytes) -> bytes:
        first, *entries = data.split(b"PK\x01\x02")
        rest = (entry[: offset - 4] + bytes([value]) + entry[offset - 3 :] for entry in entries)
        return b"PK\x01\x02".join([first, *rest])

    return change


@pytest.mark.parametrize("name", ["faces", "dsprites", "faces3d"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_in_directory(8, 1), "encrypted"),
        (_in_directory(10, 99), "compression method"),
        (lambda data: data.replace(b"), }", b"),  "), "EOF in multi-line statement"),
    ],
)
def test_a_damaged_array_file_is_one_short_line(
    tmp_path: Path, small: Any, name: str, spoil: Callable[[bytes], bytes], message: str, refused: Any
) -> None:
    path = tmp_path / "arrays.npz"
    imgs, classes = np.eye(64, dtype=np.uint8)[None].repeat(20, 0), np.zeros((20, 6), np.int64)
    content = {"faces": {"images": GREY.repeat(9, 0)}, "dsprites": {"imgs": imgs, "latents_classes": classes}}
    np.savez(path, **(content | {"faces3d": small.arrays()})[name])
    path.write_bytes(spoil(path.read_bytes()))
    refused(rf"arrays\.npz cannot be read \(.*{message}", name, path=str(path))


def test_paths_that_hold_no_faces_say_why(tmp_path: Path, refused: Any) -> None:
    with pytest.raises(UserError, match="faces: which ones"):
        open_source("faces")
    with pytest.raises(UserError, match="faces: color is 'red'"):
        open_source("faces", path=str(tmp_path), color="red")
    np.save(tmp_path / "faces.npy", GREY)
    refused(
        "missing.csv cannot be read", "faces", path=str(tmp_path / "faces.npy"), factors=str(tmp_path / "missing.csv")
    )
    os.truncate(tmp_path / "faces.npy", 700)
    refused(r"faces\.npy cannot be read", "faces", path=str(tmp_path / "faces.npy"))
    np.savez(tmp_path / "torn.npz", images=GREY)
    os.truncate(tmp_path / "torn.npz", 700)
    refused(r"torn\.npz cannot be read", "faces", path=str(tmp_path / "torn.npz"))
