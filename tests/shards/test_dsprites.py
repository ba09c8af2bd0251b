"""dSprites is read from its file without opening a pickle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.sources import open_source
from shards.writer import build


def test_dsprites_has_the_pixels_and_the_real_values_of_its_file(tmp_path: Path, originals: Any) -> None:
    sprites = open_source("dsprites", **originals.write("dsprites", tmp_path, 60))
    assert sprites.splits == {"train": 48, "validation": 6, "test": 6}
    with np.load(tmp_path / originals.DSPRITES, allow_pickle=False) as archive:
        images, values = archive["imgs"], archive["latents_values"]  # the values are read here only
    for split, i in (("train", 0), ("train", 47), ("validation", 3), ("test", 5)):
        sample = sprites.sample(split, i)
        np.testing.assert_array_equal(sample.image[..., 0], images[sample.key] * 255)
        _, shape, scale, orientation, x, y = values[sample.key]
        got = sample.factors or {}
        assert list(got) == ["shape", "scale", "orientation", "x", "y"]
        assert sample.label == got["shape"]
        np.testing.assert_allclose(list(got.values()), [shape - 1, scale, orientation, x, y], atol=1e-9)
    assert sprites.classes == ("square", "ellipse", "heart")
    assert sprites.factors["orientation"] == {"kind": "continuous", "range": [0.0, 2 * math.pi], "periodic": True}


class _Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_the_pickled_description_of_dsprites_is_never_opened(tmp_path: Path, refused: Any) -> None:
    trap = np.array(_Trap(tmp_path / "sprung"), dtype=object)
    classes = np.zeros((20, 6), np.int64)
    path = tmp_path / "any_name.npz"
    np.savez(path, metadata=trap, imgs=np.eye(64, dtype=np.uint8)[None].repeat(20, 0), latents_classes=classes)
    build(open_source("dsprites", path=str(path)), tmp_path / "set", progress=False)
    assert not (tmp_path / "sprung").exists()
    np.savez(path, imgs=np.array([_Trap(tmp_path / "sprung")] * 20, dtype=object), latents_classes=classes)
    refused("imgs is of object", "dsprites", path=str(path))
    np.savez(path, imgs=np.zeros((1, 64, 64), np.uint8), latents_classes=np.array([trap], dtype=object))
    refused("cannot be read .*pickled objects", "dsprites", path=str(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgs": None}, "it has no imgs"),
        ({"latents_classes": None}, "it has no latents_classes"),
        ({"imgs": np.full((20, 64, 64), 255, np.uint8)}, "imgs holds the value 255, only 0 and 1"),
        ({"imgs": np.zeros((20, 64, 64), np.float32)}, "imgs is of float32"),
        ({"imgs": np.zeros((20, 64), np.uint8)}, r"imgs is uint8 \(20, 64\)"),
        ({"latents_classes": np.zeros((19, 6), np.int64)}, r"latents_classes is \(19, 6\) for 20 images"),
        ({"latents_classes": np.full((20, 6), 3)}, "latents_classes go beyond the factors' 1, 3, 6, 40, 32, 32"),
    ],
)
def test_a_dsprites_file_of_another_content_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str, refused: Any
) -> None:
    whole = {"imgs": np.zeros((20, 64, 64), np.uint8), "latents_classes": np.zeros((20, 6), np.int64)}
    np.savez(tmp_path / "d.npz", **{name: array for name, array in (whole | changes).items() if array is not None})
    refused(
        rf"d\.npz cannot be read \({message}.*fetch dsprites_.* from http", "dsprites", path=str(tmp_path / "d.npz")
    )


def test_a_torn_dsprites_file_is_named(tmp_path: Path, originals: Any, refused: Any) -> None:
    options = originals.write("dsprites", tmp_path / "raw", 20)
    path = tmp_path / "raw" / originals.DSPRITES
    data = bytearray(path.read_bytes())
    at = data.index(b"imgs.npy") + 400
    data[at : at + 30] = bytes(30)
    path.write_bytes(data)
    refused(r"npz cannot be read", "dsprites", **options)
    path.write_bytes(data[:-100])
    refused(r"npz cannot be read", "dsprites", **options)
