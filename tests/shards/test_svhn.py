"""SVHN is read as published: Matlab files, and what may be wrong with them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.sources import open_source


def test_svhn_has_the_pixels_and_digits_of_its_files(tmp_path: Path, originals: Any) -> None:
    x, digits = originals.svhn_file(tmp_path / "train_32x32.mat", 24, 0)
    originals.svhn_file(tmp_path / "test_32x32.mat", 5, 1)
    svhn = open_source("svhn", path=str(tmp_path))
    assert svhn.splits == {"train": 22, "validation": 2, "test": 5}
    assert [svhn.sample("validation", i).key for i in range(2)] == [11, 23]
    for i in (0, 10, 11, 21):
        sample = svhn.sample("train", i)
        np.testing.assert_array_equal(sample.image, x[..., sample.key])
        assert sample.label == digits[sample.key]
    assert 0 in digits  # which the file writes as 10


def test_the_extra_digits_follow_those_of_the_training_file(tmp_path: Path, originals: Any, refused: Any) -> None:
    (tmp_path / "svhn").mkdir()
    originals.svhn_file(tmp_path / "svhn" / "train_32x32.mat", 24, 0)
    originals.svhn_file(tmp_path / "svhn" / "test_32x32.mat", 5, 1)
    refused(r"lacks extra_32x32\.mat: fetch from http.*--download", "svhn", path=str(tmp_path), extra=True)
    x, digits = originals.svhn_file(tmp_path / "svhn" / "extra_32x32.mat", 7, 2)
    svhn = open_source("svhn", path=str(tmp_path), extra=True)
    assert svhn.splits == {"train": 29, "validation": 2, "test": 5}
    sample = svhn.sample("train", 28)
    assert (sample.key, sample.label) == (24 + 6, digits[6])
    np.testing.assert_array_equal(sample.image, x[..., 6])
    assert any("531,131" in line for line in svhn.lacks())


def _torn(path: Path) -> None:
    os.truncate(path, round(path.stat().st_size * 0.6))


def _text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>" * 20)


def _newer(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))


def _saved(**content: Any) -> Callable[[Path], None]:
    from scipy.io import savemat

    return lambda path: savemat(path, content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_torn, "cannot be read .* cut off"),
        (_text, "cannot be read"),
        (_newer, "is of MATLAB 7.3.* save it with -v7"),
        (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file Pl"), "cannot be read"),  # IndexError in scipy
        (_saved(X=np.zeros((32, 32, 3, 4), np.uint8)), "holds no array 'y'"),
        (_saved(X=np.zeros((32, 32, 3, 4), np.uint8), y=np.ones((5, 1))), r"\(32, 32, 3, 4\) and 5 labels"),
        (_saved(X=np.zeros((4, 32, 32, 3), np.uint8), y=np.ones((4, 1))), r"not uint8 \(32, 32, 3, N\)"),
        (_saved(X=np.zeros((32, 32, 3, 4)), y=np.ones((4, 1))), "float64"),
        (_saved(X=np.zeros((32, 32, 3, 4), bool), y=np.ones((4, 1))), "X of true and false"),
        *[
            (
                _saved(X=np.zeros((32, 32, 3, 4), np.uint8), y=np.array([[1], [2], [3], [label]])),
                "labels other than 1 to",
            )
            for label in (11, 0, 1.5, np.nan, 1e30, 1j)
        ],
    ],
)
def test_a_spoiled_matlab_file_is_named(
    tmp_path: Path, originals: Any, spoil: Callable[[Path], None], message: str, refused: Any
) -> None:
    options = originals.write("svhn", tmp_path / "raw", 20)
    warnings.simplefilter("error")
    spoil(tmp_path / "raw" / "test_32x32.mat")
    refused(rf"raw/test_32x32\.mat .*{message}", "svhn", **options)
