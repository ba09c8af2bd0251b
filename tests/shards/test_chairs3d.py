"""Parametric chairs: closed parts, steady framing, known factors, and models that no two splits share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shards.errors import UserError
from shards.renderers.chair_model import ARMS, BACKS, LEGS, SEATS, WIDTHS, Chair, draw_chair
from shards.renderers.chair_parts import solids
from shards.renderers.chairs3d import ELEVATIONS, VIEWS, Chairs3d, render
from shards.renderers.lofts import Solid
from shards.sources import open_source
from shards.sources.chairs import AZIMUTHS

STEP = 360.0 / AZIMUTHS


def chairs(**options: int) -> Chairs3d:
    source = open_source("chairs3d", **options)
    assert isinstance(source, Chairs3d)
    return source


def models(number: int) -> list[Chair]:
    return [draw_chair(np.random.default_rng(seed)) for seed in range(number)]


def kinds() -> list[Chair]:
    """Every kind of each part with every kind of the others that it is drawn with, each once, from many models."""
    found: dict[tuple[object, ...], Chair] = {}
    for chair in models(500):
        form = (chair.cantilever, chair.feet, chair.round_legs, chair.stretcher > 0.0, chair.crest > 0.0)
        for key in (
            (chair.seat, chair.back),
            (chair.seat, chair.arms, chair.legs),
            (chair.back, chair.arms),
            (chair.legs, *form),
            (chair.back, *form[-1:], chair.back_thick > 0.06),
        ):
            found.setdefault(key, chair)
    return list({id(chair): chair for chair in found.values()}.values())


def dark(chair: Chair) -> np.ndarray:
    """Where the chair is, seen from the front: [64, 64] bool."""
    return render(chair, 0.0, 20.0, 64)[..., 0] < 0.98


def test_an_image_depends_on_seed_split_and_position_alone() -> None:
    first, again, other = chairs(samples=1000), chairs(samples=1000), chairs(samples=1000, seed=1)
    for split in first.splits:
        late = again.sample(split, 7)
        early = first.sample(split, 3)
        assert np.array_equal(early.image, again.sample(split, 3).image)
        assert np.array_equal(late.image, first.sample(split, 7).image)
        assert early.factors == again.sample(split, 3).factors
        assert early.factors != other.sample(split, 3).factors
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_default_is_every_model_from_each_view_once() -> None:
    source = chairs()
    assert source.splits == {"train": 1393 * 62, "validation": 8636, "test": 8636}
    assert source.shape == (64, 64, 1)
    assert source.models == {"train": 1393, "validation": 140, "test": 140}


def test_each_image_is_another_model_or_view_and_all_are_used() -> None:
    source = chairs(samples=3 * VIEWS, models=3, size=16)
    seen = set()
    for i in range(source.splits["train"]):
        factors = source.sample("train", i).factors
        assert factors is not None
        assert factors["width"] == source.chair("train", i % 3).width
        seen.add((i % 3, round(factors["azimuth"] / STEP), factors["elevation"]))
    assert seen == {(m, a, e) for m in range(3) for a in range(AZIMUTHS) for e in ELEVATIONS}


def test_more_images_than_views_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"samples is 621, but 10 models have 620 views: raise models, or lower samples"
    ):
        chairs(samples=621, models=10)
    with pytest.raises(UserError, match="models is 0"):
        chairs(models=0)


def test_no_model_is_in_two_splits() -> None:
    source = chairs()
    drawn = [source.chair(split, model) for split, number in source.models.items() for model in range(number)]
    assert len(set(drawn)) == len(drawn) == 1393 + 140 + 140


def test_factors_are_what_the_source_declares() -> None:
    source = chairs(samples=300)
    for i in range(60):
        factors = source.sample("train", i).factors
        assert factors is not None
        assert factors.keys() == source.factors.keys()
        assert factors["elevation"] in ELEVATIONS
        assert (factors["azimuth"] / STEP) == pytest.approx(round(factors["azimuth"] / STEP))
        for name, known in (("seat", SEATS), ("legs", LEGS), ("back", BACKS), ("arms", ARMS)):
            value = factors[name]
            assert isinstance(value, int)
            assert known[value] == getattr(source.chair("train", i), name)
            assert source.factors[name]["values"] == len(known)


def test_a_full_turn_shows_the_same() -> None:
    for chair in models(4):
        assert np.abs(render(chair, 50.0, 20.0, 48) - render(chair, 410.0, 20.0, 48)).max() < 0.02


def test_the_other_side_of_a_chair_is_its_mirror_image() -> None:
    for chair in models(12):
        for azimuth in (0.0, 3 * STEP, 100.0):
            left, right = render(chair, azimuth, 30.0, 64), render(chair, -azimuth, 30.0, 64)
            difference = np.abs(left - right[:, ::-1])
            assert difference.mean() < 0.002  # a ray that grazes an edge may fall either way
            assert np.abs(left - right).mean() > 0.01 or azimuth == 0.0


def test_a_chair_faces_us_at_azimuth_0() -> None:
    """In front the light seat is in view; from behind the dark back hides it."""
    chair = dataclasses.replace(
        models(1)[0], seat="square", legs="straight", back="solid", arms="none", crest=0.3,
        seat_tone=0.8, back_tone=0.2, frame_tone=0.2, back_thick=0.04, width=0.5, back_length=0.5,
    )  # fmt: skip
    seat = [(np.abs(render(chair, azimuth, 20.0, 64) - 0.57) < 0.06).sum() for azimuth in (0.0, 180.0)]
    assert seat[0] > 100
    assert seat[1] < 0.4 * seat[0]


def test_width_widens_the_silhouette() -> None:
    for chair in models(8):
        spans = []
        for width in np.linspace(*WIDTHS, 5):
            rows, columns = np.nonzero(dark(dataclasses.replace(chair, width=width)))
            spans.append((np.ptp(columns) + 1) / (np.ptp(rows) + 1))
        assert (np.diff(spans) > 0.02).all()


def test_every_chair_is_whole_in_the_image_and_fills_it() -> None:
    source = chairs()
    for i in range(200):
        rows, columns = np.nonzero(source.sample("train", i).image[..., 0] < 250)
        assert min(rows.min(), columns.min()) >= 1  # white all around
        assert max(rows.max(), columns.max()) <= 62
        assert max(np.ptp(rows), np.ptp(columns)) >= 36


def test_every_kind_of_every_part_is_drawn() -> None:
    drawn = models(600)
    for name, known in (("seat", SEATS), ("legs", LEGS), ("back", BACKS), ("arms", ARMS)):
        assert {getattr(chair, name) for chair in drawn} == set(known)


def test_every_part_is_a_closed_surface_seen_from_outside() -> None:
    for chair in kinds():
        for part in solids(chair):
            _check_closed(part)


def _check_closed(part: Solid) -> None:
    assert part.triangles.min() == 0
    assert part.triangles.max() == len(part.vertices) - 1
    a, b, c = (part.vertices[part.triangles[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    assert areas.min() > 1e-8  # square metres: a hundredth of a square millimetre
    assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0.0  # six times the volume, positive if seen from outside
    _, point = np.unique(part.vertices.round(9), axis=0, return_inverse=True)  # vertices that differ in normal only
    corners = point[part.triangles]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    forth, back = (np.sort(edges[:, way] @ (len(point), 1)) for way in ([0, 1], [1, 0]))
    assert (np.diff(forth) > 0).all()  # no edge twice the same way round
    assert np.array_equal(forth, back)  # and each has its other side


def test_chairs_stand_on_the_floor() -> None:
    for chair in kinds():
        assert min(part.vertices[:, 1].min() for part in solids(chair)) == pytest.approx(
            0.0, abs=6e-3
        )  # a splayed leg is cut square


def test_thin_parts_stay_visible() -> None:
    """Legs at their thinnest: each of the two in front darkens its rows to a quarter of the full contrast or more."""
    chair = dataclasses.replace(
        models(1)[0], seat="square", legs="straight", back="ladder", arms="none", leg_thick=0.032, stretcher=0.0,
        round_legs=True, frame_tone=0.3, width=0.5, back_length=0.6,
    )  # fmt: skip
    image = render(chair, 0.0, 20.0, 64)[..., 0]
    rows = np.flatnonzero((image < 0.98).any(axis=1))
    legs = image[rows[-10] : rows[-3]]
    assert (legs[:, :32].min(axis=1) < 0.75).all()
    assert (legs[:, 32:].min(axis=1) < 0.75).all()


def test_the_background_is_white() -> None:
    source = chairs(samples=100)
    for i in range(20):
        image = source.sample("train", i).image
        assert image.dtype == np.uint8
        assert np.median(image[:4]) == 255
        assert image.min() < 160
