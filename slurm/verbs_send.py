"""The verbs that send: `infogan sweep submit` and `evaluate`, and `infogan prepare` before them."""

import sys
from collections.abc import Callable
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


def _sending(command: Callable[..., None]) -> Callable[..., None]:
    """What verbs that send take: a sweep file, where to send it, and what holds instead of the cluster file's."""
    options = (
        click.argument("spec", type=click.Path(path_type=Path)),
        cluster_option,
        click.option("--out", type=click.Path(path_type=Path), help="The sweep's folder.  [default: sweeps/NAME]"),
        click.option(
            "--time", callback=_time, help="Of each run, instead of what the files say: SLURM's 90 or 4:00:00."
        ),
        click.option("--parallel", type=click.IntRange(min=1), help="Runs at once, instead of the cluster file's."),
        click.option("--partition", help="Instead of the cluster file's."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _rerun(context: click.Context, option: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    from slurm.states import LIVE

    for word in words:
        if word in LIVE:
            raise click.BadParameter(f"{word}: such runs are under way, and no run is sent twice; cancel ends them")
    return words


@click.command("submit")
@_sending
@click.option(
    "--rerun", multiple=True, metavar="RUN_OR_STATE", callback=_rerun,
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
    from slurm import checks, expand, sending, status, submissions
    from slurm import spec as specs
    from slurm import sweep as sweeps

    wanted = specs.load(spec).lasting(time)
    where = _cluster(cluster or wanted.cluster, spec).but(time=time, parallel=parallel, partition=partition)
    runs = expand.expand(wanted)
    checks.check(wanted, where, runs)
    sweep = expand.sweep_of(wanted, sweeps.folder_of(wanted, out), runs)
    sending.check_folder(sweep.folder)
    submissions.refuse_damaged(sweep.folder)
    if dry_run:
        chosen = _to_send(sweep, rerun)
        sending.check_code(sweep, chosen, code)
        configs = {run.id: config for run, config in runs}
        click.echo("\n".join(sending.show(sweep, chosen, configs, where, kept=code == "kept")))
        return
    with submissions.turn(sweep.folder) as turn:
        _claim(sweep, where)
        status.refuse_beside_local(sweep)
        chosen = _to_send(sweep, rerun)
        for line in sending.why_not(sweep, rerun, chosen):
            click.echo(line)
        code_of = sending.code_of(sweep, chosen, code) if chosen else {}
        for line in sending.mixed(sweep, chosen, {taken.digest for taken in code_of.values()}):
            click.echo(line)
        expand.write(sweep, runs)
        if not chosen:
            click.echo(f"sweep {sweep.name}: nothing to submit; infogan sweep status {sweep.folder} tells more")
            return
        _deliver(sweep, chosen, where, code_of, turn, train=True)


@click.command("evaluate")
@_sending
def evaluate_command(
    spec: Path,
    cluster: str | None,
    out: Path | None,
    time: str | None,
    parallel: int | None,
    partition: str | None,
) -> None:
    """Evaluate, as jobs of their own, the trained runs without the report that SPEC asks for."""
    from slurm import checks, expand, snapshot, status, submissions
    from slurm import spec as specs
    from slurm import sweep as sweeps
    from slurm.states import LIVE

    wanted = specs.load(spec)
    where = _cluster(cluster or wanted.cluster, spec).but(time=time, parallel=parallel, partition=partition)
    checks.check_made(wanted, [config for _, config in expand.expand(wanted)])
    folder = sweeps.folder_of(wanted, out)
    sweeps.read(folder)  # where there is no sweep, there is no turn to take
    with submissions.turn(folder) as turn:
        sweep = sweeps.read(folder)  # which another may just have changed
        sweep = replace(sweep, evaluate=wanted.evaluate, launched_from=str(Path.cwd()))
        _claim(sweep, where)
        status.refuse_beside_local(sweep)
        found = status.certain(sweep, "nothing was sent").runs
        missing = {s.id for s in found if s.trained and not s.reported and s.state not in LIVE}
        runs = [
            replace(run, shape=replace(run.shape, nodes=1, processes=1, time=time or run.shape.time))
            for run in sweep.runs
            if run.id in missing
        ]
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


def _deliver(sweep: "Sweep", runs: "list[Run]", where: "Cluster", code: "Code", turn: "Turn", *, train: bool) -> None:
    """Run the runs here, or send them."""
    from slurm import sending

    def say(line: str) -> None:
        click.echo(line, err=where.kind == "local")

    if where.kind == "local":
        say(
            f"sweep {sweep.name}: {len(runs)} runs here, {min(where.parallel, len(runs))} at once; "
            f"infogan sweep status {sweep.folder} --watch, in another terminal, shows them"
        )
    if not sending.deliver(sweep, runs, where, code, say, turn, train=train):
        sys.exit(1)
    if where.kind == "slurm":
        click.echo(f"sweep {sweep.name}: {len(runs)} runs sent; infogan sweep status {sweep.folder} --watch")


def _claim(sweep: "Sweep", where: "Cluster") -> None:
    """Before it is decided what to send: learn of jobs that SLURM has and the sweep's folder does not know."""
    from slurm import scheduler, strays
    from slurm.submit import jobs_folder

    if where.kind == "slurm":
        scheduler.require()
    if where.kind == "slurm" or strays.cut_off(sweep):
        for line in strays.claim(sweep, jobs_folder(sweep), "nothing was sent"):
            click.echo(f"sweep {sweep.name}: {line}")


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

    named = {sweep.find(word, STATES).id for word in rerun if word not in STATES}
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
