"""A sweep as a table: every run's numbers, mean and standard deviation over seeds, the best, hours spent and wasted.

Numbers of a run's report bear their own names; those of the last row of its log stand behind `log/`. Runs that differ
in their seed only are a group. Hours are as `slurm.hours` has them. Reports whose numbers do not mean the same, by
their data or by their extractor, have no common mean.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infogan.evaluation.metrics import comparable
from shards import atomic
from shards.errors import UserError
from slurm import hours
from slurm.attempts import Record
from slurm.metric_names import is_place
from slurm.ranking import LOG, ranking
from slurm.records import number
from slurm.results import Collected, Group, Spread, Table
from slurm.runfolder import damage, last_row, report_of, rows
from slurm.states import BAD, SETTLED
from slurm.status import Status, look
from slurm.submissions import newest
from slurm.summary import as_csv, markdown
from slurm.sweep import Run, Sweep


def gather(sweep: Sweep, best: Mapping[str, str | None] | None) -> Table:
    """Read all runs of a sweep. `best`: a `metric` to rank by instead of the sweep's own, and which end of it is
    `better` where its name does not tell.

    Raises UserError where no run has that metric although all have ended, or where nothing says what is better. Of the
    sweep's own that is noted in the table.
    """
    sent = newest(sweep.folder)
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    collected = [
        _collected(sweep, run, status, sent.code.get(run.id, ""), alike[run.group])
        for run, status in zip(sweep.runs, look(sweep).runs, strict=True)
    ]
    names = list(dict.fromkeys(name for run in collected for name in run.metrics))
    ended = all(run.status.state in (*SETTLED, *BAD) for run in collected)
    metric, better, unranked = _ranking(sweep, names, best, ended=ended)
    groups = [
        _group([c for c in collected if c.run.group == group]) for group in dict.fromkeys(r.group for r in sweep.runs)
    ]
    ranked = [group for group in groups if metric in group.metrics]
    ranked.sort(key=lambda group: group.metrics[metric].mean, reverse=better == "higher")
    groups = ranked + [group for group in groups if metric not in group.metrics]
    dropped = sorted(sent.jobs.keys() - {run.id for run in sweep.runs})
    return Table(sweep, metric, better, groups, _curves(sweep, groups), unranked, dropped)


def _ranking(
    sweep: Sweep, names: Sequence[str], best: Mapping[str, str | None] | None, *, ended: bool
) -> tuple[str, str, str]:
    """What ranks, its better side, and why nothing does; empty where something does, or where nothing was asked for."""
    wanted = best or sweep.best
    try:
        metric, better = ranking(names, wanted, ended=ended)
    except UserError as error:
        if best is not None:
            raise
        return "", "higher", f"Nothing is ranked: {error}"
    return metric, better, "" if metric or wanted is None else f"No run has {wanted['metric']} yet: there is no rank"


def _collected(sweep: Sweep, run: Run, status: Status, code: str, alike: list[dict[str, Any]]) -> Collected:
    """One run; `alike`: the reports of its group so far. One that cannot be compared with these is left out."""
    folder = sweep.run_folder(run)
    attempts = Record(sweep.folder, run.id).attempts()
    found = [f"{what}: it counts as absent" for what in damage(folder)]
    report = report_of(folder, sweep.evaluate)
    metrics: dict[str, float] = {}
    if report is not None:
        try:
            comparable([*alike, report])
            alike.append(report)
            metrics = {
                metric["name"]: float(metric["value"]) for metric in report["metrics"] if number(metric["value"])
            }
        except UserError as error:
            found.append(f"its report is left out: {error}")
    return Collected(
        run, status, metrics | logged_last(folder), hours.spent(folder, attempts), code, tuple(attempts), tuple(found)
    )


def logged_last(folder: Path) -> dict[str, float]:
    """The numbers of the last rows of a run's log."""
    last = {**_validation(folder), **last_row(folder, "loss/critic")}
    return {f"{LOG}{name}": value for name, value in last.items() if number(value) and not is_place(name)}


def _validation(folder: Path) -> dict[str, Any]:
    scored = [row for row in rows(folder) if any(name.startswith("validation/") for name in row)]
    return {name: value for name, value in scored[-1].items() if name.startswith("validation/")} if scored else {}


def _group(runs: list[Collected]) -> Group:
    trained = [run for run in runs if run.status.trained]
    metrics = {}
    for metric in dict.fromkeys(name for run in trained for name in run.metrics):
        values = [run.metrics[metric] for run in trained if metric in run.metrics]
        std = statistics.stdev(values) if len(values) > 1 else None
        metrics[metric] = Spread(statistics.fmean(values), std, len(values))
    return Group(runs[0].run.group_name, tuple(runs), metrics)


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
            whole = [(kimg, statistics.fmean(values)) for kimg, values in points if all(map(number, values))]
            curves.setdefault(name, {})[group.name] = whole
    return curves


def write(table: Table, folder: Path) -> str:
    """Write `sweep.csv`, `sweep.md` and `sweep.html`; the Markdown is returned for the terminal, and where the page is.

    Raises UserError where they cannot be written.
    """
    from slurm.page import render

    text = markdown(table)
    pages = {"sweep.csv": as_csv(table), "sweep.md": text, "sweep.html": render(table)}
    try:
        for name, content in pages.items():
            atomic.write_text(folder / name, content)
    except UserError as error:
        raise UserError(f"{error}; --out FOLDER puts the table elsewhere") from None
    return f"{text}\n{folder / 'sweep.html'}"
