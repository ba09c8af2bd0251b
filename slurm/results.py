"""What `infogan sweep collect` finds: runs with their numbers, groups of runs that differ in their seed, the table."""

from dataclasses import dataclass, field

from slurm.attempts import Attempt
from slurm.hours import DEVICES, Hours, device_of
from slurm.ranking import LOG
from slurm.status import Status
from slurm.sweep import Run, Sweep

SHOWN = 6  # columns of numbers in the tables for people; the CSV has all


@dataclass(frozen=True)
class Collected:
    """One run: how it stands, its numbers, its hours by device, and the code that it ran."""

    run: Run
    status: Status
    metrics: dict[str, float]
    hours: dict[str, Hours]
    code: str
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """A number over the seeds of a group; `std` with n - 1, None for a single run."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + (f" ± {self.std:.2g}" if self.std is not None else "") + f" ({self.n})"


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only; `metrics` over those that are trained, with a report or not yet."""

    name: str
    runs: tuple[Collected, ...]
    metrics: dict[str, Spread]


@dataclass
class Table:
    """A whole sweep, its groups in the order of `metric`, the best one first.

    `unranked`: why there is none; `dropped`: runs that were trained for an earlier state of the sweep's file.
    """

    sweep: Sweep
    metric: str
    better: str
    groups: list[Group]
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    unranked: str = ""
    dropped: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Collected]:
        return [run for group in self.groups for run in group.runs]

    @property
    def devices(self) -> list[str]:
        """Those that some attempt had: GPUs, CPUs without any, or both; CPUs where nothing was attempted."""
        had = {device_of(attempt) for run in self.runs for attempt in run.attempts}
        return [device for device in DEVICES if device in had] or ["CPU"]

    def hours(self, device: str) -> Hours:
        return sum((run.hours[device] for run in self.runs), Hours())

    @property
    def best(self) -> Collected | None:
        """The trained run with the best number."""
        scored = [run for run in self.runs if run.status.trained and self.metric in run.metrics]
        pick = max if self.better == "higher" else min
        return pick(scored, key=lambda run: run.metrics[self.metric], default=None)

    def columns(self) -> list[str]:
        """The numbers worth a column: the metric that ranks, then those of reports, then those of logs."""
        names = list(dict.fromkeys(name for run in self.runs for name in run.metrics))
        told = [name for name in names if not name.startswith(LOG)]
        told = told or [name for name in names if name.startswith(f"{LOG}mi/") and name.count("/") == 2]
        return [name for name in dict.fromkeys([self.metric, *told]) if name][:SHOWN]
