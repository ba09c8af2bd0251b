"""A sweep as a table: every run's numbers, mean and standard deviation over seeds, the best, hours spent and wasted.

Numbers of a run's report bear their own names; those of the last row of its log stand behind `log/`. Runs that differ
in their seed only are a group. Hours are those of all attempts, times GPUs, or CPUs where there are none; wasted are
those after the last checkpoint of an attempt that did not end by reaching the run's stop. Reports whose numbers do not
mean the same, by their data or by their extractor, have no common mean.
"""

import csv
import io
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infogan import lease
from infogan.evaluation.metrics import comparable
from shards import atomic
from shards.errors import UserError
from slurm.attempts import Attempt, Record
from slurm.runfolder import damage, last_row, newest_checkpoint, report_of, rows
from slurm.states import BAD, SETTLED
from slurm.status import Status, look
from slurm.submissions import newest
from slurm.sweep import Run, Sweep, described

LOG = "log/"
LOWER = ("frechet", "fid", "kernel", "kid", "loss")
HIGHER = ("accuracy", "nmi", "ari", "ami", "mi", "spearman", "is", "score")
"""Which end of a metric is the good one, by how its name begins."""
SHOWN = 6  # columns of numbers in the tables for people; the CSV has all


@dataclass(frozen=True)
class Hours:
    """Device hours of a run: spent, and lost with what was not saved."""

    spent: float = 0.0
    wasted: float = 0.0

    def __add__(self, other: "Hours") -> "Hours":
        return Hours(self.spent + other.spent, self.wasted + other.wasted)


@dataclass(frozen=True)
class Collected:
    """One run: how it stands, its numbers, its hours, and the code that it ran."""

    run: Run
    status: Status
    metrics: dict[str, float]
    hours: Hours
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
    """Runs that differ in their seed only; `metrics` over those that have finished."""

    name: str
    runs: tuple[Collected, ...]
    metrics: dict[str, Spread]


@dataclass
class Table:
    """A whole sweep, its groups in the order of `metric`, the best one first; no run may have the `wanted` one yet."""

    sweep: Sweep
    metric: str
    better: str
    groups: list[Group]
    device: str
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    wanted: str = ""

    @property
    def runs(self) -> list[Collected]:
        return [run for group in self.groups for run in group.runs]

    @property
    def hours(self) -> Hours:
        return sum((run.hours for run in self.runs), Hours())

    @property
    def best(self) -> Collected | None:
        """The finished run with the best number."""
        scored = [run for run in self.runs if run.status.state == "finished" and self.metric in run.metrics]
        pick = max if self.better == "higher" else min
        return pick(scored, key=lambda run: run.metrics[self.metric], default=None)

    def columns(self) -> list[str]:
        """The numbers worth a column: the metric that ranks, then those of reports, then those of logs."""
        names = list(dict.fromkeys(name for run in self.runs for name in run.metrics))
        told = [name for name in names if not name.startswith(LOG)]
        told = told or [name for name in names if name.startswith(f"{LOG}mi/") and name.count("/") == 2]
        return [name for name in dict.fromkeys([self.metric, *told]) if name][:SHOWN]


def gather(sweep: Sweep, best: Mapping[str, str | None] | None) -> Table:
    """Read all runs of a sweep. `best`: a `metric`, and which end of it is `better` where its name does not tell.

    Raises UserError where no run has that metric although all have ended, or where nothing says what is better.
    """
    sent = newest(sweep.folder)
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    collected = [
        _collected(sweep, run, status, sent.code.get(run.id, ""), alike[run.group])
        for run, status in zip(sweep.runs, look(sweep).runs, strict=True)
    ]
    metric, better = _ranking(collected, best)
    groups = [
        _group(name, [c for c in collected if c.run.group == name])
        for name in dict.fromkeys(r.group for r in sweep.runs)
    ]
    ranked = [group for group in groups if metric in group.metrics]
    ranked.sort(key=lambda group: group.metrics[metric].mean, reverse=better == "higher")
    groups = ranked + [group for group in groups if metric not in group.metrics]
    gpus = any(attempt.gpus for run in collected for attempt in run.attempts)
    wanted = str(best["metric"]) if best is not None else ""
    return Table(sweep, metric, better, groups, "GPU" if gpus else "CPU", _curves(sweep, groups), wanted)


def _collected(sweep: Sweep, run: Run, status: Status, code: str, alike: list[dict[str, Any]]) -> Collected:
    """One run; `alike`: the reports of its group so far. One that cannot be compared with these is left out."""
    folder = sweep.run_folder(run)
    attempts = Record(sweep.folder, run.id).attempts()
    hours = sum((hours_of(*pair) for pair in _with_ends(sweep, run, attempts)), Hours())
    found = [f"{what}: it counts as absent" for what in damage(folder)]
    report = report_of(folder, sweep.evaluate)
    metrics: dict[str, float] = {}
    if report is not None:
        try:
            comparable([*alike, report])
            alike.append(report)
            metrics = {metric["name"]: float(metric["value"]) for metric in report["metrics"]}
        except UserError as error:
            found.append(f"its report is left out: {error}")
    return Collected(run, status, metrics | logged(folder), hours, code, tuple(attempts), tuple(found))


def logged(folder: Path) -> dict[str, float]:
    """The numbers of the last rows of a run's log."""
    last = {**_validation(folder), **last_row(folder, "loss/critic")}
    return {
        f"{LOG}{name}": value
        for name, value in last.items()
        if isinstance(value, float) and not name.startswith("time/") and name != "kimg"
    }


def _validation(folder: Path) -> dict[str, Any]:
    scored = [row for row in rows(folder) if any(name.startswith("validation/") for name in row)]
    return {name: value for name, value in scored[-1].items() if name.startswith("validation/")} if scored else {}


def _ranking(collected: Sequence[Collected], best: Mapping[str, str | None] | None) -> tuple[str, str]:
    """The metric that ranks and its better side: as told, else accuracy, else the first code's L_I. Empty where no run
    has it yet."""
    names = list(dict.fromkeys(name for run in collected for name in run.metrics))
    if best is not None:
        metric = str(best["metric"])
        found = next((name for name in (metric, f"{LOG}{metric}") if name in names), "")
        ended = all(run.status.state in (*SETTLED, *BAD) for run in collected)
        if not found and ended:
            raise UserError(f"metric {metric!r}: no run has it; there are {', '.join(names) or 'none'}")
        return found, best.get("better") or better_of(metric)
    for stem in ("accuracy_", f"{LOG}validation/accuracy/", "mi/", f"{LOG}mi/"):
        for name in names:
            if name.startswith(stem):
                return name, "higher"
    return "", "higher"


def better_of(metric: str) -> str:
    """`higher` or `lower`, by a metric's name; UserError where that does not tell."""
    stem = re.match(r"[a-z]*", metric.removeprefix(LOG).removeprefix("validation/"))
    for better, stems in (("lower", LOWER), ("higher", HIGHER)):
        if stem is not None and stem[0] in stems:
            return better
    raise UserError(f"metric {metric!r}: its name does not say which end is better: say --better higher or lower")


def _group(name: str, runs: list[Collected]) -> Group:
    finished = [run for run in runs if run.status.state == "finished"]
    metrics = {}
    for metric in dict.fromkeys(name for run in finished for name in run.metrics):
        values = [run.metrics[metric] for run in finished if metric in run.metrics]
        std = statistics.stdev(values) if len(values) > 1 else None
        metrics[metric] = Spread(statistics.fmean(values), std, len(values))
    return Group(name, tuple(runs), metrics)


def _with_ends(sweep: Sweep, run: Run, attempts: Sequence[Attempt]) -> list[tuple[Attempt, float, float]]:
    """Each attempt with its end and the time of the last checkpoint then. One that was killed ended with its last sign
    of life, which the next attempt found, or which still stands."""
    found = []
    heart = lease.read(sweep.run_folder(run))
    now = (newest_checkpoint(sweep.run_folder(run))[1], float(heart.facts["time"]) if heart is not None else 0.0)
    for number, attempt in enumerate(attempts):
        following = attempts[number + 1] if number + 1 < len(attempts) else None
        saved, sign = (following.checkpoint_time, following.last_sign) if following is not None else now
        end = attempt.ended if attempt.ended is not None else max(attempt.began, saved, sign)
        found.append((attempt, end, saved))
    return found


def hours_of(attempt: Attempt, end: float, saved: float) -> Hours:
    """Device hours of one attempt; `saved`: when the newest checkpoint was written that was left after it."""
    devices = attempt.gpus or attempt.cpus
    lost = 0.0 if attempt.outcome == "finished" else end - min(max(attempt.began, saved), end)
    return Hours(devices * (end - attempt.began) / 3600, devices * lost / 3600)


def _curves(sweep: Sweep, groups: Sequence[Group]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Per logged quantity and group, its mean over seeds where all of them have a row."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for group in groups:
        logs = [{row["kimg"]: row for row in rows(sweep.run_folder(c.run)) if "loss/critic" in row} for c in group.runs]
        logs = [log for log in logs if log]
        if not logs:
            continue
        common = sorted(set.intersection(*(set(log) for log in logs)))
        names = [
            n
            for n in next(iter(logs[0].values()))
            if n.startswith("loss/") or (n.startswith("mi/") and n.count("/") == 1)
        ]
        for name in names:
            points: list[tuple[float, list[Any]]] = [(kimg, [log[kimg].get(name) for log in logs]) for kimg in common]
            whole = [(kimg, statistics.fmean(values)) for kimg, values in points if all(v is not None for v in values)]
            curves.setdefault(name, {})[group.name] = whole
    return curves


def write(table: Table, folder: Path) -> str:
    """Write `sweep.csv`, `sweep.md` and `sweep.html`; the Markdown is returned for the terminal."""
    from slurm.page import render

    text = markdown(table)
    atomic.write_text(folder / "sweep.csv", as_csv(table))
    atomic.write_text(folder / "sweep.md", text)
    atomic.write_text(folder / "sweep.html", render(table))
    return text


def as_csv(table: Table) -> str:
    """One row per run: what varies, how it stands, hours, and every number."""
    keys = list(dict.fromkeys(key for run in table.runs for key in run.run.values))
    metrics = list(dict.fromkeys(name for run in table.runs for name in run.metrics))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    hours = [f"{table.device}_hours", f"{table.device}_hours_wasted"]
    writer.writerow(["run", *keys, "state", "kimg", "attempts", "code", *hours, *metrics])
    for c in table.runs:
        values = [c.run.values.get(key, "") for key in keys]
        numbers = [c.metrics.get(name, "") for name in metrics]
        spent = [f"{c.hours.spent:.6f}", f"{c.hours.wasted:.6f}"]
        writer.writerow(
            [c.run.id, *values, c.status.state, c.status.images / 1000, len(c.attempts), c.code, *spent, *numbers]
        )
    return buffer.getvalue()


def markdown(table: Table) -> str:
    """The groups with mean ± standard deviation (n seeds), for pasting."""
    columns = table.columns()
    lines = [f"### Sweep {table.sweep.name}", "", headline(table), ""]
    lines += [f"| values | finished | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for group in table.groups:
        done = sum(run.status.state == "finished" for run in group.runs)
        cells = [str(group.metrics[name]) if name in group.metrics else "" for name in columns]
        lines.append(f"| {group.name} | {done} of {len(group.runs)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *notes(table), ""])


def headline(table: Table) -> str:
    """The best run and what all of it cost, in a sentence or two."""
    told = ""
    if table.best is not None:
        value = table.best.metrics[table.metric]
        values = described(table.best.run.values)
        told = f"Best by {table.metric} ({table.better}): run {table.best.run.id}, {values}, {value:.4g}. "
    hours = table.hours
    return f"{told}{hours.spent:.3g} {table.device}-hours, {hours.wasted:.3g} of them wasted."


def notes(table: Table) -> list[str]:
    """What a reader of the table has to know."""
    found = ["Mean ± standard deviation over seeds (number of finished runs)."]
    codes = sorted({run.code for run in table.runs if run.code})
    if len(codes) > 1:
        found.append(f"The runs were made by {len(codes)} states of the code ({', '.join(codes)}).")
    unfinished = [run for run in table.runs if run.status.state != "finished"]
    if unfinished:
        found.append("Not finished: " + ", ".join(f"{run.run.id} ({run.status.state})" for run in unfinished) + ".")
    found += [f"Run {run.run.id}: {note}." for run in table.runs for note in run.notes]
    if table.wanted and not table.metric:
        found.append(f"No run has {table.wanted} yet: there is no rank.")
    found.append(f"Made {time.strftime('%Y-%m-%d %H:%M')}.")
    return found
