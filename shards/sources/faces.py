"""`faces`: renders of a face model, such as the Basel Face Model's, from a folder of images or from an array file.

The paper's faces were rendered with a model that needs a registration, so they are not to be downloaded. What is read:

- a folder of images, as by the source `folder`;
- an `.npy`: uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3]. It is mapped, not loaded;
- an `.npz` without pickles: one such array under any name, loaded into memory.

Factors, where there are any, are numbers and all continuous; the smallest and the largest that occur are the range.
They come from

- `factors.csv` in the folder: a header, the image's path in the first column, one factor in each further one;
- `<name>.csv` beside `<name>.npy` or `.npz`: a header, one factor in each column, one row per image in their order;
- the other arrays of the `.npz`: one factor each, [N].

`--factors FILE` names another CSV file.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.errors import DataError, UserError
from shards.sources import pictures, register
from shards.sources.base import Sample, Source, option
from shards.sources.damage import DAMAGE, reason
from shards.sources.folder import FolderOptions, hash_of_listing, listing, split_up

_ARRAYS = (".npy", ".npz")
_BLOCK = 1 << 26  # bytes hashed at a time
Columns = dict[str, NDArray[np.float64]]  # factor -> its value for each image, [N]


@dataclass(frozen=True)
class FacesOptions(FolderOptions):
    """As the source `folder`, but grey unless asked otherwise, and with factors."""

    kind = "faces"
    path: str = option("", "folder with the images, or an .npy or .npz file of uint8 [N, H, W]", identity=False)
    color: str = option("grey", "grey or rgb")
    factors: str = option("", "CSV file of factors  [default: factors.csv in the folder, or beside the array]", False)


@register("faces")
class Faces(Source):
    """Renders of a face model, from a folder or an array file, 32x32 grey; factors from a CSV file or the array file.

    Keys follow the order of the paths, or of the array. Which split an image is in follows a hash of its path, or of
    its number.
    """

    Options = FacesOptions

    def __init__(self, options: FacesOptions) -> None:
        self.options = options
        if not options.path:
            raise UserError("faces: which ones? give --path FOLDER, or an .npy or .npz file")
        self.root = Path(options.path)
        self.skip_unreadable = options.skip_unreadable
        height, width = options.height_width
        self.shape = (height, width, 3 if options.color == "rgb" else 1)
        self._array: NDArray[np.uint8] | None = None
        columns: Columns = {}
        if self.root.is_file():
            self._array, columns = read_array(self.root)
            self._files = [str(number) for number in range(len(self._array))]
            self._labels = np.full(len(self._files), -1, np.int64)
        else:
            self._files, self.classes, self._labels = listing(self.root)
        self._columns = columns | self._table()
        self.factors = {name: _described(name, values, self.root) for name, values in self._columns.items()}
        self._positions = split_up(self.root, self._files, self._labels, options)
        self.splits = {name: len(chosen) for name, chosen in self._positions.items()}
        self.fingerprint = self._hashed()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        if self._array is None:
            path = self.root / self._files[key]
            image = pictures.read(path, str(path), self.shape, self.options.crop)
        else:
            pixels = self._array[key]
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            picture = picture.convert("RGB" if self.shape[2] == 3 else "L")
            image = pictures.fitted(picture, f"{self.root}: image {key}", self.shape, self.options.crop)
        factors = {name: float(values[key]) for name, values in self._columns.items()}
        return Sample(key, image, int(self._labels[key]) if self.classes else None, factors or None)

    def _table(self) -> Columns:
        """The factors of the CSV file, where there is one."""
        beside = self.root.with_suffix(".csv") if self._array is not None else self.root / "factors.csv"
        path = Path(self.options.factors) if self.options.factors else beside
        if not self.options.factors and not path.is_file():
            return {}
        return read_factors(path, None if self._array is not None else self._files, len(self._files))

    def _hashed(self) -> str:
        if self._array is None:
            state = hash_of_listing(self.root, self._files)
        else:
            state = hashlib.sha256()
            state.update(repr(self._array.shape).encode())
            step = max(1, _BLOCK // max(1, self._array[0].nbytes))
            for begin in range(0, len(self._array), step):
                state.update(np.ascontiguousarray(self._array[begin : begin + step]).data)
        for name, values in self._columns.items():
            state.update(name.encode() + b"\0" + values.astype("<f8").tobytes())
        return state.hexdigest()


def _described(name: str, values: NDArray[np.float64], root: Path) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    if not low < high:
        raise DataError(f"{root}: the factor {name} is {low:g} for every image: leave it out")
    return {"kind": "continuous", "range": [low, high], "periodic": False}


def read_array(path: Path) -> tuple[NDArray[np.uint8], Columns]:
    """Images, uint8 [N, H, W, C], and the factors that an `.npz` holds beside them.

    Raises:
        DataError: another kind of file, damaged, pickled, or without exactly one array of images.
    """
    if path.suffix.lower() not in _ARRAYS:
        raise DataError(f"{path} is neither a folder nor an .npy or .npz file: give one of these as --path")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {path.name: loaded}
        else:
            with loaded as archive:
                arrays = {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read ({reason(error)}): save it again, as plain arrays") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} holds {name[:60]!r}, which is no array: take it out, or save the arrays again")
    candidates = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    if len(candidates) != 1:
        raise DataError(f"{path} holds {len(candidates)} arrays of images [N, H, W] or [N, H, W, C]: one is needed")
    images = _checked(arrays.pop(candidates[0]), candidates[0], path)
    return images, {name: _column(name, array, len(images), path) for name, array in arrays.items()}


def _checked(images: NDArray[Any], name: str, path: Path) -> NDArray[np.uint8]:
    if 0 in images.shape:
        raise DataError(f"{path}: {name} has the shape {images.shape}: there is nothing in it; save the images again")
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise DataError(
            f"{path}: {name} has the shape {images.shape}: [N, H, W], [N, H, W, 1] or [N, H, W, 3] is needed"
        )
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: {name} is of {images.dtype}, whose range cannot be known: save it as uint8 from 0 to 255 "
            "(values from 0 to 1: `np.rint(255 * x).astype('uint8')`)"
        )
    return images if images.ndim == 4 else images[..., None]


def _column(name: str, values: NDArray[Any], count: int, path: Path) -> NDArray[np.float64]:
    if values.shape != (count,):
        raise DataError(
            f"{path}: {name} has the shape {values.shape} for {count} images: a factor is one number for each"
        )
    if values.dtype.kind not in "buif" or not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"{path}: {name} holds values that are no finite numbers: correct it or leave it out")
    return values.astype(np.float64)


def read_factors(path: Path, files: list[str] | None, count: int) -> Columns:
    """The factors of a CSV file for `count` images.

    Args:
        files: the images' paths, which the first column names in any order; None where rows follow the images' order.

    Raises:
        DataError: no such file or header, rows of unequal lengths, an image without a row or with two, a row without an
            image, or a cell that is no number.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else reason(error)
        raise DataError(f"{path} cannot be read as a CSV file ({why}): correct --factors") from None
    header, body = (rows[0][1], rows[1:]) if rows else ([], [])
    names = header if files is None else header[1:]
    if not names or len(set(names)) != len(names) or "" in names:
        raise DataError(f"{path}: the first row must name each factor once, after the image's path where there is one")
    if all(_is_number(name) for name in names):
        raise DataError(f"{path}: its first row must name the factors, and holds numbers: put a header row before it")
    for line, row in body:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells where the first row has {len(header)}")
    if files is not None:
        of: dict[str, tuple[int, list[str]]] = {}
        for line, row in body:
            if row[0] in of:
                raise DataError(f"{path}, line {line}: {row[0]} has a row already, in line {of[row[0]][0]}: drop one")
            of[row[0]] = line, row[1:]
        lost = [name for name in files if name not in of]
        if lost:
            raise DataError(f"{path} has no row for {len(lost):,} of {count:,} images, the first is {lost[0]}: add it")
        if strangers := of.keys() - set(files):
            first = min(strangers)
            raise DataError(f"{path}, line {of[first][0]}: there is no image {first}: correct the row, or take it out")
        body = [of[name] for name in files]
    if len(body) != count:
        raise DataError(f"{path} has {len(body):,} rows for {count:,} images: one for each is needed")
    table = np.array([[_number(cell, path, line) for cell in row] for line, row in body], np.float64)
    return {name: _column(name, table[:, i], count, path) for i, name in enumerate(names)}


def _number(cell: str, path: Path, line: int) -> float:
    if not _is_number(cell):
        raise DataError(f"{path}, line {line}: {cell[:40]!r} is no number: factors are numbers")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
