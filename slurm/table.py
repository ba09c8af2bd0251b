"""Status for the terminal: a table of all runs, and the story of one."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slurm.attempts import Attempt, Record
from slurm.runfolder import damage, tail
from slurm.states import STATES
from slurm.status import Look, Status, look
from slurm.sweep import Sweep, described

COLOURS = {"running": "green", "finished": "bold green", "failed": "red", "killed": "red", "lost": "red"}
SILENT_S = 60.0  # of a run that trains: its heart beats every ten
WIDE = 200  # columns of a table that goes into a file


def status_table(sweep: Sweep, found: Look, states: Sequence[str] = ()) -> Group:
    """How many runs are in which state, and one row per run, those that want a look first; of `states` only, if any."""
    counts = {state: sum(status.state == state for status in found.runs) for state in STATES}
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    head = [f"sweep {sweep.name}: {told}", *_unheard(found)]
    table = Table(box=None, pad_edge=False)
    for name in ("run", "values", "state", "progress", "images/s", "L_I", "left", "log"):
        table.add_column(name, overflow="fold", justify="right" if name in ("progress", "images/s", "left") else "left")
    order = list(STATES)
    for status in sorted(found.runs, key=lambda status: order.index(status.state)):
        if not states or status.state in states:
            table.add_row(*_row(status))
    return Group(Text("\n".join(head)), table)


def _unheard(found: Look) -> list[str]:
    return [f"SLURM does not answer ({found.unheard}): told by heartbeats and records alone"] if found.unheard else []


def _row(status: Status) -> list[str]:
    colour = COLOURS.get(status.state)
    silent = status.silent_s is not None and status.silent_s > SILENT_S
    state = status.state + (f", silent for {duration(status.silent_s or 0)}" if silent else "")
    state = _escaped(f"{state}: {status.message}" if status.message else state)
    return [
        status.id,
        _escaped(described(status.values)),
        f"[{colour}]{state}[/]" if colour else state,
        f"{status.progress:.0%}" if status.progress is not None else "",
        f"{status.images_per_s:,.0f}" if status.images_per_s else "",
        " ".join(f"{name} {value:.2f}" for name, value in status.mi.items()),
        duration(status.seconds_left) if status.seconds_left is not None else "",
        _relative(status.log),
    ]


def screen() -> Live:
    """A place of the terminal that shows one table after another."""
    return Live(auto_refresh=False)


def show(table: Group) -> None:
    """Print a table; into a file, at full width."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def why(sweep: Sweep, name: str, lines: int) -> str:
    """The cause of a run's state in a line, its attempts, and the end of its log."""
    run = sweep.find(name)
    found = look(sweep)
    (status,) = [status for status in found.runs if status.id == run.id]
    meaning = status.message or STATES[status.state]
    told = [f"run {run.id} ({described(run.values)}): {status.state}: {meaning}"]
    told += _unheard(found)
    told += [f"log {_relative(status.log)}"] if status.log is not None else []
    told += [f"folder {_relative(str(sweep.run_folder(run)))}, config {_relative(str(sweep.config_file(run)))}"]
    told += [f"{what}: it counts as absent" for what in damage(sweep.run_folder(run))]
    told += [_attempt(attempt) for attempt in Record(sweep.folder, run.id).attempts()]
    if status.log is not None:
        told += ["the end of the log:", *(f"  {line}" for line in tail(Path(status.log), lines))]
    return "\n".join(told)


def _attempt(attempt: Attempt) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.began))
    again = f" (restart {attempt.restart})" if attempt.restart else ""
    again += ", evaluating" if attempt.kind == "evaluate" else ""
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
