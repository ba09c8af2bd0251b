"""`dsprites`: all 737,280 combinations of five factors, from the one `.npz` that its authors publish.

The archive holds three arrays and a pickled description. Only `imgs` and `latents_classes` are read; the description is
never opened. The images are black and white, one byte a pixel: 3 GB once they are unpacked. They are unpacked in one
pass, 16 MB at a time, to one *bit* a pixel: 377 MB, which the worker processes share and read in any order. That takes
some seconds at each start and no space on the disk.

A square looks the same after a quarter of a turn and an ellipse after half of one. So the sine and cosine of
orientation can be read from hearts alone: the rank correlation of a perfect reader with them is about 0.53, not 1.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError
from shards.sources import register
from shards.sources.base import Sample, Source, option
from shards.sources.damage import DAMAGE, reason
from shards.sources.fetching import find, missing

FILE_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
ORIGIN = "https://github.com/google-deepmind/dsprites-dataset"
_SHAPES = ("square", "ellipse", "heart")
_SIZES = (1, len(_SHAPES), 6, 40, 32, 32)  # classes of colour, shape, scale, orientation, x and y
_BLOCK = 1 << 24  # bytes unpacked at a time
_VALIDATION, _TEST = 0.1, 0.1
# Class c of n means low + (high - low) * c / (n - 1), as the authors' own table of values has it.
_RANGES = {"scale": (0.5, 1.0), "orientation": (0.0, 2.0 * math.pi), "x": (0.0, 1.0), "y": (0.0, 1.0)}


@dataclass(frozen=True)
class DspritesOptions:
    """Where the file is."""

    path: str = option("data/raw", f"{FILE_NAME}, or the folder with it", identity=False)


@register("dsprites")
class Dsprites(Source):
    """dSprites: white squares, ellipses and hearts on black, 64x64, with all five factors.

    The shape is the label and a factor; scale, orientation in radians, x and y carry their real values. A
    tenth of the images is validation and a tenth test, by a fixed shuffle. Keys are positions in the file.
    """

    Options = DspritesOptions
    published = {"images": math.prod(_SIZES)}  # noqa: RUF012  # never changed

    def __init__(self, options: DspritesOptions) -> None:
        self.options = options
        path = _locate(Path(options.path))
        self._bits, self._side = _read_images(path)
        self._classes = _read_classes(path, len(self._bits))
        self.shape = (*self._side, 1)
        self.classes = _SHAPES
        self.factors = {"shape": {"kind": "categorical", "values": len(_SHAPES)}} | {
            name: {"kind": "continuous", "range": list(limits), "periodic": name == "orientation"}
            for name, limits in _RANGES.items()
        }
        count = len(self._bits)
        order = np.random.RandomState(0).permutation(count)  # this old generator never changes its numbers
        validation, test = round(count * _VALIDATION), round(count * _TEST)
        parts = {
            "train": order[validation + test :],
            "validation": order[:validation],
            "test": order[validation:][:test],
        }
        self._positions = {split: np.sort(part) for split, part in parts.items()}
        self.splits = {split: len(chosen) for split, chosen in self._positions.items()}
        state = hashlib.sha256(self._bits.data)
        state.update(self._classes.astype("<i8").data)
        self.fingerprint = state.hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        height, width = self._side
        pixels = np.unpackbits(self._bits[key], count=height * width).reshape(self.shape)
        _, shape, *steps = self._classes[key].tolist()
        factors: dict[str, float | int] = {"shape": shape}
        for (name, (low, high)), step, size in zip(_RANGES.items(), steps, _SIZES[2:], strict=True):
            factors[name] = low + (high - low) * step / (size - 1)
        return Sample(key, pixels * np.uint8(255), shape, factors)

    def found(self) -> dict[str, int]:
        return {"images": len(self._bits)}


def _locate(path: Path) -> Path:
    if path.is_file():
        return path
    found = find(path, (".", "dsprites", "dsprites-dataset"), (FILE_NAME,))
    if found is None:
        raise missing(path, [FILE_NAME], ORIGIN)
    return found


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read ({why}): fetch {FILE_NAME} from {ORIGIN} again")


def _header(stream: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of an array in the archive, its stream left at the data; types that need pickle are refused."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran or dtype.hasobject or dtype.kind not in "bui":
        raise _damaged(path, f"{name} is of {dtype}{' in column order' if fortran else ''}, not whole numbers in rows")
    return shape, dtype


def _read_images(path: Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The images at one bit a pixel, uint8 [N, ceil(H * W / 8)], and (H, W)."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as stream:
            shape, dtype = _header(stream, path, "imgs")
            if len(shape) != 3 or dtype.itemsize != 1 or min(shape) < 1:
                raise _damaged(path, f"imgs is {dtype} {shape}, not uint8 (N, H, W)")
            count, height, width = shape
            size = height * width
            bits = np.empty((count, -(-size // 8)), np.uint8)
            step = max(1, _BLOCK // size)
            for begin in range(0, count, step):
                rows = min(step, count - begin)
                data = stream.read(rows * size)
                pixels = np.frombuffer(data, np.uint8).reshape(rows, size)
                if pixels.max() > 1:
                    raise _damaged(path, f"imgs holds the value {pixels.max()}, only 0 and 1 are dSprites'")
                bits[begin : begin + rows] = np.packbits(pixels, axis=1)
            stream.read(1)  # at the end the archive compares its checksum
    except KeyError:
        raise _damaged(path, "it has no imgs") from None
    except DAMAGE as error:
        raise _damaged(path, reason(error)) from None
    return bits, (height, width)


def _read_classes(path: Path, count: int) -> NDArray[np.int64]:
    """The classes of the six factors, int64 [N, 6]."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("latents_classes.npy") as stream:
            classes = np.lib.format.read_array(stream, allow_pickle=False).astype(np.int64)
    except KeyError:
        raise _damaged(path, "it has no latents_classes") from None
    except DAMAGE as error:
        raise _damaged(path, reason(error)) from None
    if classes.shape != (count, len(_SIZES)):
        raise _damaged(path, f"latents_classes is {classes.shape} for {count} images of {len(_SIZES)} factors")
    if classes.min() < 0 or (classes >= np.array(_SIZES)).any():
        raise _damaged(path, f"latents_classes go beyond the factors' {', '.join(map(str, _SIZES))} classes")
    return classes
