"""`sprites`: one white shape on black, of dSprites' design: 3 shapes, 6 scales, 40 orientations, 32 x 32 positions.

Values come from dSprites' own grid rather than from whole ranges, so that metrics which need images with one factor
exactly in common, or count a factor's values, work and compare. The splits share one shuffle of the 737,280
combinations: none occurs twice, and test images show combinations that training has not seen.

At one scale all shapes cover the same area, chosen so that 4.3 % of all pixels are white, as in dSprites. Middles stand
a pixel of 64 apart and keep far enough inside for no shape to touch the border. Pillow draws each shape at eight times
the size, which is reduced by area; a pixel is white where at least half of it is covered.

As in dSprites a square looks the same after a quarter of a turn and an ellipse after half of one: beyond that a picture
does not tell its orientation. So its sine and cosine can be read from hearts alone: the rank correlation of a perfect
reader with them is about 0.53, not 1. The grid holds both 0 and 2 pi, which look alike for every shape; its other
orientations differ, if little for the smallest squares, because 39 steps to a turn are no multiple of 4 or 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.errors import UserError
from shards.renderers.rendered import SPLITS, Factors, Rendered, RenderedOptions
from shards.sources import register
from shards.sources.base import Sample

Points = NDArray[np.float64]

SHAPES = ("square", "ellipse", "heart")
GRID = {
    "scale": np.linspace(0.5, 1.0, 6),
    "orientation": np.linspace(0.0, 2.0 * math.pi, 40),  # radians, clockwise
    "x": np.linspace(0.0, 1.0, 32),
    "y": np.linspace(0.0, 1.0, 32),
}
_VALUES = (len(SHAPES), *(len(values) for values in GRID.values()))
COMBINATIONS = math.prod(_VALUES)
_AREA = 0.0717  # of the picture, at scale 1
_MARGIN = 0.25  # from the border to the nearest middle, in sides; no outline reaches that far from its middle
_SUPERSAMPLING = 8


@dataclass(frozen=True)
class SpritesOptions(RenderedOptions):
    """As of every renderer, but no more images than dSprites has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples + 2 * (self.samples // 10) > COMBINATIONS:
            raise UserError(
                f"samples is {self.samples}: with validation and test, {COMBINATIONS:,} combinations of factors are "
                f"enough for {COMBINATIONS * 10 // 12:,}"
            )


@register("sprites")
class Sprites(Rendered):
    """Binary images, 0 and 255, of a square, an ellipse or a heart; the shape is the label and a factor."""

    Options = SpritesOptions
    channels = 1
    version = 1

    def __init__(self, options: SpritesOptions) -> None:
        super().__init__(options)
        self.classes = SHAPES
        self.factors = {
            "shape": {"kind": "categorical", "values": len(SHAPES)},
            **{
                name: {"kind": "continuous", "range": [values[0], values[-1]], "periodic": name == "orientation"}
                for name, values in ((name, values.tolist()) for name, values in GRID.items())
            },
        }
        counts = [self.splits[split] for split in SPLITS]
        shuffle = np.random.default_rng(options.seed).permutation(COMBINATIONS)[: sum(counts)].astype(np.int32)
        self._combinations = dict(zip(SPLITS, np.split(shuffle, np.cumsum(counts)[:-1]), strict=True))

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        shape, *places = (int(place) for place in np.unravel_index(self._combinations[split][i], _VALUES))
        factors: Factors = {"shape": shape}
        for (name, values), place in zip(GRID.items(), places, strict=True):
            factors[name] = float(values[place])
        return Sample(i, render(factors, self.options.size), shape, factors)


def render(factors: Factors, size: int) -> NDArray[np.uint8]:
    """Draws one shape: uint8 [size, size, 1], 0 or 255."""
    side = size * _SUPERSAMPLING
    turn = factors["orientation"]
    cos, sin = math.cos(turn), math.sin(turn)
    points = _OUTLINES[int(factors["shape"])] * factors["scale"] @ np.array([[cos, sin], [-sin, cos]])
    points += [_MARGIN + (1.0 - 2.0 * _MARGIN) * factors[axis] for axis in ("x", "y")]
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).polygon((points * side).ravel().tolist(), 255)
    covered = np.asarray(canvas.reduce(_SUPERSAMPLING))
    return np.where(covered >= 128, 255, 0).astype(np.uint8)[..., None]


def _outline(points: Points) -> Points:
    """Moves a closed outline's centre of area to 0 and makes its area `_AREA`: [N, 2], x to the right and y down."""
    x, y = points.T
    next_x, next_y = np.roll(points, -1, axis=0).T
    cross = x * next_y - next_x * y  # twice each triangle's area (the shoelace formula)
    area = cross.sum() / 2.0
    middle = np.array([((x + next_x) * cross).sum(), ((y + next_y) * cross).sum()]) / (6.0 * area)
    return (points - middle) * math.sqrt(_AREA / abs(area))


def _outlines() -> tuple[Points, Points, Points]:
    """The shapes at scale 1 and orientation 0, in sides of the picture: an ellipse twice as wide as high."""
    t = np.linspace(0.0, 2.0 * math.pi, 128, endpoint=False)
    square = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    ellipse = np.stack([2.0 * np.cos(t), np.sin(t)], axis=1)
    height = 13.0 * np.cos(t) - 5.0 * np.cos(2.0 * t) - 2.0 * np.cos(3.0 * t) - np.cos(4.0 * t)
    heart = np.stack([16.0 * np.sin(t) ** 3, -height], axis=1)
    return _outline(square), _outline(ellipse), _outline(heart)


_OUTLINES = _outlines()
