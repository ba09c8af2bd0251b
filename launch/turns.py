"""Timing things that run in turns in one process, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Turn(NamedTuple):
    """One contestant's turn: how long it took, and how long of it was spent waiting for data."""

    seconds: float
    waited: float


class Contestant(Protocol):
    """Something that trains."""

    def advance(self, updates: int) -> float:
        """Train for so many updates; seconds spent waiting for data."""
        ...


def take_turns(
    contestants: Mapping[str, Contestant],
    rounds: int,
    updates: int,
    wait: Callable[[], object],
    after: Callable[[int, Mapping[str, Turn]], None] = lambda number, done: None,
) -> dict[str, list[Turn]]:
    """Let each train in turn, `rounds` times; per name one `Turn` per round.

    One update before each turn is not timed: it finds the caches as the others left them, and DataLoader
    workers that still fill their queues. `wait` returns when the device has nothing left to do.
    """
    found: dict[str, list[Turn]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, contestant in contestants.items():
            contestant.advance(1)
            wait()
            begun = time.perf_counter()
            waited = contestant.advance(updates)
            wait()
            found[name].append(Turn(time.perf_counter() - begun, waited))
        after(number, {name: turns[-1] for name, turns in found.items()})
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """One number per round, as the result tells them."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}
