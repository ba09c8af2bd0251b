"""`chairs`: the rendered 3D chairs of Aubry et al. (2014), read from their tar as it is, or from the unpacked folder.

Each of 1,393 models is rendered from 31 azimuths at 2 elevations, 600x600 pixels on white:

    rendered_chairs/<model>/renders/image_<number>_p<elevation>_t<azimuth>_r<distance>.png

Both angles are in degrees and cut to whole ones: t011 is the first of 31 steps, 360/31 = 11.6 degrees. Factors carry
the angle itself.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError, UserError
from shards.sources import pictures, register
from shards.sources.base import Sample, Source, option
from shards.sources.fetching import find, missing
from shards.sources.members import open_members
from shards.sources.splits import deal

ORIGIN = "https://www.di.ens.fr/willow/research/seeing3Dchairs/"
AZIMUTHS = 31
_VIEWS = 62
_SIDE = 600  # pixels of an original image
_VALIDATION, _TEST = 0.1, 0.1  # of the models
_IMAGE = re.compile(r"(?:^|/)(?P<model>[^/]+)/renders/image_\d+_p(?P<elevation>\d+)_t(?P<azimuth>\d+)_r\d+\.png$")


@dataclass(frozen=True)
class ChairsOptions:
    """Where the images are, and what is cut from them."""

    path: str = option(
        "data/raw", "rendered_chairs.tar, the folder rendered_chairs, or the folder of either", identity=False
    )
    size: int = option(64, "side of the square images in pixels")
    crop: int = option(360, "side of the square cut from the middle of the 600x600 pixels; 360 is [120:480]")
    skip_unreadable: bool = option(False, "leave images out that cannot be read, and list them, instead of stopping")

    def __post_init__(self) -> None:
        if not 8 <= self.crop <= _SIDE:
            raise UserError(f"chairs: crop is {self.crop}: between 8 and {_SIDE} pixels can be cut")
        if not 8 <= self.size <= self.crop:
            raise UserError(f"chairs: size is {self.size}: between 8 pixels and the crop's {self.crop} are possible")


@register("chairs")
class Chairs(Source):
    """Rendered 3D chairs, 64x64 grey, with azimuth and elevation as factors.

    The default crop keeps almost every chair whole and removes the white margin. A tenth of the models is
    validation and a tenth test, by a hash of the model's name: no chair is in two splits. Keys follow the order of
    the models' names and, in each, of the files.
    """

    Options = ChairsOptions
    published = {"models": 1_393, "images": 1_393 * _VIEWS}  # noqa: RUF012  # never changed

    def __init__(self, options: ChairsOptions) -> None:
        self.options = options
        self.skip_unreadable = options.skip_unreadable
        self._members = open_members(_locate(Path(options.path)), lambda name: _IMAGE.search(name) is not None)
        self._names = list(self._members.sizes)
        if not self._names:
            raise DataError(
                f"{self._members.path} holds no <model>/renders/image_*_p*_t*_r*.png: "
                f"fetch rendered_chairs.tar from {ORIGIN}"
            )
        matches = [match for name in self._names if (match := _IMAGE.search(name))]
        self._azimuths = [azimuth(int(match["azimuth"])) for match in matches]
        self._elevations = [int(match["elevation"]) for match in matches]
        self._models = [match["model"] for match in matches]
        self._check_angles()
        self.shape = (options.size, options.size, 1)
        self.factors = {
            "azimuth": {"kind": "continuous", "range": [0.0, 360.0], "periodic": True},
            "elevation": {"kind": "continuous", "range": [20.0, 30.0], "periodic": False},
        }
        models = sorted(set(self._models))
        dealt = deal(models, np.zeros(len(models), np.int64), _VALIDATION, _TEST)
        split_of = {models[at]: split for split, chosen in dealt.items() for at in chosen}
        self._positions = {
            split: np.array([i for i, model in enumerate(self._models) if split_of[model] == split], np.int64)
            for split in dealt
        }
        self.splits = {split: len(chosen) for split, chosen in self._positions.items()}
        state = hashlib.sha256()
        for name, size in self._members.sizes.items():
            state.update(f"{_below(name)}\0{size}\0".encode("utf-8", "surrogateescape"))
        self.fingerprint = state.hexdigest()

    def _check_angles(self) -> None:
        for name, around, above in zip(self._names, self._azimuths, self._elevations, strict=True):
            if not 0.0 <= around < 360.0 or not 20 <= above <= 30:
                raise DataError(
                    f"{self._members.where(name)}: azimuth {around:g} or elevation {above} is none of the original's "
                    "(0 to below 360, and 20 or 30 degrees): rename or remove it"
                )

    def sample(self, split: str, i: int) -> Sample:
        key = int(self._positions[split][i])
        name = self._names[key]
        image = pictures.read(self._members.read(name), self._members.where(name), self.shape, self.options.crop)
        return Sample(key, image, None, {"azimuth": self._azimuths[key], "elevation": float(self._elevations[key])})

    def found(self) -> dict[str, int]:
        return {"models": len(set(self._models)), "images": len(self._names)}

    def lacks(self) -> list[str]:
        views = Counter(self._models)
        odd = {model: count for model, count in sorted(views.items()) if count != _VIEWS}
        lines = [f"model {model} has {count} images instead of {_VIEWS}" for model, count in odd.items()]
        return [*super().lacks(), *lines]


def azimuth(named: int) -> float:
    """The azimuth in degrees, in [0, 360), of an image whose name says `named`.

    Names carry the whole part of k * 360 / 31; any other number of degrees is taken as it is.
    """
    exact = round(named * AZIMUTHS / 360) * 360 / AZIMUTHS
    return exact if int(exact) == named else float(named)


def _below(name: str) -> str:
    """A name from the model's folder on: the same for the tar and for every way to unpack it."""
    return "/".join(name.split("/")[-3:])


def _locate(root: Path) -> Path:
    if root.is_file():
        return root
    place = find(root, (".", "rendered_chairs", "chairs"), ("rendered_chairs/", "rendered_chairs.tar"))
    if place is None and root.is_dir() and any(root.glob("*/renders")):
        return root
    if place is None:
        raise missing(root, ["rendered_chairs.tar (or what it unpacks to)"], ORIGIN)
    return place
