"""`folder`: any images of one's own, of any size and kind; subfolders, where there are any, are the classes.

`shards.sources.pictures` says how images of every kind are brought to one shape.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, UserError
from shards.sources import pictures, register
from shards.sources.base import Sample, Source, option
from shards.sources.splits import deal

SMALLEST = 2  # fewer training images than this are no data set


@dataclass(frozen=True)
class FolderOptions:
    """What to read and how to bring it to one shape."""

    kind = "folder"  # not a field: what errors call it

    path: str = option("", "folder with the images, or with one subfolder of images per class", identity=False)
    size: str = option("32", "side of the square images in pixels, or HEIGHTxWIDTH")
    color: str = option("rgb", "rgb or grey")
    crop: str = option("center", "center: cut the middle to the target's shape; none: squeeze the whole image into it")
    validation: float = option(0.1, "fraction of the images for the validation split")
    test: float = option(0.1, "fraction of the images for the test split")
    skip_unreadable: bool = option(False, "leave images out that cannot be read, and list them, instead of stopping")

    def __post_init__(self) -> None:
        rules = {"color": ("rgb", "grey"), "crop": ("center", "none")}
        for name, valid in rules.items():
            if getattr(self, name) not in valid:
                raise UserError(f"{self.kind}: {name} is {getattr(self, name)!r}: choose {' or '.join(valid)}")
        for name in ("validation", "test"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{self.kind}: {name} is {getattr(self, name)}: a fraction from 0 to below 1 is needed")
        if self.validation + self.test >= 1.0:
            raise UserError(f"{self.kind}: validation and test leave nothing to train on: their sum must stay below 1")
        height, width = self.height_width
        if not (1 <= height <= 4096 and 1 <= width <= 4096):
            raise UserError(f"{self.kind}: size is {self.size!r}: each side must be between 1 and 4096 pixels")

    @property
    def height_width(self) -> tuple[int, int]:
        """`32` -> (32, 32), `48x64` -> (48, 64)."""
        parts = str(self.size).lower().split("x")
        if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
            raise UserError(
                f"{self.kind}: size is {self.size!r}: give one side in pixels, or HEIGHTxWIDTH such as 48x64"
            )
        return int(parts[0]), int(parts[-1])


@register("folder")
class Folder(Source):
    """Your own images, of any size; subfolders, if any, are classes.

    Keys follow the order of the paths. Which split an image is in follows a hash of its path, class by class.
    """

    Options = FolderOptions

    def __init__(self, options: FolderOptions) -> None:
        self.options = options
        if not options.path:
            raise UserError("folder: which one? give --path FOLDER")
        self.root = Path(options.path)
        self._files, self.classes, self._labels = listing(self.root)
        height, width = options.height_width
        self.shape = (height, width, 3 if options.color == "rgb" else 1)
        self.skip_unreadable = options.skip_unreadable
        self._positions = split_up(self.root, self._files, self._labels, options)
        self.splits = {name: len(chosen) for name, chosen in self._positions.items()}
        self.fingerprint = hash_of_listing(self.root, self._files).hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        path = self.root / self._files[key]
        image = pictures.read(path, str(path), self.shape, self.options.crop)
        return Sample(key, image, int(self._labels[key]) if self.classes else None)


def listing(root: Path) -> tuple[list[str], tuple[str, ...], NDArray[np.int64]]:
    """All images below `root`.

    Returns:
        Their paths relative to it, sorted; the class names (none without subfolders); int64 [N], each image's label,
        -1 without classes.

    Raises:
        DataError: no folder, no images, or images both loose and in subfolders.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the folder of images as --path")
    found: list[str] = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name.lower().endswith(pictures.SUFFIXES) and Path(parent, name).is_file():
                _check_name(Path(parent, name))
                found.append(Path(parent, name).relative_to(root).as_posix())
    found.sort()
    if not found:
        raise DataError(f"{root} holds no images: files that end in {', '.join(pictures.SUFFIXES)} are looked for")
    tops = [name.split("/")[0] if "/" in name else "" for name in found]
    if "" in tops and any(tops):
        loose = found[tops.index("")]
        raise DataError(
            f"{root} holds both loose images ({loose}) and subfolders of images: move the loose ones into a "
            "subfolder (a class of their own), or the subfolders elsewhere"
        )
    classes = tuple(sorted(set(tops) - {""}))
    index = {name: i for i, name in enumerate(classes)}
    return found, classes, np.array([index.get(top, -1) for top in tops], np.int64)


def split_up(
    root: Path, names: list[str], labels: NDArray[np.int64], options: FolderOptions
) -> dict[str, NDArray[np.int64]]:
    """The positions of each split's images, dealt out by a hash of their names, class by class.

    Raises:
        DataError: too few of them for training.
    """
    positions = deal(names, labels, options.validation, options.test)
    training = len(positions["train"])
    if training < SMALLEST:
        raise DataError(
            f"{root} holds {len(names)} images, {training} of them for training: "
            f"at least {SMALLEST} are needed; add images or lower --validation and --test"
        )
    return positions


def hash_of_listing(root: Path, files: list[str]) -> hashlib._Hash:
    """sha256 over the paths and sizes of images, to which more can be added."""
    state = hashlib.sha256()
    for name in files:
        state.update(f"{name}\0{(root / name).stat().st_size}\0".encode("utf-8", "surrogateescape"))
    return state


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{os.fsencode(path)!r}: the name is not UTF-8 text: rename the file") from None
