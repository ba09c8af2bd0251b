"""Status for the terminal: a table of all runs, and the story of one."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slurm.attempts import Attempt, Record
from slurm.runfolder import tail
from slurm.status import STATES, Status, statuses
from slurm.sweep import Sweep, described

COLOURS = {"running": "green", "finished": "bold green", "failed": "red", "killed": "red", "lost": "red"}
WIDE = 200  # columns of a table that goes into a file


def status_table(sweep: Sweep, found: Sequence[Status]) -> Table:
    """One row per run, and how many are in which state."""
    counts = {state: sum(status.state == state for status in found) for state in STATES}
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    table = Table(title=f"sweep {sweep.name}: {told}", title_justify="left", box=None, pad_edge=False)
    for name in ("run", "values", "state", "progress", "images/s", "L_I", "left", "log"):
        table.add_column(name, overflow="fold", justify="right" if name in ("progress", "images/s", "left") else "left")
    for status in found:
        colour = COLOURS.get(status.state)
        state = status.state + (f": {status.message}" if status.message else "")
        table.add_row(
            status.id,
            described(status.values),
            f"[{colour}]{_escaped(state)}[/]" if colour else _escaped(state),
            f"{status.progress:.0%}" if status.progress is not None else "",
            f"{status.images_per_s:,.0f}" if status.images_per_s else "",
            " ".join(f"{name} {value:.2f}" for name, value in status.mi.items()),
            duration(status.seconds_left) if status.seconds_left is not None else "",
            _relative(status.log),
        )
    return table


def show(table: Table) -> None:
    """Print a table; into a file, at full width."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def why(sweep: Sweep, name: str, lines: int) -> str:
    """The cause of a run's state in a line, its attempts, and the end of its log."""
    run = sweep.find(name)
    (status,) = [status for status in statuses(sweep) if status.id == run.id]
    meaning = status.message or STATES[status.state]
    told = [f"run {run.id} ({described(run.values)}): {status.state}: {meaning}"]
    told += [_attempt(attempt) for attempt in Record(sweep.folder, run.id).attempts()]
    told += [f"folder {_relative(str(sweep.run_folder(run)))}, config {_relative(str(sweep.config_file(run)))}"]
    if status.log is not None:
        told += [f"the end of {_relative(status.log)}:"]
        told += [f"  {line}" for line in tail(Path(status.log), lines)]
    return "\n".join(told)


def _attempt(attempt: Attempt) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.began))
    again = f" (restart {attempt.restart})" if attempt.restart else ""
    if attempt.ended is None:
        return f"job {attempt.job}{again}: began {began} at {attempt.images / 1000:g} kimg; nobody recorded its end"
    put_back = ", put back into the queue" if attempt.requeued else ""
    message = f": {attempt.message}" if attempt.message else ""
    return (
        f"job {attempt.job}{again}: began {began} at {attempt.images / 1000:g} kimg, {attempt.outcome} after "
        f"{duration(attempt.ended - attempt.began)} at {(attempt.images_after or 0) / 1000:g} kimg{put_back}{message}"
    )


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min`, `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _relative(path: str | None) -> str:
    if path is None:
        return ""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
