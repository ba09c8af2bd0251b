"""Where the processes of a run stand, and whether one of them hangs."""

from collections.abc import Mapping
from dataclasses import dataclass

OUT_OF_MEMORY = "out-of-memory"
"""The phase of a process that looks for a batch that fits; the others wait for it in vain, until it tells."""


@dataclass(frozen=True)
class Place:
    """Where a process stands; `moves` counts the places before it, which are the same for every process.

    `patient`: standing still there means nothing, since work of any length is done, alone.
    """

    phase: str = "start"
    update: int = 0
    patient: bool = True
    moves: int = 0

    def __str__(self) -> str:
        return f"{self.phase} phase of update {self.update}"


@dataclass(frozen=True)
class Stillness:
    """`rank` has stood in `place` for `seconds` while the others wait for it; all stand there where it is None."""

    rank: int | None
    place: Place
    seconds: float


def judge(places: Mapping[int, Place], moved: Mapping[int, float], now: float, limit: float) -> Stillness | None:
    """Who hangs, by the places of all ranks and the times when each came there; None where nobody does.

    Whoever stands furthest back is waited for. It counts from the last move of anyone: who has just been waiting for
    another, long, is itself still where it waited when that one goes on.
    """
    fewest = min(place.moves for place in places.values())
    last = [rank for rank, place in places.items() if place.moves == fewest]
    place, seconds = places[last[0]], now - max(moved.values())
    if seconds <= limit or place.patient or any(one.phase == OUT_OF_MEMORY for one in places.values()):
        return None
    return Stillness(None if len(last) == len(places) else last[0], place, seconds)
