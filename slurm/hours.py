"""Device hours of a run: of its attempts that had GPUs, times these, and apart from them of those that had none, times
CPUs. Wasted are those after the last checkpoint of an attempt that did not end by reaching the run's stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm.attempts import Attempt
from slurm.runfolder import heartbeat, newest_checkpoint


@dataclass(frozen=True)
class Hours:
    """Device hours of a run: spent, and lost with what was not saved."""

    spent: float = 0.0
    wasted: float = 0.0

    def __add__(self, other: "Hours") -> "Hours":
        return Hours(self.spent + other.spent, self.wasted + other.wasted)


DEVICES = ("GPU", "CPU")


def spent(folder: Path, attempts: Sequence[Attempt]) -> dict[str, Hours]:
    """The hours of a run by device, by its folder and its attempts."""
    found = dict.fromkeys(DEVICES, Hours())
    for attempt, end, saved in _with_ends(folder, attempts):
        found[device_of(attempt)] += hours_of(attempt, end, saved)
    return found


def device_of(attempt: Attempt) -> str:
    """Of which device an attempt's hours are."""
    return "GPU" if attempt.gpus else "CPU"


def hours_of(attempt: Attempt, end: float, saved: float) -> Hours:
    """Device hours of one attempt; `saved`: when the newest checkpoint was written that was left after it."""
    devices = float(attempt.gpus or attempt.cpus)
    lost = 0.0 if attempt.outcome == "finished" else end - min(max(attempt.began, saved), end)
    return Hours(devices * (end - attempt.began) / 3600, devices * lost / 3600)


def _with_ends(folder: Path, attempts: Sequence[Attempt]) -> list[tuple[Attempt, float, float]]:
    """Each attempt with its end and the time of the last checkpoint then. One that was killed ended with its last sign
    of life, which the next attempt found, or which still stands."""
    found = []
    heart = heartbeat(folder)
    now = (newest_checkpoint(folder)[1], float(heart.facts["time"]) if heart is not None else 0.0)
    for number, attempt in enumerate(attempts):
        following = attempts[number + 1] if number + 1 < len(attempts) else None
        saved, sign = (following.checkpoint_time, following.last_sign) if following is not None else now
        end = attempt.ended if attempt.ended is not None else max(attempt.began, saved, sign)
        found.append((attempt, end, saved))
    return found
