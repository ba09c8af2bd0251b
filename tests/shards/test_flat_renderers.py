"""Sprites and house numbers: what the factors say is what the picture shows."""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shards import decode
from shards.errors import DataError, UserError
from shards.renderers import housenumbers, sprites
from shards.sources import Source, open_source
from shards.verify import verify
from shards.writer import build

Pixels = NDArray[np.float64]
FLAT = ("housenumbers", "sprites")
LUMA = (0.299, 0.587, 0.114)
SPRITE: dict[str, float | int] = {"shape": 0, "scale": 1.0, "orientation": 0.0, "x": 0.5, "y": 0.5}
NUMBER: dict[str, float | int] = {
    "font": 1, "left": 10, "right": 10, "polarity": 1, "brightness": 0.5, "contrast": 0.5,
    "plate_hue": 0.6, "plate_saturation": 0.3, "digit_hue": 0.1, "light_x": 0.0, "light_y": 0.0,
    "scale": 0.8, "width": 0.8, "rotation": 0.0, "x": 0.0, "y": 0.0, "blur": 0.015,
}  # fmt: skip


def sprite(**factors: float | int) -> Pixels:
    """[64, 64] of 0.0 and 1.0."""
    return sprites.render(SPRITE | factors, 64)[..., 0] / 255.0


def number(digit: int = 8, **factors: float | int) -> Pixels:
    """[32, 32, 3], always with the same wall, mottle and noise."""
    return housenumbers.render(digit, NUMBER | factors, 32, np.random.default_rng(3))


def middle(mask: Pixels) -> tuple[float, float]:
    """Centre of mass (x, y) in pixels, the border being 0."""
    at = np.arange(len(mask)) + 0.5
    return float((mask.sum(0) * at).sum() / mask.sum()), float((mask.sum(1) * at).sum() / mask.sum())


def axis(mask: Pixels) -> float:
    """Direction of the longest extent, clockwise from the right, in [0, pi)."""
    x, y = middle(mask)
    dy, dx = np.mgrid[: len(mask), : len(mask)] + 0.5 - np.array([y, x])[:, None, None]
    xx, yy, xy = ((mask * product).sum() for product in (dx * dx, dy * dy, dx * dy))
    return float(0.5 * math.atan2(2 * xy, xx - yy) % math.pi)


@pytest.mark.parametrize("name", FLAT)
def test_a_picture_depends_on_seed_split_and_position_alone(name: str) -> None:
    one, again, other = (open_source(name, samples=100, seed=seed) for seed in (3, 3, 4))
    for i in (9, 0, 4):  # in another order than below
        again.sample("train", i)
    shown = []
    for split in ("train", "validation", "test"):
        for i in range(10):
            first, second = one.sample(split, i), again.sample(split, i)
            assert first.image.tobytes() == second.image.tobytes()
            assert (first.key, first.label, first.factors) == (second.key, second.label, second.factors)
            shown += [first.image.tobytes(), other.sample(split, i).image.tobytes()]
    assert len(set(shown)) == len(shown)
    assert one.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", FLAT)
def test_the_number_of_workers_changes_no_byte(
    name: str, tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    for workers in (1, 2):
        source = open_source(name, samples=60)
        build(source, tmp_path / str(workers), name="set", shard_size=16, workers=workers, progress=False)
        assert verify(tmp_path / str(workers), progress=False) == []
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


@pytest.mark.parametrize(("name", "size", "channels"), [("housenumbers", 32, 3), ("sprites", 64, 1)])
def test_labels_and_factors_are_as_declared_and_use_their_whole_range(name: str, size: int, channels: int) -> None:
    source = open_source(name, samples=400)
    assert source.shape == (size, size, channels)
    assert open_source(name).splits == {"train": 50_000, "validation": 5_000, "test": 5_000}
    labels, rows = [], []
    for i in range(400):
        sample = source.sample("train", i)
        assert sample.image.shape == source.shape
        assert sample.image.dtype == np.uint8
        rows.append(decode.factors(json.dumps(sample.factors).encode(), source.factors))
        labels.append(sample.label)
    assert set(labels) == set(range(len(source.classes)))
    drawn = np.array(rows)
    for values, (factor, spec) in zip(drawn.T, source.factors.items(), strict=True):
        if spec["kind"] == "categorical":
            assert set(values) == set(range(spec["values"])), factor
        else:
            low, high = spec["range"]
            assert values.min() < low + 0.1 * (high - low) < high - 0.1 * (high - low) < values.max(), factor
    correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert abs(correlation).max() < 4.5 / math.sqrt(400)  # independent of one another


@pytest.mark.parametrize("size", [16, 48, 128])
@pytest.mark.parametrize("name", FLAT)
def test_another_size_shows_the_same_scene(name: str, size: int) -> None:
    """Reduced to 16 x 16, but for what the sensor adds pixel by pixel."""
    usual, other = open_source(name), open_source(name, size=size)
    assert other.shape[:2] == (size, size)
    agreement = []
    for i in range(20):
        small = []
        for source in (usual, other):
            image = Image.fromarray(source.sample("train", i).image.squeeze()).convert("L")
            small.append(np.asarray(image.resize((16, 16), Image.Resampling.BOX), float))
        agreement.append(np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1])
    assert np.median(agreement) > 0.9


# Sprites


def test_sprites_are_black_and_white_and_keep_off_the_border() -> None:
    for shape in range(3):
        for turn in np.linspace(0.0, 2.0 * math.pi, 25):
            for x, y in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
                mask = sprite(shape=shape, orientation=turn, x=x, y=y)
                assert set(np.unique(mask)) == {0.0, 1.0}
                assert mask[:2].max() == mask[-2:].max() == mask[:, :2].max() == mask[:, -2:].max() == 0.0


def test_a_sprites_middle_follows_x_and_y() -> None:
    for shape in range(3):
        for x, y in ((0.0, 0.0), (0.25, 1.0), (0.7, 0.1), (1.0, 0.5)):
            mask = sprite(shape=shape, orientation=0.7, x=x, y=y)
            assert middle(mask) == pytest.approx((16 + 32 * x, 16 + 32 * y), abs=0.3)


def test_a_sprites_area_grows_with_the_square_of_scale_whatever_its_shape() -> None:
    for shape in range(3):
        for scale in (0.5, 0.7, 1.0):
            turns = np.linspace(0.1, 6.0, 12)
            area = np.mean([sprite(shape=shape, scale=scale, orientation=turn).mean() for turn in turns])
            assert area == pytest.approx(0.0727 * scale**2, rel=0.02)


def test_as_many_pixels_are_white_as_in_dsprites() -> None:
    source = open_source("sprites", samples=2000)
    shown = np.stack([source.sample("train", i).image for i in range(2000)]) / 255.0
    assert shown.mean() == pytest.approx(0.043, abs=0.0015)  # the published mean of dSprites
    assert shown.std() == pytest.approx(0.202, abs=0.004)


def test_an_ellipse_lies_as_its_orientation_says() -> None:
    for turn in np.linspace(0.0, 2.0 * math.pi, 17):
        difference = (axis(sprite(shape=1, orientation=turn)) - turn + math.pi / 2) % math.pi - math.pi / 2
        assert abs(difference) < 0.06


def test_a_heart_goes_once_around() -> None:
    """By its third moment, which is zero for a shape that looks the same after half a turn."""

    def direction(turn: float) -> float:
        mask = sprite(shape=2, orientation=turn)
        y, x = np.nonzero(mask)
        away = np.stack([x + 0.5, y + 0.5], axis=1) - middle(mask)
        third = ((away**2).sum(axis=1, keepdims=True) * away).sum(axis=0)
        return math.atan2(third[1], third[0])

    for turn in np.linspace(0.0, 2.0 * math.pi, 17):
        difference = direction(turn) - direction(0.0) - turn
        assert abs((difference + math.pi) % (2 * math.pi) - math.pi) < 0.12
    upright = sprite(shape=2)
    rows = np.flatnonzero(upright.any(axis=1))
    assert upright[rows[-1]].sum() <= 3 < 10 < upright[rows[4]].sum()  # its point is below


@pytest.mark.parametrize("shape", range(3))
def test_a_quarter_of_a_turn_turns_the_picture(shape: int) -> None:
    for turn in (0.0, 0.4, 2.0):
        quarter = sprite(shape=shape, orientation=turn + math.pi / 2)
        assert abs(quarter - np.rot90(sprite(shape=shape, orientation=turn), -1)).sum() <= 8  # of 300 white pixels
        assert (abs(quarter - sprite(shape=shape, orientation=turn)).sum() <= 8) == (shape == 0)


def test_no_sprite_is_in_two_splits_or_twice_in_one() -> None:
    source = open_source("sprites", samples=2000)
    seen = set()
    for split, count in source.splits.items():
        for i in range(count):
            seen.add(tuple((source.sample(split, i).factors or {}).values()))
    assert len(seen) == 2400


def test_sprites_take_their_values_from_the_grid_of_dsprites() -> None:
    assert sprites.COMBINATIONS == 737_280
    assert sprites.GRID["orientation"][1] == pytest.approx(0.16110732)  # as its authors list them
    assert sprites.GRID["x"][30] == pytest.approx(0.96774194)
    source = open_source("sprites", samples=300)
    for i in range(300):
        for name, value in (source.sample("train", i).factors or {}).items():
            assert name == "shape" or value in sprites.GRID[name]
    assert sum(open_source("sprites", samples=614_400).splits.values()) == 737_280
    with pytest.raises(UserError, match=r"samples is 614410: .* enough for 614,400"):
        open_source("sprites", samples=614_410)


# House numbers


@pytest.fixture(scope="module")
def street() -> Source:
    return open_source("housenumbers", samples=5000)


def test_the_label_is_the_digit_in_the_middle(street: Source) -> None:
    """Of all ten digits set in its place, the one that the label names fits the picture best."""
    right = 0
    for i in range(100):
        sample = street.sample("train", i)
        assert sample.factors is not None
        luma = (sample.image @ np.array(LUMA)).ravel()
        fits = [
            abs(np.corrcoef(luma, housenumbers.masks(digit, sample.factors, 32)[0].ravel())[0, 1])
            for digit in range(10)
        ]
        right += int(np.argmax(fits)) == sample.label
    assert right >= 98


def test_all_digits_are_equally_frequent_and_a_fifth_lacks_a_neighbour(street: Source) -> None:
    samples = [street.sample("train", i) for i in range(1500)]
    label = np.bincount([int(s.label or 0) for s in samples], minlength=10) / 1500
    left = np.bincount([int((s.factors or {})["left"]) for s in samples], minlength=11) / 1500
    assert label == pytest.approx(np.full(10, 0.1), abs=0.03)  # four standard deviations
    assert left[10] == pytest.approx(0.2, abs=0.04)
    assert left[:10] == pytest.approx(np.full(10, 0.08), abs=0.03)


@pytest.mark.parametrize("font", range(len(housenumbers.FONTS)))
def test_digits_are_those_of_the_font_at_the_height_asked_for(font: int) -> None:
    """Beside the same digit drawn straight at its place, without a strip or a transform."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{housenumbers.FONTS[font]}.ttf"
    layout = ImageFont.Layout.BASIC
    for digit in range(10):
        mask, _ = housenumbers.masks(digit, NUMBER | {"font": font, "width": 1.0}, 32)
        face = ImageFont.truetype(str(path), 200, layout_engine=layout)
        _, top, _, bottom = face.getbbox("0123456789", anchor="ls")
        face = ImageFont.truetype(str(path), 200 * 0.8 * 320 / (bottom - top), layout_engine=layout)
        canvas = Image.new("L", (320, 320))
        ImageDraw.Draw(canvas).text((160, 160 + 0.4 * 320), str(digit), 255, face, anchor="ms")
        straight = np.asarray(canvas.reduce(10), float) / 255.0
        assert abs(mask - straight).mean() < 0.035  # hinting moves an edge by up to a pixel of the four
        assert np.corrcoef(mask.ravel(), straight.ravel())[0, 1] > 0.95


def test_place_size_width_and_turn_of_the_digit_follow_their_factors() -> None:
    def mask(**factors: float) -> Pixels:
        return housenumbers.masks(8, NUMBER | factors, 64)[0]

    def extent(mask: Pixels, along: int) -> int:
        return int(np.count_nonzero(mask.max(axis=along) > 0.5))

    x, y = middle(mask())
    assert middle(mask(x=0.05, y=-0.04)) == pytest.approx((x + 3.2, y - 2.56), abs=0.15)
    assert extent(mask(scale=0.9), 1) - extent(mask(scale=0.7), 1) == pytest.approx(0.2 * 64, abs=1.5)
    assert extent(mask(width=0.9), 0) / extent(mask(width=0.7), 0) == pytest.approx(0.9 / 0.7, rel=0.06)
    assert extent(mask(width=0.9), 1) == extent(mask(width=0.7), 1)
    for turn in (-0.2, 0.1, 0.2):
        assert axis(mask(rotation=turn)) - axis(mask()) == pytest.approx(turn, abs=0.03)


def test_neighbours_reach_in_from_their_side_only() -> None:
    pose = NUMBER | {"scale": 0.7, "width": 0.7}
    alone, plate = housenumbers.masks(5, pose, 32)
    assert alone[:, :5].max() == alone[:, -5:].max() == 0.0
    assert plate[16, 0] == plate[16, -1] == 0.0  # the plate ends beside a single digit
    both = {side: housenumbers.masks(5, pose | {side: 4}, 32) for side in ("left", "right")}
    for side, near, far in (("left", slice(0, 5), slice(-5, None)), ("right", slice(-5, None), slice(0, 5))):
        glyphs, plate = both[side]
        assert glyphs[:, near].max() > 0.9
        assert glyphs[:, far].max() == 0.0
        assert plate[16, near].min() == 1.0
        np.testing.assert_array_equal(glyphs[:, 12:20], alone[:, 12:20])
    other = housenumbers.masks(5, pose | {"left": 7}, 32)[0]
    assert abs(other - both["left"][0])[:, :6].max() > 0.5


def test_colour_light_and_blur_follow_their_factors() -> None:
    glyphs, plate = housenumbers.masks(8, NUMBER | {"left": 1, "right": 1}, 32)
    digits, ground = glyphs > 0.95, (glyphs < 0.01) & (plate > 0.99)

    def luma(where: Any, **factors: Any) -> float:
        return float((number(left=1, right=1, **factors) @ np.array(LUMA))[where].mean())

    def hue(where: Any, **factors: Any) -> float:
        return colorsys.rgb_to_hsv(*np.clip(number(left=1, right=1, **factors)[where].mean(axis=0), 0, 1))[0]

    assert luma(digits) - luma(ground) > 0.3
    assert luma(digits, polarity=0) - luma(ground, polarity=0) < -0.3
    by_contrast = [luma(digits, contrast=c) - luma(ground, contrast=c) for c in (0.2, 0.4, 0.6)]
    assert by_contrast == sorted(by_contrast)
    by_brightness = [luma(slice(None), brightness=b) for b in (0.3, 0.5, 0.7)]
    assert np.diff(by_brightness) == pytest.approx([0.2, 0.2], abs=0.05)
    for wanted in (0.1, 0.35, 0.6):
        assert hue(ground, plate_hue=wanted, plate_saturation=0.5) == pytest.approx(wanted, abs=0.06)
    half = np.arange(32) < 16
    for factor, first, second in (
        ("light_x", (slice(None), ~half), (slice(None), half)),
        ("light_y", (~half,), (half,)),
    ):
        balance = [luma(first, **{factor: at}) - luma(second, **{factor: at}) for at in (-1.0, 0.0, 1.0)]
        assert balance[0] < balance[1] - 0.1 < balance[1] + 0.1 < balance[2]
    sharpness = [abs(np.diff(number(blur=b), axis=1)).mean() for b in (0.012, 0.025, 0.04)]
    assert sharpness == sorted(sharpness, reverse=True)


def test_every_factor_of_a_house_number_changes_the_picture(street: Source) -> None:
    for name, spec in street.factors.items():
        low, high = (0, 1) if spec["kind"] == "categorical" else spec["range"]
        if spec.get("periodic"):
            high = (low + high) / 2
        assert abs(number(**{name: low}) - number(**{name: high})).max() > 0.02, name


def test_a_colour_has_the_luma_asked_for_and_can_be_shown() -> None:
    rng = np.random.default_rng(0)
    for luma, hue, saturation in rng.uniform(size=(200, 3)):
        shown = housenumbers.colour(luma, hue, saturation)
        assert shown @ np.array(LUMA) == pytest.approx(luma)
        assert -1e-9 <= shown.min() <= shown.max() <= 1 + 1e-9


def test_a_font_that_matplotlib_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match=r"DejaVuSans\.ttf is missing: .* reinstall matplotlib") as caught:
        housenumbers.font_file.__wrapped__("DejaVuSans")
    assert "\n" not in str(caught.value)
