"""`mnist` and `fashion_mnist`: the four idx files as their authors publish them, gzipped or not.

An idx file is a big-endian header (two zero bytes, the type 8 for uint8, the number of dimensions, then each
dimension as u32) followed by the data.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError
from shards.sources import register
from shards.sources.base import Sample, Source, option, validation_of
from shards.sources.fetching import by_torchvision

_FILES = {"train": "train", "test": "t10k"}
_CONTENT = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}


@dataclass(frozen=True)
class IdxOptions:
    """Where the four files are."""

    path: str = option("data/raw", "folder with the four idx files, as they are or gzipped", identity=False)
    download: bool = option(False, "download the files into the path first (by torchvision)", identity=False)


class IdxSource(Source):
    """28x28 grey images in ten classes; every 12th training image is validation."""

    Options = IdxOptions
    published = {"training images": 60_000, "test images": 10_000}  # noqa: RUF012  # never changed
    torchvision_name: ClassVar[str]
    origin: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    def __init__(self, options: IdxOptions) -> None:
        self.options = options
        if options.download:
            self._download(options.path)
        folder = self._locate(Path(options.path))
        state = hashlib.sha256()
        arrays = {}
        for split, prefix in _FILES.items():
            for content, suffix in _CONTENT.items():
                arrays[split, content] = read_idx(_find(folder, f"{prefix}-{suffix}"))
                state.update(arrays[split, content].data)
            _check_pair(folder, split, arrays[split, "images"], arrays[split, "labels"], len(self.names))
        self.fingerprint = state.hexdigest()
        height, width = arrays["train", "images"].shape[1:]
        if arrays["test", "images"].shape[1:] != (height, width):
            raise DataError(f"{folder}: the training and test images differ in size: fetch the files again")
        self.shape = (height, width, 1)
        self.classes = self.names
        train, validation = validation_of(len(arrays["train", "images"]))
        test = np.arange(len(arrays["test", "images"]))
        self._parts = {"train": ("train", train), "validation": ("train", validation), "test": ("test", test)}
        self._arrays = arrays
        self.splits = {name: len(positions) for name, (_, positions) in self._parts.items()}

    def sample(self, split: str, i: int) -> Sample:
        part, positions = self._parts[split]
        key = int(positions[i])
        return Sample(key, self._arrays[part, "images"][key][..., None], int(self._arrays[part, "labels"][key]))

    def found(self) -> dict[str, int]:
        return {"training images": self.splits["train"] + self.splits["validation"], "test images": self.splits["test"]}

    def _locate(self, path: Path) -> Path:
        """The folder that holds the files: the path itself, or where torchvision would have put them."""
        first = f"train-{_CONTENT['images']}"
        for folder in (
            path,
            path / "raw",
            path / self.torchvision_name / "raw",
            path / self.torchvision_name,
            path / self.kind,
        ):
            if _present(folder, first) is not None:
                return folder
        raise DataError(
            f"{path} has no {first}[.gz] (nor have raw/, {self.torchvision_name}/raw/, {self.kind}/): "
            f"fetch the four idx files from {self.origin} and give --path FOLDER, or add --download"
        )

    def _download(self, path: str) -> None:
        by_hand = f"fetch the four idx files from {self.origin} by hand and give their folder as --path"
        by_torchvision(self.torchvision_name, path, [{"train": True}], by_hand)


@register("mnist")
class Mnist(IdxSource):
    """MNIST: 55,000 training, 5,000 validation and 10,000 test digits."""

    torchvision_name = "MNIST"
    origin = "http://yann.lecun.com/exdb/mnist/"
    names = tuple(str(digit) for digit in range(10))


@register("fashion_mnist")
class FashionMnist(IdxSource):
    """Fashion-MNIST: 55,000 training, 5,000 validation and 10,000 test garments."""

    torchvision_name = "FashionMNIST"
    origin = "https://github.com/zalandoresearch/fashion-mnist"
    names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


def _present(folder: Path, name: str) -> Path | None:
    # Some archives write a dot where the original has a dash.
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _find(folder: Path, name: str) -> Path:
    path = _present(folder, name)
    if path is None:
        raise DataError(f"{folder} lacks {name}[.gz]: all four idx files must lie in one folder")
    return path


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file of uint8 (gzipped if its content is).

    Raises:
        DataError: not an idx file of uint8, damaged, or of another length than its header says.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is damaged ({error}): fetch it again") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is no idx file of bytes: fetch it again")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape))
    if len(data) != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} holds {len(data)} bytes, its header says {'x'.join(map(str, shape))}: fetch it again")
    return data.reshape(shape)


def _check_pair(folder: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> None:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {split} has images of shape {images.shape} but labels of shape {labels.shape}: "
            "fetch the files again"
        )
    if len(labels) and labels.max() >= classes:
        raise DataError(f"{folder}: {split} has the label {labels.max()} of {classes} classes: fetch the files again")
