"""`folder`: any images of one's own, of any size and kind; subfolders, where there are any, are the classes.

Every image is turned as its EXIF data says, brought to grey or RGB, cropped and resized. What that means for
the less common kinds: transparency is laid over white; CMYK and palettes become RGB; 16-bit grey keeps its
upper 8 bits; animated and floating-point images are refused by name, since which frame or which range is
meant cannot be known.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shards.errors import DataError, UserError
from shards.sources import register
from shards.sources.base import Sample, Source, UnreadableImage, option

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF")
_SMALLEST = 2  # fewer training images than this are no data set


@dataclass(frozen=True)
class FolderOptions:
    """What to read and how to bring it to one shape."""

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
                raise UserError(f"folder: {name} is {getattr(self, name)!r}: choose {' or '.join(valid)}")
        for name in ("validation", "test"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"folder: {name} is {getattr(self, name)}: a fraction from 0 to below 1 is needed")
        if self.validation + self.test >= 1.0:
            raise UserError("folder: validation and test leave nothing to train on: their sum must stay below 1")
        height, width = self.height_width
        if not (1 <= height <= 4096 and 1 <= width <= 4096):
            raise UserError(f"folder: size is {self.size!r}: each side must be between 1 and 4096 pixels")

    @property
    def height_width(self) -> tuple[int, int]:
        """`32` -> (32, 32), `48x64` -> (48, 64)."""
        parts = str(self.size).lower().split("x")
        if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
            raise UserError(f"folder: size is {self.size!r}: give one side in pixels, or HEIGHTxWIDTH such as 48x64")
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
        self._files, self.classes, labels = _listing(self.root)
        self._labels = labels
        height, width = options.height_width
        self.shape = (height, width, 3 if options.color == "rgb" else 1)
        self.skip_unreadable = options.skip_unreadable
        self._positions = _cut(self._files, labels, options.validation, options.test)
        self.splits = {name: len(chosen) for name, chosen in self._positions.items()}
        if self.splits["train"] < _SMALLEST:
            raise DataError(
                f"{self.root} holds {len(self._files)} images, {self.splits['train']} of them for training: "
                f"at least {_SMALLEST} are needed; add images or lower --validation and --test"
            )
        state = hashlib.sha256()
        for name in self._files:
            state.update(f"{name}\0{(self.root / name).stat().st_size}\0".encode("utf-8", "surrogateescape"))
        self.fingerprint = state.hexdigest()

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        image = read_image(self.root / self._files[key], self.shape, self.options.crop)
        return Sample(key, image, int(self._labels[key]) if self.classes else None)


def _listing(root: Path) -> tuple[list[str], tuple[str, ...], NDArray[np.int64]]:
    """All images below `root` as sorted relative paths, the class names and each image's label."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the folder of images as --path")
    found: list[str] = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name.lower().endswith(_SUFFIXES) and Path(parent, name).is_file():
                _check_name(Path(parent, name))
                found.append(Path(parent, name).relative_to(root).as_posix())
    found.sort()
    if not found:
        raise DataError(f"{root} holds no images: files that end in {', '.join(_SUFFIXES)} are looked for")
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


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{os.fsencode(path)!r}: the name is not UTF-8 text: rename the file") from None


def _cut(files: list[str], labels: NDArray[np.int64], validation: float, test: float) -> dict[str, NDArray[np.int64]]:
    """Deals the images of each class out to the splits, in the order of a hash of their paths."""
    # Backslashreplace: a name that is not valid text still hashes to one value on every machine.
    rank = [hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest() for name in files]
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: rank[i])
        for place, position in enumerate(members):
            quantile = (place + 0.5) / len(members)
            split = "test" if quantile < test else "validation" if quantile < test + validation else "train"
            parts[split].append(position)
    return {name: np.array(sorted(positions), np.int64) for name, positions in parts.items()}


def read_image(path: Path, shape: tuple[int, int, int], crop: str) -> NDArray[np.uint8]:
    """Reads one image file as uint8 [height, width, channels].

    Raises:
        UnreadableImage: damaged, no image, animated, or of a kind whose range is unknown; the message names
        the file.
    """
    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata and large images
            with Image.open(path, formats=_FORMATS) as picture:
                frames = getattr(picture, "n_frames", 1)
                if frames > 1 and picture.format != "MPO":  # an MPO's further frames are the same view, for 3D
                    raise UnreadableImage(
                        f"{path} is animated or has several pages ({frames} frames): extract the one you want"
                    )
                if crop == "center":
                    # A JPEG can be decoded at a fraction of its size; twice the target is kept, for a clean
                    # reduction.
                    reach = 2 * max(height, width)
                    picture.draft(None, (reach, reach))
                plain = _plain(picture, path, "RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"{path} cannot be read as an image ({reason}): repair or remove it") from None
    if crop == "center":
        fitted = ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS)
    else:
        fitted = plain.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted, np.uint8).reshape(shape)


def _plain(picture: Image.Image, path: Path, mode: str) -> Image.Image:
    """Upright, 8 bits, without transparency, in mode L or RGB."""
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise UnreadableImage(f"{path} holds floating-point values of unknown range: convert it to 8 bits")
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage(f"{path} holds 32-bit values of unknown range: convert it to 8 bits")
        upright = Image.fromarray((values >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return upright if upright.mode == mode else upright.convert(mode)
