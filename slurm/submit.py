"""Sending runs: one submitit job array per shape, cut to the size that SLURM takes, at most `parallel` at once."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import UserError
from slurm import scheduler
from slurm.cluster import Cluster, megabytes, minutes
from slurm.order import Order, environment
from slurm.snapshot import Snapshot
from slurm.spec import Shape
from slurm.status import note_submission
from slurm.sweep import Run, Sweep, shapes

Say = Callable[[str], None]
USUAL_ARRAY = 1000  # where SLURM cannot be asked: its default


@dataclass(frozen=True)
class Batch:
    """One job array: the runs in it, what submitit is told, and the batch that has to end before it may begin."""

    runs: list[Run]
    shape: Shape
    parallel: int
    after: int | None


def batches(runs: Sequence[Run], cluster: Cluster) -> list[Batch]:
    """Runs as arrays. Where one shape needs several, they share `parallel`, in lanes that go one after another."""
    size = min(cluster.array_size or USUAL_ARRAY, scheduler.largest_array() or cluster.array_size or USUAL_ARRAY)
    found: list[Batch] = []
    for shape, alike in shapes(runs):
        parts = [alike[begin : begin + size] for begin in range(0, len(alike), size)]
        lanes = min(len(parts), cluster.parallel)
        first = len(found)
        for number, part in enumerate(parts):
            lane = number % lanes
            share = cluster.parallel // lanes + (lane < cluster.parallel % lanes)
            found.append(Batch(part, shape, share, first + number - lanes if number >= lanes else None))
    return found


def parameters(batch: Batch, cluster: Cluster, snapshot: Snapshot, name: str, after: str | None) -> dict[str, Any]:
    """What submitit is told of a batch, in the words of its SlurmExecutor."""
    shape, preemption = batch.shape, cluster.preemption
    cpus = shape.cpus_per_process or cluster.cpus_per_process
    gpus = cluster.gpus_per_process if shape.gpus_per_process is None else shape.gpus_per_process
    memory = shape.memory_per_process or cluster.memory_per_process
    more: dict[str, Any] = {"requeue": True} if preemption.requeue != "none" else {"no-requeue": True}
    if preemption.signal != "USR2":  # TERM comes by itself at the end; asked for, it comes with notice
        more["signal"] = f"TERM@{preemption.notice_s if preemption.signal == 'TERM' else 0}"
    if after is not None:
        more["dependency"] = f"afterany:{after}"
    more |= {key.replace("_", "-"): value if value != "" else True for key, value in cluster.sbatch.items()}
    told = {
        "job_name": name,
        "time": minutes(shape.time or cluster.time),
        "nodes": shape.nodes,
        "ntasks_per_node": shape.processes,
        "cpus_per_task": cpus,
        "gpus_per_node": gpus * shape.processes or None,
        "mem": f"{megabytes(memory) * shape.processes}MB" if memory else None,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "signal_delay_s": preemption.notice_s,
        "array_parallelism": batch.parallel,
        "stderr_to_stdout": True,
        "setup": list(setup_lines(cluster, snapshot)),
        # since SLURM 22.05 srun does not take the CPUs per task from sbatch; a rank that fails ends its job
        "srun_args": [f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1", "--wait=0", *cluster.srun],
        "additional_parameters": more,
    }
    return {key: value for key, value in told.items() if value is not None}


def setup_lines(cluster: Cluster, snapshot: Snapshot) -> Iterator[str]:
    """What the batch script does before srun."""
    for module in cluster.modules:
        yield f"module load {shlex.quote(module)}"
    for key, value in environment(cluster, snapshot).items():
        yield f"export {key}={shlex.quote(value)}"
    yield from cluster.setup


def script(sweep: Sweep, batch: Batch, cluster: Cluster, snapshot: Snapshot) -> str:
    """The batch script that would be sent, without asking SLURM anything."""
    from submitit.slurm.slurm import _make_sbatch_string

    after = "JOB-OF-AN-EARLIER-ARRAY" if batch.after is not None else None
    told = parameters(batch, cluster, snapshot, job_name(sweep), after)
    folder = jobs_folder(sweep)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = len(batch.runs) if len(batch.runs) > 1 else None
    text: str = _make_sbatch_string(command=command, folder=folder, map_count=count, **told)
    return text


def job_name(sweep: Sweep) -> str:
    return f"infogan-{sweep.name}"


def jobs_folder(sweep: Sweep) -> Path:
    return sweep.folder.absolute() / "jobs" / "%j"


def send(
    sweep: Sweep,
    runs: Sequence[Run],
    cluster: Cluster,
    snapshot: Snapshot,
    order: Callable[[Run], Order],
    say: Say,
    *,
    kind: str = "train",
) -> None:
    """Submit jobs for these runs, and note each array as soon as it is sent.

    Raises UserError with SLURM's own words where it refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    from slurm.job import TrainingJob

    sent: list[str] = []
    for batch in batches(runs, cluster):
        try:
            executor = SlurmExecutor(folder=jobs_folder(sweep), max_num_timeout=cluster.preemption.timeouts)
        except RuntimeError:
            raise UserError(
                "there is no SLURM on this machine (no srun): submit from a login node, or say --cluster local"
            ) from None
        after = sent[batch.after] if batch.after is not None else None
        executor.update_parameters(**parameters(batch, cluster, snapshot, job_name(sweep), after))
        try:
            with executor.batch():
                jobs = [executor.submit(TrainingJob(order(run))) for run in batch.runs]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"SLURM refused the jobs: {' '.join(str(error).split())}") from None
        ids = {run.id: job.job_id for run, job in zip(batch.runs, jobs, strict=True)}
        sent.append(jobs[0].job_id.partition("_")[0])
        note_submission(sweep.folder, kind=kind, cluster=cluster.name, code=snapshot.digest, jobs=ids)
        shape = batch.shape
        say(
            f"job {sent[-1]}: {len(batch.runs)} runs on {shape.nodes} x {shape.processes} processes each, at most "
            f"{batch.parallel} at once"
        )
