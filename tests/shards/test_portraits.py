"""Rendered portraits: every attribute shows where it should, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import UserError
from shards.renderers.portraits import CATEGORICAL, CONTINUOUS, CROPPED, FULL, LONG, Look, Portraits
from shards.sources import open_source

STILL = {name: (low + high) / 2 for name, (low, high) in CONTINUOUS.items()} | dict.fromkeys(CATEGORICAL, 0)


@pytest.fixture(scope="session")
def portraits(packed: Path) -> Portraits:
    source = open_source("portraits", path=str(packed), samples=40, size=64)
    assert isinstance(source, Portraits)
    return source


def draw(portraits: Portraits, **factors: Any) -> np.ndarray:
    """The mean head before grey, [64, 64, 3]."""
    look = Look(
        weights=np.zeros(3, np.float32),
        smile=1.0,
        frown=0.0,
        jaw=0.4,
        brows=1.5,
        thickness=1.0,
        redness=0.0,
        iris=0,
        ground=np.ones((2, 3), np.float32),
        slope=0.0,
    )
    return portraits.picture(look, **(STILL | factors))


# Parts of the image at 64 x 64: a pixel is 0.39 wide, and the middle shows the height 2.2.
CHEEK = (slice(36, 40), slice(20, 24))
FOREHEAD = (slice(17, 20), slice(28, 36))
CROWN = (slice(4, 8), slice(28, 36))
CHIN = (slice(50, 54), slice(29, 35))
MOUTH = (slice(42, 52), slice(26, 38))
BROWS = (slice(18, 28), slice(18, 46))
CORNER = (slice(0, 4), slice(0, 4))
BESIDE = (slice(50, 60), slice(9, 13))  # the neck


def test_samples_are_reproducible_and_carry_every_attribute(portraits: Portraits, packed: Path) -> None:
    again = open_source("portraits", path=str(packed), samples=40, size=64)
    seen: dict[str, set[float]] = {}
    for i in reversed(range(20)):
        one, other = portraits.sample("train", i), again.sample("train", i)
        assert one.image.shape == (64, 64, 3)
        assert one.image.tobytes() == other.image.tobytes()
        assert one.factors == other.factors
        assert list(one.factors or {}) == list(portraits.factors)
        for name, value in (one.factors or {}).items():
            seen.setdefault(name, set()).add(value)
    for name, values in CATEGORICAL.items():
        assert seen[name] == set(range(values))
    for name, (low, high) in CONTINUOUS.items():
        assert low <= min(seen[name]) < max(seen[name]) <= high


def test_skin_background_and_light_run_from_end_to_end(portraits: Portraits) -> None:
    skins = [draw(portraits, skin=value)[CHEEK].mean() for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert (np.diff(skins) < -0.03).all()
    grounds = [draw(portraits, background=value)[CORNER].mean() for value in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(grounds, [0.08, 0.5, 0.92], atol=0.02)
    warm, cool = draw(portraits, warmth=1.0)[CHEEK], draw(portraits, warmth=0.0)[CHEEK]
    assert warm[..., 0].mean() > cool[..., 0].mean()
    assert warm[..., 2].mean() < cool[..., 2].mean()
    left, right = draw(portraits, light=-70.0), draw(portraits, light=70.0)
    assert left[36:40, 20:24].mean() > left[36:40, 40:44].mean() + 0.1
    assert right[36:40, 40:44].mean() > right[36:40, 20:24].mean() + 0.1


@pytest.mark.parametrize(
    ("attribute", "shows", "spares"),
    [("smiling", MOUTH, BROWS), ("mouth_open", MOUTH, BROWS), ("brows_raised", BROWS, MOUTH), ("beard", CHIN, BROWS)],
)
def test_an_attribute_shows_where_it_should(portraits: Portraits, attribute: str, shows: Any, spares: Any) -> None:
    change = np.abs(draw(portraits, **{attribute: 1}) - draw(portraits, **{attribute: 0}))
    assert change[shows].max() > 0.08
    assert change[spares].max() < 0.01
    assert change[CORNER].max() == 0.0


def test_an_open_mouth_is_dark_below_teeth(portraits: Portraits) -> None:
    opened, closed = (draw(portraits, mouth_open=value)[40:58, 32].mean(axis=1) for value in (1, 0))
    dark = [np.flatnonzero(column < 0.2) for column in (opened, closed)]
    assert len(dark[0]) > len(dark[1]) > 0  # the small model's lips never close
    assert opened[dark[0][0] - 2] > 0.7


def test_hair_has_its_colour_and_its_length(portraits: Portraits) -> None:
    crowns = [draw(portraits, hair=FULL, hair_colour=colour)[CROWN].mean(axis=(0, 1)) for colour in range(4)]
    assert crowns[0].mean() < crowns[1].mean() < min(crowns[2].mean(), crowns[3].mean())  # black, brown, the light ones
    assert crowns[2][0] - crowns[2][2] > 0.15  # blond is yellow
    assert abs(crowns[3][0] - crowns[3][2]) < 0.1  # grey is grey
    beside = {style: draw(portraits, hair=style, hair_colour=0)[BESIDE].mean() for style in (CROPPED, FULL, LONG)}
    assert beside[LONG] < 0.3 < beside[CROPPED] == pytest.approx(beside[FULL], abs=0.01)
    covered = [(np.abs(draw(portraits, hair=style) - 0.5) > 0.05).any(axis=2)[:30].sum() for style in (CROPPED, FULL)]
    assert covered[1] > 1.03 * covered[0]  # more hair, a larger outline


def test_the_curtain_hides_only_what_is_behind_it(portraits: Portraits) -> None:
    change = np.abs(draw(portraits, hair=LONG) - draw(portraits, hair=CROPPED))
    assert change[30:44, 26:38].max() < 0.05  # the face


def test_a_missing_model_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="portraits needs the head model ICT-FaceKit"):
        open_source("portraits", path=str(tmp_path))
