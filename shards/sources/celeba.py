"""`celeba`: the aligned faces of CelebA with their 40 attributes, from the zip as downloaded or from its folder.

What is read, as its authors publish it or as it is repackaged:

    img_align_celeba.zip, or the folder img_align_celeba/ (also in itself, as some archives nest it)
    list_eval_partition.txt or .csv: image, 0 | 1 | 2 for train, validation, test
    list_attr_celeba.txt or .csv: names of the attributes, and per image 1 or -1 for each

Aligned images are 178x218 with the eyes in one place, half-way down. The square cut from the middle is
148 wide by default: it keeps the whole head with its hair, as far as the original does, and leaves most of the
background out, which at 32 pixels would take a third of the image. 178 is the full width; 140 and 108 are seen in the
literature too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, UserError
from shards.sources import pictures, register
from shards.sources.base import Sample, Source, option
from shards.sources.fetching import by_torchvision, find, missing
from shards.sources.members import Members, open_members

ORIGIN = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_SPLITS = ("train", "validation", "test")  # 0, 1, 2 in the partition file
_FOLDERS = (".", "celeba", "CelebA", "Img", "Anno", "Eval")
_IMAGES = ("img_align_celeba/img_align_celeba/", "img_align_celeba/", "img_align_celeba.zip")
_WIDTH = 178  # pixels of an aligned image


@dataclass(frozen=True)
class CelebaOptions:
    """Where the files are, and what is cut from the images."""

    path: str = option("data/raw", "folder with img_align_celeba[.zip] and the two list_*.txt or .csv", identity=False)
    size: int = option(32, "side of the square images in pixels: 32, 64 and 128 are usual")
    crop: int = option(148, "side of the square cut from the middle of the 178x218 pixels")
    skip_unreadable: bool = option(False, "leave images out that cannot be read, and list them, instead of stopping")
    download: bool = option(False, "download the files into the path first (by torchvision and gdown)", identity=False)

    def __post_init__(self) -> None:
        if not 8 <= self.crop <= _WIDTH:
            raise UserError(f"celeba: crop is {self.crop}: between 8 and {_WIDTH} pixels can be cut")
        if not 8 <= self.size <= self.crop:
            raise UserError(f"celeba: size is {self.size}: between 8 pixels and the crop's {self.crop} are possible")


@register("celeba")
class Celeba(Source):
    """CelebA: 162,770 training, 19,867 validation and 19,962 test faces, RGB, with 40 attributes as factors.

    Keys are the positions in the partition file. An attribute is a factor of 2 values, 1 where the image has it.
    """

    Options = CelebaOptions
    published = {  # noqa: RUF012  # never changed
        "images": 202_599,
        "train images": 162_770,
        "validation images": 19_867,
        "test images": 19_962,
        "attributes": 40,
    }

    def __init__(self, options: CelebaOptions) -> None:
        self.options = options
        self.skip_unreadable = options.skip_unreadable
        if options.download:
            by_hand = f"fetch the files from {ORIGIN} by hand and give their folder as --path"
            by_torchvision("CelebA", options.path, [{"split": "all"}], by_hand)
        images, partition, attributes = _locate(Path(options.path))
        names, parts = read_partition(partition)
        self._members = open_members(images, lambda name: name.lower().endswith(pictures.SUFFIXES))
        self._names = _present(self._members, names, partition)
        self._attributes, self._values = read_attributes(attributes, names)
        self.factors = {name: {"kind": "categorical", "values": 2} for name in self._attributes}
        self.shape = (options.size, options.size, 3)
        self._positions = {split: np.flatnonzero(parts == number) for number, split in enumerate(_SPLITS)}
        self.splits = {split: len(chosen) for split, chosen in self._positions.items()}
        state = hashlib.sha256("\0".join(self._attributes).encode())
        for name, there, part in zip(names, self._names, parts.tolist(), strict=True):
            state.update(f"{name}\0{self._members.sizes[there]}\0{part}\0".encode())
        state.update(self._values.data)
        self.fingerprint = state.hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        name = self._names[key]
        image = pictures.read(self._members.read(name), self._members.where(name), self.shape, self.options.crop)
        return Sample(key, image, None, dict(zip(self._attributes, self._values[key].tolist(), strict=True)))

    def found(self) -> dict[str, int]:
        return {"images": len(self._names), **super().found(), "attributes": len(self._attributes)}


def _locate(root: Path) -> tuple[Path, Path, Path]:
    """The images (a folder or the zip), the partition file and the attribute file."""
    wanted = {
        "img_align_celeba.zip (or its folder)": _IMAGES,
        "list_eval_partition.txt": ("list_eval_partition.txt", "list_eval_partition.csv"),
        "list_attr_celeba.txt": ("list_attr_celeba.txt", "list_attr_celeba.csv"),
    }
    found = {what: find(root, _FOLDERS, names) for what, names in wanted.items()}
    lacking = [what for what, path in found.items() if path is None]
    if lacking:
        raise missing(root, lacking, ORIGIN, "or add --download")
    images, partition, attributes = (path for path in found.values() if path is not None)
    return images, partition, attributes


def _present(members: Members, names: list[str], partition: Path) -> list[str]:
    """For each image that the partition names, its name among the members (in a zip: with its folder)."""
    wanted, by_name = set(names), dict[str, str]()
    for full in members.sizes:
        name = full.rsplit("/", 1)[-1]
        if by_name.setdefault(name, full) != full and name in wanted:
            raise DataError(f"{members.path} holds {name} twice, as {by_name[name]} and as {full}: remove one of them")
    by_stem = {name.rsplit(".", 1)[0]: full for name, full in by_name.items()}  # the PNG edition keeps the .jpg lists
    there = [by_name.get(name) or by_stem.get(name.rsplit(".", 1)[0]) for name in names]
    absent = [name for name, full in zip(names, there, strict=True) if full is None]
    if absent:
        raise DataError(
            f"{members.path} lacks {len(absent):,} of the {len(names):,} images that {partition.name} names, the first "
            f"is {absent[0]}: fetch img_align_celeba.zip from {ORIGIN} again"
        )
    return [name for name in there if name is not None]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row of a list that is not empty: words in a .txt, cells in a .csv."""
    comma = "," if path.suffix.lower() == ".csv" else None
    try:
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.strip().split(comma)
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is no readable text ({type(error).__name__}): fetch it again from {ORIGIN}") from None


def read_partition(path: Path) -> tuple[list[str], NDArray[np.int8]]:
    """The names of the images, and for each 0, 1 or 2: int8 [N].

    Raises:
        DataError: a row that is not a name and one of these numbers, an image twice, or no rows.
    """
    rows = _rows(path)
    if path.suffix.lower() == ".csv":
        _, header = next(rows, (0, []))
        if header[1:] in (["0"], ["1"], ["2"]):
            raise DataError(f"{path} begins with an image, not with a header row: put one before it, or fetch it again")
    names, parts = [], []
    for number, row in rows:
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise DataError(
                f"{path}, row {number}: {' '.join(row)[:60]!r} is not an image and 0, 1 or 2: fetch it again"
            )
        names.append(row[0])
        parts.append(int(row[1]))
    if not names or len(set(names)) != len(names):
        twice = next((name for name, count in Counter(names).items() if count > 1), "")
        raise DataError(f"{path} names {f'{twice} twice' if twice else 'no image'}: fetch it again from {ORIGIN}")
    return names, np.array(parts, np.int8)


def read_attributes(path: Path, names: list[str]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """The attributes' names as the file has them, and their values for the images `names`: uint8 [N, attributes].

    Raises:
        DataError: a row of another length than the header, a value that is neither of two, an image without a row or
            with two, or more images than `names` has.
    """
    rows = _rows(path)
    comma = path.suffix.lower() == ".csv"
    first = [] if comma else next(rows, (0, []))[1]  # in a .txt, the number of images
    if not comma and (len(first) != 1 or not first[0].isdecimal()):
        raise DataError(f"{path} does not begin with the number of its images: fetch it again from {ORIGIN}")
    _, header = next(rows, (0, []))
    header = header[1:] if comma else header
    if not header or len(set(header)) != len(header):
        raise DataError(f"{path} names no attributes, or one twice: fetch it again from {ORIGIN}")
    place = {name: i for i, name in enumerate(names)}
    seen = set[str]()
    values = np.empty((len(names), len(header)), np.uint8)
    known = {"-1": 0, "0": 0, "1": 1}
    for _, (name, *cells) in rows:
        if len(cells) != len(header):
            raise DataError(f"{path}, {name}: {len(cells)} values for {len(header)} attributes: fetch it again")
        try:
            row = [known[cell] for cell in cells]
        except KeyError as error:
            raise DataError(f"{path}, {name}: the value {error} is neither 1 nor -1: fetch it again") from None
        if name in seen:
            raise DataError(f"{path} has two rows for {name}: fetch it again from {ORIGIN}")
        seen.add(name)
        if name in place:
            values[place[name]] = row
    if lost := [name for name in names if name not in seen]:
        raise DataError(f"{path} has no row for {lost[0]}, which the partition names: fetch it again from {ORIGIN}")
    listed = int(first[0]) if first else len(seen)
    if len(names) < listed:
        raise DataError(
            f"the partition names {len(names):,} images, {path} has {listed:,}: fetch list_eval_partition.txt again "
            f"from {ORIGIN}, or take their rows out of both"
        )
    return tuple(header), values
