"""The verbs for what was sent: `infogan sweep status`, `why`, `cancel` and `collect`."""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from slurm.sweep import Sweep

EVERY_S = 30.0

sweep_argument = click.argument("sweep", type=click.Path(path_type=Path))


@click.command("status")
@sweep_argument
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only runs in this state; may be given again.")
@click.option("--watch", is_flag=True, help="Show it anew until all runs have ended.")
@click.option("--wait", is_flag=True, help="Return when all runs have ended, with an error unless all have finished.")
@click.option(
    "--every", type=click.FloatRange(min=1), default=EVERY_S, show_default=True, metavar="SECONDS",
    help="How often --watch and --wait look.",
)  # fmt: skip
def status_command(sweep: Path, as_json: bool, states: tuple[str, ...], watch: bool, wait: bool, every: float) -> None:
    """State, progress, speed, last L_I, time left and log of every run."""
    from slurm import status, table
    from slurm.states import LIVE, STATES

    for state in states:
        if state not in STATES:
            raise click.BadParameter(f"{state!r}: there are {', '.join(STATES)}", param_hint="--state")
    opened = _open(sweep)

    with table.screen() if watch else nullcontext() as screen:
        while True:
            found = status.look(opened)
            if screen is not None:
                screen.update(table.status_table(opened, found, states), refresh=True)
            if not (watch or wait) or not any(run.state in LIVE for run in found.runs):
                break
            time.sleep(every)
    if as_json:
        click.echo(json.dumps(status.as_json(opened, found), indent=1))
    elif not watch:
        table.show(table.status_table(opened, found, states))
    if wait and any(run.state != "finished" for run in found.runs):
        sys.exit(1)


@click.command("why")
@sweep_argument
@click.argument("run")
@click.option("--lines", type=click.IntRange(min=1), default=60, show_default=True, help="Of its log.")
def why_command(sweep: Path, run: str, lines: int) -> None:
    """Why RUN is in the state that it is in: one line, where its log is, its attempts, and the end of its log."""
    from slurm import table

    click.echo(table.why(_open(sweep), run, lines))


@click.command("cancel")
@sweep_argument
@click.argument("runs", nargs=-1)
def cancel_command(sweep: Path, runs: tuple[str, ...]) -> None:
    """End RUNS, or all, whether they wait or run, train or are evaluated; what they have learned stays.

    All: those too that were sent for an earlier state of the sweep's file.
    """
    from shards.errors import UserError
    from slurm import scheduler, status, strays, submissions
    from slurm.states import LIVE
    from slurm.submit import jobs_folder

    opened = _open(sweep)
    if strays.cut_off(opened):  # those jobs are to be ended, too
        with submissions.turn(opened.folder):
            for line in strays.claim(opened, jobs_folder(opened), "nothing was cancelled"):
                click.echo(f"sweep {opened.name}: {line}")
    found = status.certain(opened, "nothing was cancelled")
    wanted = {name if name in found.strangers else opened.find(name).id for name in runs}
    ending = {job: run for job, run in found.living.items() if not wanted or run in wanted}
    try:
        scheduler.cancel(list(ending))
    except scheduler.NoAnswer as error:
        raise UserError(
            f"SLURM may not have ended all of it ({error}): infogan sweep status tells what lives"
        ) from None
    if ending:
        status.note_cancelled(opened.folder, list(ending))
    ended = list(dict.fromkeys(ending.values()))
    for s in found.runs:
        if s.state in LIVE and s.id not in ended and (not wanted or s.id in wanted):
            where = s.message or (f"on {s.host}" if s.host else "on this machine")
            click.echo(f"run {s.id} is no job of SLURM's ({where}): Ctrl-C, where it was started, ends it")
    click.echo(f"{len(ended)} runs cancelled{': ' if ended else ''}{', '.join(ended)}")


@click.command("collect")
@sweep_argument
@click.option("--by", metavar="METRIC", help="Rank by this metric instead of the sweep file's `best`.")
@click.option("--better", type=click.Choice(["higher", "lower"]), help="With --by, where its name does not tell.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the table.  [default: SWEEP/table]")
def collect_command(sweep: Path, by: str | None, better: str | None, out: Path | None) -> None:
    """Every run's numbers, mean and spread over seeds, the best, curves side by side: CSV, Markdown and HTML."""
    from slurm import collect

    opened = _open(sweep)
    best = {"metric": by, "better": better} if by else None
    click.echo(collect.write(collect.gather(opened, best), out or opened.folder / "table"))


def _open(path: Path) -> "Sweep":
    """A sweep by its folder, or by its file; says what of its record cannot be read."""
    from slurm import spec as specs
    from slurm import submissions
    from slurm import sweep as sweeps

    sweep = sweeps.read(path if path.is_dir() else sweeps.folder_of(specs.load(path), None))
    for line in submissions.damaged(sweep.folder):
        click.echo(f"warning: {line}", err=True)
    return sweep
