"""Sending runs: submitit job arrays of what is alike, cut to the size that SLURM takes, `parallel` runs at once."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import UserError
from slurm import scheduler
from slurm.cluster import Cluster
from slurm.order import Needs, Order, environment, needs
from slurm.snapshot import Snapshot
from slurm.submissions import Turn, uninterrupted
from slurm.sweep import Run, Sweep

Say = Callable[[str], None]
USUAL_ARRAY = 1000  # where SLURM cannot be asked: its default


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


def parameters(batch: Batch, cluster: Cluster, name: str, after: str | None) -> dict[str, Any]:
    """What submitit is told of a batch, in the words of its SlurmExecutor."""
    taken, preemption = batch.needs, cluster.preemption
    more: dict[str, Any] = {"requeue": True} if preemption.requeue != "none" else {"no-requeue": True}
    if preemption.signal != "USR2":  # TERM comes by itself at the end; asked for, it comes with notice
        more["signal"] = f"TERM@{preemption.notice_s if preemption.signal == 'TERM' else 0}"
    if after is not None:
        more["dependency"] = f"afterany:{after}"
    more |= {key.replace("_", "-"): value if value != "" else True for key, value in cluster.sbatch.items()}
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
    told = parameters(batch, cluster, job_name(sweep), after)
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

    Raises UserError with SLURM's own words where it refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    from slurm.job import TrainingJob

    folder = jobs_folder(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    sent: list[str] = []
    for batch in batches(runs, cluster, code):
        try:
            executor = SlurmExecutor(folder=folder, max_num_timeout=cluster.preemption.timeouts)
        except RuntimeError:
            raise UserError(
                "there is no SLURM on this machine (no srun): submit from a login node, or say --cluster local"
            ) from None
        after = sent[batch.after] if batch.after is not None else None
        executor.update_parameters(**parameters(batch, cluster, job_name(sweep), after))
        try:
            with uninterrupted():
                with executor.batch():
                    jobs = [executor.submit(TrainingJob(order(run))) for run in batch.runs]
                turn.note({run.id: job.job_id for run, job in zip(batch.runs, jobs, strict=True)})
        except (FailedJobError, FailedSubmissionError) as error:
            before = f"; sent before: job {', '.join(sent)}" if sent else ""
            raise UserError(f"SLURM refused the jobs: {' '.join(str(error).split())}{before}") from None
        sent.append(jobs[0].job_id.partition("_")[0])
        say(
            f"job {sent[-1]}: {len(batch.runs)} runs on {batch.needs.nodes} x {batch.needs.processes} processes each, "
            f"at most {batch.parallel} at once"
        )
