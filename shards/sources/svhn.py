"""`svhn`: house numbers from street views, cropped to one digit, as the three MATLAB files that its authors publish.

A file holds X, uint8 [32, 32, 3, N], and y, [N, 1], where the digit 0 is written as 10. An image is one piece of
memory in MATLAB's order, so nothing is copied; worker processes share the arrays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError
from shards.sources import register
from shards.sources.base import Sample, Source, option, validation_of
from shards.sources.damage import DAMAGE, reason
from shards.sources.fetching import by_torchvision, find, missing

ORIGIN = "http://ufldl.stanford.edu/housenumbers/"
_FOLDERS = (".", "svhn", "SVHN")
_HDF5 = b"MATLAB 7.3"  # how such a file begins


@dataclass(frozen=True)
class SvhnOptions:
    """Where the files are, and whether the third is used."""

    path: str = option("data/raw", "folder with train_32x32.mat and test_32x32.mat", identity=False)
    extra: bool = option(False, "add the 531,131 easier digits of extra_32x32.mat to the training images")
    download: bool = option(False, "download the files into the path first (by torchvision)", identity=False)


@register("svhn")
class Svhn(Source):
    """SVHN: 67,153 training, 6,104 validation and 26,032 test house-number digits, 32x32 RGB.

    Every 12th image of the training file is validation. The images of the extra file follow those of the training
    file, and all of them are for training.
    """

    Options = SvhnOptions

    def __init__(self, options: SvhnOptions) -> None:
        self.options = options
        parts = ("train", "test", *(["extra"] if options.extra else []))
        if options.download:
            by_hand = f"fetch the .mat files from {ORIGIN} by hand and give their folder as --path"
            by_torchvision("SVHN", options.path, [{"split": part} for part in parts], by_hand)
        files = _files(Path(options.path), parts)
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._labels: dict[str, NDArray[np.int64]] = {}
        state = hashlib.sha256()
        for part, path in files.items():
            self._images[part], self._labels[part] = read_mat(path)
            state.update(self._images[part].T.data)  # transposed, MATLAB's order is C's: no copy
            state.update(self._labels[part].astype("<i8").data)
        self.fingerprint = state.hexdigest()
        self.shape = (32, 32, 3)
        self.classes = tuple(str(digit) for digit in range(10))
        train, validation = validation_of(len(self._labels["train"]))
        self._positions = {"train": train, "validation": validation, "test": np.arange(len(self._labels["test"]))}
        self.published = {"training images": 73_257, "test images": 26_032}
        self.splits = {name: len(positions) for name, positions in self._positions.items()}
        if options.extra:
            self.published["extra images"] = 531_131
            self.splits["train"] += len(self._labels["extra"])

    def found(self) -> dict[str, int]:
        names = {"train": "training images", "test": "test images", "extra": "extra images"}
        return {names[part]: len(labels) for part, labels in self._labels.items()}

    def sample(self, split: str, i: int) -> Sample:
        positions = self._positions[split]
        if i < len(positions):
            part, at, key = ("test" if split == "test" else "train"), int(positions[i]), int(positions[i])
        else:
            part, at = "extra", i - len(positions)
            key = len(self._labels["train"]) + at
        image = np.ascontiguousarray(self._images[part][..., at])  # [32, 32, 3]
        return Sample(key, image, int(self._labels[part][at]))


def _files(root: Path, parts: tuple[str, ...]) -> dict[str, Path]:
    found = {part: find(root, _FOLDERS, [f"{part}_32x32.mat"]) for part in parts}
    lacking = [f"{part}_32x32.mat" for part, path in found.items() if path is None]
    if lacking:
        raise missing(root, lacking, ORIGIN, "or add --download")
    return {part: path for part, path in found.items() if path is not None}


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [32, 32, 3, N] in MATLAB's order, and labels int64 [N] in 0..9, of one of the files.

    Raises:
        DataError: no MATLAB file of version 5, damaged, not of these shapes, or labels that are no digits.
    """
    from scipy.io import loadmat, matlab, whosmat  # a second to import

    try:
        with open(path, "rb") as stream:
            if stream.read(len(_HDF5)) == _HDF5:
                raise DataError(
                    f"{path} is of MATLAB 7.3, which is another format: save it with -v7, or fetch it again"
                )
        kinds = {name: kind for name, _, kind in whosmat(path)}
        content: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
    except (*DAMAGE, LookupError, matlab.MatReadError) as error:
        raise DataError(
            f"{path} cannot be read ({reason(error)}): it is cut off or no MATLAB file, fetch it again"
        ) from None
    for name in ("X", "y"):
        if not isinstance(content.get(name), np.ndarray):
            raise DataError(f"{path} holds no array {name!r}: fetch {path.name} from {ORIGIN}")
    if kinds["X"] == "logical":  # which arrives as 0 and 1 of uint8
        raise DataError(f"{path} holds X of true and false, not of bytes: fetch {path.name} from {ORIGIN}")
    images, values = content["X"], content["y"].reshape(-1)
    if values.dtype.kind not in "uif" or not np.isin(values, np.arange(1, 11)).all():
        raise DataError(f"{path} holds labels other than 1 to 10, where 10 is the digit 0: fetch it from {ORIGIN}")
    labels = values.astype(np.int64)
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.shape[3:] != labels.shape:
        raise DataError(
            f"{path} holds X of {images.dtype} {images.shape} and {len(labels)} labels, not uint8 (32, 32, 3, N) "
            f"and N: fetch {path.name} from {ORIGIN}"
        )
    labels[labels == 10] = 0
    return np.asfortranarray(images), labels
