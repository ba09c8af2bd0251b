"""`infogan sweep ...` and `infogan prepare`."""

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.plugin_option import plugin_option

if TYPE_CHECKING:
    from slurm.cluster import Cluster
    from slurm.sending import Code
    from slurm.submissions import Turn
    from slurm.sweep import Run, Sweep

EVERY_S = 30.0

out_option = click.option("--out", type=click.Path(path_type=Path), help="The sweep's folder.  [default: sweeps/NAME]")
cluster_option = click.option(
    "--cluster",
    metavar="NAME_OR_FILE",
    help="Where to run: one of configs/clusters/, or a file; local is this machine.",
)


def _time(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    from slurm.cluster import minutes

    try:
        if value is not None:
            minutes(value)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("time: ")) from None
    return value


sweep_argument = click.argument("sweep", type=click.Path(path_type=Path))


@click.group("sweep", short_help="Many runs from one file, on a SLURM cluster or here.")
def sweep_group() -> None:
    """Many runs from one file, on a SLURM cluster or on this machine.

    SPEC is a sweep file (see configs/sweeps/), SWEEP such a file or the sweep's folder.
    """


@sweep_group.command("submit")
@click.argument("spec", type=click.Path(path_type=Path))
@cluster_option
@out_option
@click.option("--time", callback=_time, help="Of each run, instead of what the files say: SLURM's 90 or 4:00:00.")
@click.option("--parallel", type=click.IntRange(min=1), help="Runs at once, instead of the cluster file's.")
@click.option("--partition", help="Instead of the cluster file's.")
@click.option(
    "--rerun", multiple=True, metavar="RUN_OR_STATE",
    help="Also send runs that have ended: an id, or cancelled, hopeless.",
)  # fmt: skip
@click.option(
    "--code", type=click.Choice(["new", "kept"]),
    help="Where the code has changed: go on with the code as it is, or with that which each run was sent with.",
)  # fmt: skip
@plugin_option
@click.option("--dry-run", is_flag=True, help="Show the runs and the batch script, and send nothing.")
def submit_command(
    spec: Path,
    cluster: str | None,
    out: Path | None,
    time: str | None,
    parallel: int | None,
    partition: str | None,
    rerun: tuple[str, ...],
    code: str | None,
    dry_run: bool,
) -> None:
    """Send every run of SPEC that is missing or failed; again, and nothing is sent twice.

    Runs that were cancelled, or ended by stop_if, stay so unless --rerun names them; those then go on without stop_if.
    """
    from slurm import checks, expand, sending, submissions
    from slurm import spec as specs
    from slurm import sweep as sweeps

    wanted = specs.load(spec).lasting(time)
    where = _cluster(cluster or wanted.cluster, spec).but(time=time, parallel=parallel, partition=partition)
    runs = expand.expand(wanted)
    checks.check(wanted, where, runs)
    sweep = expand.sweep_of(wanted, sweeps.folder_of(wanted, out), runs)
    if dry_run:
        chosen = _to_send(sweep, rerun)
        configs = {run.id: config for run, config in runs}
        click.echo("\n".join(sending.show(sweep, chosen, configs, where, kept=code == "kept")))
        return
    with submissions.turn(sweep.folder) as turn:
        _tell_of(turn, sweep)
        chosen = _to_send(sweep, rerun)
        for line in sending.why_not(sweep, rerun, chosen):
            click.echo(line)
        code_of = sending.code_of(sweep, chosen, code) if chosen else {}
        expand.write(sweep, runs)
        if not chosen:
            click.echo(f"sweep {sweep.name}: nothing to submit; infogan sweep status {sweep.folder} tells more")
            return
        _deliver(sweep, chosen, where, code_of, turn, train=True)


def _deliver(sweep: "Sweep", runs: "list[Run]", where: "Cluster", code: "Code", turn: "Turn", *, train: bool) -> None:
    """Run the runs here, or send them."""
    from slurm import sending

    def say(line: str) -> None:
        click.echo(line, err=where.kind == "local")

    if not sending.deliver(sweep, runs, where, code, say, turn, train=train):
        sys.exit(1)
    if where.kind == "slurm":
        click.echo(f"sweep {sweep.name}: {len(runs)} runs sent; infogan sweep status {sweep.folder} --watch")


def _tell_of(turn: "Turn", sweep: "Sweep") -> None:
    if turn.cut_off:
        from slurm.submit import job_name

        click.echo(
            f"sweep {sweep.name}: {turn.cut_off} was killed while it submitted: jobs of it may be in the queue that "
            f"are not known here; squeue --me --name {job_name(sweep)} lists them all"
        )


def _cluster(name: str | None, spec: Path) -> "Cluster":
    from slurm import cluster as clusters

    if name is None:
        raise click.UsageError(
            f"say where to run: --cluster NAME_OR_FILE, or cluster: in {spec}; local is this machine"
        )
    return clusters.load(name)


def _to_send(sweep: "Sweep", rerun: tuple[str, ...]) -> "list[Run]":
    """The runs that are missing or failed, and those asked for; says which stay as they are."""
    from slurm import status
    from slurm.states import LIVE, SETTLED, STATES

    status.refuse_beside_local(sweep)
    named = {sweep.find(word).id for word in rerun if word not in STATES}
    found = status.certain(sweep, "nothing was sent")
    sending = [
        s.id
        for s in found.runs
        if s.state not in LIVE and (s.state not in SETTLED or s.id in named or s.state in rerun)
    ]
    for state in ("cancelled", "hopeless"):
        left = [s.id for s in found.runs if s.state == state and s.id not in sending]
        if left:
            click.echo(
                f"{len(left)} runs are {state} and stay so ({', '.join(left)}); --rerun {state} sends them again"
            )
    if found.strangers:
        click.echo(
            f"{len(found.strangers)} runs are no part of the sweep any more and live on "
            f"({', '.join(found.strangers)}): infogan sweep cancel {sweep.folder} {' '.join(found.strangers)} ends them"
        )
    return [run for run in sweep.runs if run.id in sending]


def _open(path: Path) -> "Sweep":
    """A sweep by its folder, or by its file."""
    from slurm import spec as specs
    from slurm import sweep as sweeps

    return sweeps.read(path if path.is_dir() else sweeps.folder_of(specs.load(path), None))


@sweep_group.command("status")
@sweep_argument
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only runs in this state; may be given again.")
@click.option("--watch", is_flag=True, help="Show it anew until all runs have ended.")
@click.option("--wait", is_flag=True, help="Return when all runs have ended, with an error unless all went well.")
@click.option(
    "--every", type=click.FloatRange(min=1), default=EVERY_S, show_default=True, metavar="SECONDS",
    help="How often --watch and --wait look.",
)  # fmt: skip
def status_command(sweep: Path, as_json: bool, states: tuple[str, ...], watch: bool, wait: bool, every: float) -> None:
    """State, progress, speed, last L_I, time left and log of every run."""
    from slurm import status, table
    from slurm.states import LIVE, SETTLED, STATES

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
    if wait and any(run.state not in SETTLED for run in found.runs):
        sys.exit(1)


@sweep_group.command("why")
@sweep_argument
@click.argument("run")
@click.option("--lines", type=click.IntRange(min=1), default=60, show_default=True, help="Of its log.")
def why_command(sweep: Path, run: str, lines: int) -> None:
    """Why RUN is in the state that it is in: one line, where its log is, its attempts, and the end of its log."""
    from slurm import table

    click.echo(table.why(_open(sweep), run, lines))


@sweep_group.command("cancel")
@sweep_argument
@click.argument("runs", nargs=-1)
def cancel_command(sweep: Path, runs: tuple[str, ...]) -> None:
    """End RUNS, or all, whether they wait or run, train or are evaluated; what they have learned stays.

    All: those too that were sent for an earlier state of the sweep's file.
    """
    from shards.errors import UserError
    from slurm import scheduler, status
    from slurm.states import LIVE

    opened = _open(sweep)
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


@sweep_group.command("collect")
@sweep_argument
@click.option("--by", metavar="METRIC", help="Rank by this metric instead of the sweep file's `best`.")
@click.option("--better", type=click.Choice(["higher", "lower"]), help="With --by, where its name does not tell.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the table.  [default: SWEEP/table]")
def collect_command(sweep: Path, by: str | None, better: str | None, out: Path | None) -> None:
    """Every run's numbers, mean and spread over seeds, the best, curves side by side: CSV, Markdown and HTML."""
    from slurm import collect

    opened = _open(sweep)
    best = {"metric": by, "better": better} if by else opened.best
    click.echo(collect.write(collect.gather(opened, best), out or opened.folder / "table"))


@sweep_group.command("evaluate")
@click.argument("spec", type=click.Path(path_type=Path))
@cluster_option
@out_option
def evaluate_command(spec: Path, cluster: str | None, out: Path | None) -> None:
    """Evaluate, as jobs of their own, the trained runs without the report that SPEC asks for."""
    from slurm import snapshot, status, submissions
    from slurm import spec as specs
    from slurm import sweep as sweeps
    from slurm.states import LIVE

    wanted = specs.load(spec)
    where = _cluster(cluster or wanted.cluster, spec)
    sweep = replace(sweeps.read(sweeps.folder_of(wanted, out)), evaluate=wanted.evaluate)
    with submissions.turn(sweep.folder) as turn:
        found = status.certain(sweep, "nothing was sent").runs
        missing = {s.id for s in found if s.trained and not s.reported and s.state not in LIVE}
        runs = [replace(run, shape=replace(run.shape, nodes=1, processes=1)) for run in sweep.runs if run.id in missing]
        if runs:
            sweeps.save(sweep)
            code = dict.fromkeys((run.id for run in runs), snapshot.take(sweep.folder))
            _deliver(sweep, runs, where, code, turn, train=False)
            return
    at_it = sum(s.state == "evaluating" for s in found)
    being = f"; {at_it} are being evaluated" if at_it else ""
    click.echo(f"sweep {sweep.name}: no finished run is without a report{being}")


@click.command(
    "prepare", short_help="Make what a sweep's runs need, once, before they go to machines without internet."
)
@click.argument("spec", type=click.Path(path_type=Path))
@cluster_option
@click.option("--inception", is_flag=True, help="Also fetch the Inception weights, for FID, KID and IS.")
@plugin_option
def prepare_command(spec: Path, cluster: str | None, inception: bool) -> None:
    """On the login node: build or verify the data of SPEC's runs, and make what their evaluation needs."""
    from slurm import expand, prepare
    from slurm import spec as specs

    wanted = specs.load(spec)
    name = cluster or wanted.cluster
    offline = name is None or _cluster(name, spec).offline
    configs = [config for _, config in expand.expand(wanted)]
    prepare.prepare(wanted, configs, click.echo, offline=offline, inception=inception)
