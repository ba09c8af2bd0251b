"""Who hangs, by where all stand; and whom nobody may blame."""

import pytest

from infogan.stillness import OUT_OF_MEMORY, Place, judge

CRITIC, GENERATOR = Place("critic", 7, False, 21), Place("generator", 7, False, 22)
PICTURES = Place("pictures", 7, True, 21)  # rank 0 draws
BARRIER = Place("pictures", 7, False, 22)  # and the others wait
MEMORY = Place(OUT_OF_MEMORY, 7, True, 22)


@pytest.mark.parametrize(
    ("places", "moved", "said"),
    [
        pytest.param([CRITIC, GENERATOR], [0, 0], 0, id="the one that stands furthest back hangs"),
        pytest.param([GENERATOR, GENERATOR, CRITIC], [0, 0, 0], 2, id="whoever it is"),
        pytest.param([CRITIC, CRITIC], [0, 0], "all", id="where all stand in one place, a collective does"),
        pytest.param([CRITIC, GENERATOR], [90, 0], None, id="it has just come there"),
        pytest.param([GENERATOR, CRITIC], [90, 0], None, id="it waited for another, who moves again"),
        pytest.param([PICTURES, BARRIER], [0, 0], None, id="long work of one is waited for"),
        pytest.param(
            [Place("pictures", 6, False, 20), GENERATOR],
            [0, 0],
            0,
            id="who waits at a barrier behind all others waits for nobody",
        ),
        pytest.param([CRITIC, MEMORY], [0, 0], None, id="who waits for one without memory is not to blame"),
    ],
)
def test_who_hangs(places: list[Place], moved: list[float], said: int | str | None) -> None:
    found = judge(dict(enumerate(places)), dict(enumerate(moved)), now=100, limit=30)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert found.rank == (None if said == "all" else said)
        assert found.seconds == 100
