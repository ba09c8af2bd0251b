"""Sending runs: submitit job arrays of what is alike, cut to the size that SLURM takes, `parallel` runs at once."""

import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.errors import UserError
from slurm import scheduler
from slurm.cluster import Cluster
from slurm.order import Needs, Order, environment, needs
from slurm.snapshot import Snapshot
from slurm.strays import mark
from slurm.submissions import Turn, uninterrupted
from slurm.sweep import Run, Sweep

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

    from slurm.job import TrainingJob

Say = Callable[[str], None]
USUAL_ARRAY = 1000  # where SLURM cannot be asked: its default
SENDING_S = 300.0  # that one call of sbatch may take, which tries again for two minutes where SLURM is busy
OVERRULING = (
    "ARRAY_INX", "COMMENT", "ERROR", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "TIMELIMIT",
    "WAIT",
)  # fmt: skip
"""What a user's environment says to sbatch by SBATCH_..., and may not: nor may it say otherwise than a cluster file."""
ALIKE = {"mem": ("MEM_PER_CPU", "MEM_PER_GPU", "MEM_PER_NODE"), "gpus_per_node": ("GPUS", "GPUS_PER_TASK", "GRES")}
"""Variables that say by another name what one of our options says."""


@dataclass(frozen=True)
class Batch:
    """One job array: the runs in it, what each takes, their code, and the batch that has to end before it may begin."""

    runs: list[Run]
    needs: Needs
    snapshot: Snapshot
    parallel: int
    after: int | None


def batches(runs: Sequence[Run], cluster: Cluster, code: Mapping[str, Snapshot]) -> list[Batch]:
    """Runs as arrays, each of one need and one code (`code`: by run). All of them share `parallel`: where there are
    more arrays than that, in lanes that go one after another."""
    known = [size for size in (cluster.array_size, scheduler.largest_array()) if size is not None]
    size = min(known, default=USUAL_ARRAY)
    parts: list[tuple[Needs, Snapshot, list[Run]]] = []
    for kind in dict.fromkeys((needs(run.shape, cluster), code[run.id]) for run in runs):
        alike = [run for run in runs if (needs(run.shape, cluster), code[run.id]) == kind]
        parts += [(*kind, alike[begin : begin + size]) for begin in range(0, len(alike), size)]
    lanes = min(len(parts), cluster.parallel)
    longest = [max(len(part[-1]) for part in parts[lane::lanes]) for lane in range(lanes)]
    shares = _shares(cluster.parallel, longest)
    return [
        Batch(alike, taken, snapshot, shares[number % lanes], number - lanes if number >= lanes else None)
        for number, (taken, snapshot, alike) in enumerate(parts)
    ]


def _shares(whole: int, most: Sequence[int]) -> list[int]:
    """`whole` in equal parts, but to none more than `most` of it: what one cannot use the others get."""
    shares = [0] * len(most)
    for place in sorted(range(len(most)), key=lambda place: most[place]):
        left = sum(share == 0 for share in shares)
        shares[place] = min(most[place], -(-whole // left))
        whole -= shares[place]
    return shares


def parameters(batch: Batch, cluster: Cluster, name: str, after: str | None, comment: str) -> dict[str, Any]:
    """What submitit is told of a batch, in the words of its SlurmExecutor. `comment`: by which its jobs are found."""
    taken, preemption = batch.needs, cluster.preemption
    more: dict[str, Any] = {"requeue": True} if preemption.requeue != "none" else {"no-requeue": True}
    if preemption.signal != "USR2":  # TERM comes by itself at the end; asked for, it comes with notice
        more["signal"] = f"TERM@{preemption.notice_s if preemption.signal == 'TERM' else 0}"
    if after is not None:
        more["dependency"] = f"afterany:{after}"
    more |= {key.replace("_", "-"): value if value != "" else True for key, value in cluster.sbatch.items()}
    more["comment"] = "; ".join(filter(None, (cluster.sbatch.get("comment"), comment)))
    told = {
        "job_name": name,
        "time": taken.minutes,
        "nodes": taken.nodes,
        "ntasks_per_node": taken.processes,
        "cpus_per_task": taken.cpus,
        "gpus_per_node": taken.gpus * taken.processes or None,
        "mem": f"{taken.memory_mb * taken.processes}MB" if taken.memory_mb else None,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "signal_delay_s": preemption.notice_s,
        "array_parallelism": batch.parallel,
        "stderr_to_stdout": True,
        "setup": list(setup_lines(cluster, batch.snapshot)),
        # since SLURM 22.05 srun does not take the CPUs per task from sbatch; a rank that fails ends its job
        "srun_args": [f"--cpus-per-task={taken.cpus}", "--kill-on-bad-exit=1", "--wait=0", *cluster.srun],
        "additional_parameters": more,
    }
    return {key: value for key, value in told.items() if value is not None}


def setup_lines(cluster: Cluster, snapshot: Snapshot) -> Iterator[str]:
    """What the batch script does before srun."""
    for module in cluster.modules:
        yield f"module load {shlex.quote(module)}"
    for key, value in environment(cluster).items():
        yield f"export {key}={_quoted(value)}"
    yield f"export PYTHONPATH={shlex.quote(str(snapshot.folder))}${{PYTHONPATH:+:$PYTHONPATH}}"
    yield from cluster.setup


def _quoted(value: str) -> str:
    """A word for the shell, in which it replaces variables, and nothing else."""
    if "$" not in value:
        return shlex.quote(value)
    return '"' + re.sub(r'["`\\]|\$(?!\w|\{\w+\})', r"\\\g<0>", value) + '"'


def script(sweep: Sweep, batch: Batch, cluster: Cluster) -> str:
    """The batch script that would be sent, without asking SLURM anything."""
    from submitit.slurm.slurm import _make_sbatch_string

    after = "JOB-OF-AN-EARLIER-ARRAY" if batch.after is not None else None
    told = parameters(batch, cluster, job_name(sweep), after, mark(sweep.folder, "SUBMISSION", 0))
    folder = jobs_folder(sweep)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = len(batch.runs) if len(batch.runs) > 1 else None
    text: str = _make_sbatch_string(command=command, folder=folder, map_count=count, **told)
    return text


def job_name(sweep: Sweep) -> str:
    return f"infogan-{sweep.name}"


def jobs_folder(sweep: Sweep) -> Path:
    """Where scripts, orders and logs lie: one folder for all jobs, which is there before the first task wants to write
    its log. UserError where SLURM would take its path for a pattern."""
    folder = sweep.folder.absolute() / "jobs"
    if "%" in str(folder) or "\\" in str(folder):
        raise UserError(f"sweep {folder.parent}: SLURM reads % and \\ in a path as a pattern: say --out FOLDER without")
    if not str(folder).isprintable():
        raise UserError(f"sweep {str(folder.parent)!r}: must have no line break in its path: say --out FOLDER without")
    return folder


def files_of(run: Run) -> int:
    """How many files the job of a run leaves in the sweep's folder, beside the run's own: its order, the log and the
    result of each task, its config, and its record with one file for each task that may fail alone."""
    tasks = run.shape.nodes * run.shape.processes
    return 1 + 2 * tasks + 1 + 1 + (tasks - 1)


def send(
    sweep: Sweep,
    runs: Sequence[Run],
    cluster: Cluster,
    code: Mapping[str, Snapshot],
    order: Callable[[Run], Order],
    say: Say,
    turn: Turn,
) -> None:
    """Submit jobs for these runs, and note each array as soon as it is sent. `code`: by run.

    Raises Refused with SLURM's own words where it refuses.
    """
    from submitit.slurm.slurm import SlurmExecutor

    from slurm.job import TrainingJob

    scheduler.require()
    folder = jobs_folder(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    sent: list[str] = []
    for batch in batches(runs, cluster, code):
        executor = SlurmExecutor(folder=folder, max_num_timeout=cluster.preemption.timeouts)
        after = sent[batch.after] if batch.after is not None else None
        comment = mark(sweep.folder, *turn.array([run.id for run in batch.runs]))
        told = parameters(batch, cluster, job_name(sweep), after, comment)
        executor.update_parameters(**told)
        try:
            with uninterrupted():
                jobs = _submitted(executor, [TrainingJob(order(run)) for run in batch.runs], overruled(told))
                turn.note({run.id: job for run, job in zip(batch.runs, jobs, strict=True)})
        except Refused as error:
            before = f"; sent before: job {', '.join(sent)}" if sent else ""
            raise UserError(f"{error}{before}") from None
        sent.append(jobs[0].partition("_")[0])
        say(
            f"job {sent[-1]}: {len(batch.runs)} runs on {batch.needs.nodes} x {batch.needs.processes} processes each, "
            f"at most {batch.parallel} at once"
        )


class Refused(UserError):
    """An array was not sent, or nobody knows whether it was."""


def overruled(told: Mapping[str, Any]) -> set[str]:
    """The variables SBATCH_..., by their last words, that would change what `parameters` says."""
    stated = {key for key in told if key != "additional_parameters"} | set(told["additional_parameters"])
    found = {*OVERRULING, *(key.upper().replace("-", "_") for key in stated)}
    return found.union(*(ALIKE[key] for key in ALIKE if key in stated))


def _submitted(executor: "SlurmExecutor", work: "Sequence[TrainingJob]", hidden: Collection[str]) -> list[str]:
    """Send one array, or a single job, by an sbatch that sees none of the `hidden` variables; the ids of its jobs."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # what sbatch says on stderr submitit both prints and raises
        with _for_at_most(SENDING_S), _without(hidden), redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(one) for one in work]
        return [job.job_id for job in jobs]
    except (FailedJobError, FailedSubmissionError, TimeoutError) as error:
        if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
            why = f"sbatch has not answered in {SENDING_S:g} s"
        elif isinstance(error, FailedSubmissionError):  # it ended well
            why = f"sbatch has told no number of a job: {str(error).splitlines()[0]}"
        elif "sbatch: " not in str(error):
            why = f"sbatch failed and does not say why ({' '.join(str(error).split()) or 'no word'})"
        else:
            raise Refused(f"SLURM refused the jobs: {' '.join(str(error).split())}") from None
        raise Refused(f"{why}: run the same command again, which asks SLURM whether it has the jobs") from None


@contextmanager
def _for_at_most(seconds: float) -> Iterator[None]:
    """Have a TimeoutError raised in the block when that time is over, upon which submitit ends sbatch."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _without(words: Collection[str]) -> Iterator[None]:
    """Hide from sbatch what it would believe more than the batch script, and a cluster that nobody else asks."""
    names = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS", *(f"SBATCH_{word}" for word in words))
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
