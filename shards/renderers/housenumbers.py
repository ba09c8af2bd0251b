"""`housenumbers`: house numbers as a passing camera sees them, cut out digit by digit. Stands in for SVHN.

The label is the digit in the middle; its neighbours in the number reach into the picture from the left and the right,
as in SVHN's crops. Digits come from the fonts that matplotlib carries, are set, turned and squeezed by Pillow at four
times the size and reduced by area. Plate, light, shadow, blur and sensor follow in floating point.

Unlike in SVHN all ten digits are equally frequent, and every factor is drawn independently of all others.
"""

from __future__ import annotations

import colorsys
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shards.errors import DataError
from shards.renderers.rendered import Factors, Rendered, RenderedOptions, to_uint8
from shards.sources import register
from shards.sources.base import Sample, option

Pixels = NDArray[np.float64]

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmss10",
    "cmb10",
)
NOBODY = 10  # a neighbour's value where there is none
_BLANK = 0.2  # of all digits this many have no left, and as many no right neighbour
_SUPERSAMPLING = 4
_GLYPH = 0.8  # height of a digit as it is set, in sides of the picture: about as large as it will be shown
_SPACING = 0.06  # between neighbours, in heights of a digit
_LUMA = np.array([0.299, 0.587, 0.114])

_RANGES: dict[str, tuple[float, float]] = {
    "brightness": (0.3, 0.7),  # halfway between plate and digit
    "contrast": (0.2, 0.6),  # between plate and digit
    "plate_hue": (0.0, 1.0),
    "plate_saturation": (0.0, 0.5),  # of the most that its brightness allows
    "digit_hue": (0.0, 1.0),
    "light_x": (-1.0, 1.0),  # 1: the light comes from the right
    "light_y": (-1.0, 1.0),  # 1: from below
    "scale": (0.7, 0.95),  # height of the digit in sides of the picture
    "width": (0.68, 0.95),  # of the font's own width
    "rotation": (-0.2, 0.2),  # radians, clockwise
    "x": (-0.06, 0.06),  # of the digit's middle from the picture's, in sides
    "y": (-0.05, 0.05),
    "blur": (0.012, 0.04),  # standard deviation in sides
}
_PERIODIC = ("plate_hue", "digit_hue")


@dataclass(frozen=True)
class HouseNumbersOptions(RenderedOptions):
    """As of every renderer, at SVHN's size."""

    size: int = option(32, "side of the square images in pixels")


@register("housenumbers")
class HouseNumbers(Rendered):
    """Colour crops of house numbers; ten classes, the digit in the middle.

    Factors: `font`; the digits to the `left` and `right` (10: none); `polarity` (1: light digits on a dark plate); and
    the continuous ones of `_RANGES`, all uniform but for the hues, which keep to a town's colours.

    Raises:
        DataError: matplotlib is there without its fonts.
    """

    Options = HouseNumbersOptions
    channels = 3
    version = 1

    def __init__(self, options: HouseNumbersOptions) -> None:
        super().__init__(options)
        self.classes = tuple(str(digit) for digit in range(10))
        self.factors = {
            "font": {"kind": "categorical", "values": len(FONTS)},
            "left": {"kind": "categorical", "values": NOBODY + 1},
            "right": {"kind": "categorical", "values": NOBODY + 1},
            "polarity": {"kind": "categorical", "values": 2},
        } | {
            name: {"kind": "continuous", "range": list(limits), "periodic": name in _PERIODIC}
            for name, limits in _RANGES.items()
        }
        self.fingerprint = self.fingerprint_of(*(font_file(name).read_bytes() for name in FONTS))

    def draw(self, split: str, i: int, rng: np.random.Generator) -> Sample:
        digit = int(rng.integers(10))
        factors = draw_factors(rng)
        return Sample(i, to_uint8(render(digit, factors, self.options.size, rng)), digit, factors)


def draw_factors(rng: np.random.Generator) -> Factors:
    """One value for each factor, in the manifest's order."""
    neighbours = [NOBODY if rng.random() < _BLANK else int(rng.integers(10)) for _ in range(2)]
    drawn: Factors = {
        "font": int(rng.integers(len(FONTS))),
        "left": neighbours[0],
        "right": neighbours[1],
        "polarity": int(rng.integers(2)),
    }
    for name, limits in _RANGES.items():
        drawn[name] = _town_hue(rng) if name in _PERIODIC else float(rng.uniform(*limits))
    return drawn


def _town_hue(rng: np.random.Generator) -> float:
    """A hue in [0, 1): brick, wood and sand, or enamel's blue; seldom anything else."""
    kind = rng.random()
    if kind < 0.5:
        return float(rng.uniform(0.0, 0.13))
    if kind < 0.9:
        return float(rng.uniform(0.54, 0.65))
    return float(rng.uniform(0.0, 1.0))


def render(digit: int, factors: Factors, size: int, rng: np.random.Generator) -> Pixels:
    """Draws one picture; `rng` gives what no factor names: the wall, its mottle, a shadow across, the sensor's noise.

    Returns:
        Float64 [size, size, 3], not clipped to [0, 1].
    """
    sign = 1.0 if factors["polarity"] else -1.0
    ink_luma = factors["brightness"] + sign * factors["contrast"] / 2
    plate_luma = factors["brightness"] - sign * factors["contrast"] / 2
    plate = colour(plate_luma, factors["plate_hue"], factors["plate_saturation"])
    wall = colour(min(max(plate_luma + rng.uniform(-0.25, 0.25), 0.05), 0.95), _town_hue(rng), rng.uniform(0.0, 0.4))
    ink = colour(ink_luma, factors["digit_hue"], rng.uniform(0.0, 0.3))

    glyphs, ground = masks(digit, factors, size)  # [size, size] in [0, 1]
    image = wall + (plate - wall) * ground[..., None]
    image *= 1.0 - 0.45 * _dropped(glyphs, factors["light_x"], factors["light_y"])[..., None]
    image += (ink - image) * glyphs[..., None]
    image *= _light(factors["light_x"], factors["light_y"], size, rng)[..., None]
    return _camera(image, factors["blur"] * size, rng)


def colour(luma: float, hue: float, saturation: float) -> Pixels:
    """RGB [3] of a given luma in [0, 1]; `saturation` 1 is the purest that this luma allows."""
    tint = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    tint -= tint @ _LUMA
    purest = min(luma / -tint.min(), (1.0 - luma) / tint.max())
    return luma + saturation * purest * tint


def masks(digit: int, factors: Factors, size: int) -> tuple[Pixels, Pixels]:
    """How much of each pixel digits cover, and how much the plate behind them: two of [size, size] in [0, 1]."""
    side = size * _SUPERSAMPLING
    ink, plate = number_strip(int(factors["font"]), digit, int(factors["left"]), int(factors["right"]), side)
    across = _GLYPH / (factors["scale"] * factors["width"])  # pixels of the strip for one of the picture
    down = _GLYPH / factors["scale"]
    cos, sin = math.cos(factors["rotation"]), math.sin(factors["rotation"])
    middle_x, middle_y = side * (0.5 + factors["x"]), side * (0.5 + factors["y"])
    rows = (
        (cos * across, sin * across, ink.width / 2 - across * (cos * middle_x + sin * middle_y)),
        (-sin * down, cos * down, ink.height / 2 - down * (-sin * middle_x + cos * middle_y)),
    )

    def seen(strip: Image.Image) -> Pixels:
        moved = strip.transform((side, side), Image.Transform.AFFINE, rows[0] + rows[1], Image.Resampling.BILINEAR)
        return np.asarray(moved.reduce(_SUPERSAMPLING), np.float64) / 255.0

    return seen(ink), seen(plate)


def number_strip(font: int, digit: int, left: int, right: int, side: int) -> tuple[Image.Image, Image.Image]:
    """Sets a number on its plate, the digit exactly in the middle: white digits, and the white plate by itself."""
    height = round(side * _GLYPH)
    face = typeface(font, height)
    gap = _SPACING * height
    reach = face.getlength(str(digit)) / 2 + gap
    width, tall = 4 * height, 2 * height
    ink = Image.new("L", (width, tall))
    pen = ImageDraw.Draw(ink)
    middle, baseline = width / 2, (tall + height) / 2
    pen.text((middle, baseline), str(digit), 255, face, anchor="ms")
    if left != NOBODY:
        pen.text((middle - reach, baseline), str(left), 255, face, anchor="rs")
    if right != NOBODY:
        pen.text((middle + reach, baseline), str(right), 255, face, anchor="ls")
    plate = Image.new("L", (width, tall))
    margin = 0.14 * height
    ImageDraw.Draw(plate).rectangle(
        (
            0 if left != NOBODY else middle - reach - 2 * margin,
            (tall - height) / 2 - margin,
            width if right != NOBODY else middle + reach + 2 * margin,
            (tall + height) / 2 + margin,
        ),
        255,
    )
    return ink, plate


@functools.lru_cache(maxsize=64)
def typeface(font: int, height: int) -> ImageFont.FreeTypeFont:
    """One of `FONTS` at the size whose digits are `height` pixels tall."""
    path = str(font_file(FONTS[font]))
    layout = ImageFont.Layout.BASIC
    _, top, _, bottom = ImageFont.truetype(path, 1000, layout_engine=layout).getbbox("0123456789", anchor="ls")
    return ImageFont.truetype(path, 1000 * height / (bottom - top), layout_engine=layout)


@functools.cache
def font_file(name: str) -> Path:
    """Where matplotlib keeps a font.

    Raises:
        DataError: it is not there.
    """
    import matplotlib  # a moment to import

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise DataError(f"{path} is missing: the digits are drawn from matplotlib's own fonts; reinstall matplotlib")
    return path


def _dropped(glyphs: Pixels, light_x: float, light_y: float) -> Pixels:
    """The shadow of digits that stand off their plate, away from the light: [size, size] in [0, 1]."""
    size = len(glyphs)
    at_x, at_y = (_shift(size, -light * 0.05 * size) for light in (light_x, light_y))
    return at_y @ glyphs @ at_x.T


def _shift(size: int, by: float) -> Pixels:
    """Matrix [size, size] that moves a signal by a fraction of pixels, with zeros from outside."""
    offset = np.arange(size)[:, None] - np.arange(size) - by
    return np.maximum(0.0, 1.0 - np.abs(offset))


def _light(light_x: float, light_y: float, size: int, rng: np.random.Generator) -> Pixels:
    """Light on the wall: brighter towards its source, mottled, sometimes with a shadow's edge across."""
    at = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    x, y = at[None, :], at[:, None]
    gain = 1.0 + 0.3 * (light_x * x + light_y * y)
    mottle = np.zeros((size, size))
    for waves in rng.normal(size=(4, 4)):
        mottle = mottle + np.sin(3.0 * (waves[0] * x + waves[1] * y) + 3.0 * waves[2])
    gain = gain * (1.0 + 0.025 * mottle)
    if rng.random() < 0.25:
        turn = rng.uniform(0.0, 2.0 * math.pi)
        inside = math.cos(turn) * x + math.sin(turn) * y - rng.uniform(-0.2, 0.8)
        gain = gain * (1.0 - rng.uniform(0.2, 0.5) / (1.0 + np.exp(-inside / 0.08)))
    return gain


def _camera(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Blurs by `sigma` pixels, adds the sensor's noise, and halves the resolution of colour as JPEG does."""
    size = len(image)
    image = _filtered(_blur(size, sigma), image)
    image = image + rng.normal(scale=0.012, size=image.shape)
    luma = image @ _LUMA
    return luma[..., None] + _filtered(_blur(size, 1.2), image - luma[..., None])


def _filtered(matrix: Pixels, image: Pixels) -> Pixels:
    """Applies a matrix [size, size] along both sides of an image [size, size, C]."""
    size = len(image)
    return matrix @ (matrix @ image.reshape(size, -1)).reshape(image.shape)


def _blur(size: int, sigma: float) -> Pixels:
    """Matrix [size, size] of a Gaussian blur that repeats the border's pixels outside."""
    reach = math.ceil(3.0 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((size, size))
    for step, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + step, 0, size - 1)), weight)
    return matrix
