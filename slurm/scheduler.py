"""What SLURM says of jobs: squeue for those that live, sacct for those that have ended, scancel to end them.

A squeue that does not answer says nothing about jobs, least of all that they are gone. Accounting may be missing: then
nothing is said, and heartbeats and records have to tell.
"""

import subprocess
from collections.abc import Sequence

from shards.errors import UserError

LIVE_LATER = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
"""Words of accounting for a job that is over, once the queue does not hold it any more; others are on the way."""
ANSWER_S = 60.0


class NoAnswer(UserError):
    """SLURM could not be asked, or refused: which program, and why."""


def live(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of the jobs (`1234_5`), those that wait or run, whosever they are: their state, and SLURM's reason.

    Raises NoAnswer where the queue cannot be asked.
    """
    if not jobs:
        return {}
    arrays = ",".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
    try:
        said = _ask("squeue", "--noheader", "--array", "--jobs", arrays, "--format", "%i|%T|%r")
    except NoAnswer as error:
        if "Invalid job id" in str(error):  # all of them ended long ago
            return {}
        raise
    wanted = set(jobs)
    lines = (line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2)
    return {job: (state, reason) for job, state, reason in lines if job in wanted}


def ended(jobs: Sequence[str]) -> dict[str, str]:
    """The final states of jobs that the queue does not hold any more; those that accounting does not know, or is not
    done with, are left out."""
    if not jobs:
        return {}
    try:
        said = _ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(jobs))
    except NoAnswer:
        return {}
    wanted = set(jobs)
    lines = (line.split("|", 1) for line in said.splitlines() if "|" in line)
    return {job: state for job, state in lines if job in wanted and word(state) in ENDED}


def word(state: str) -> str:
    """`CANCELLED by 0` and `CANCELLED+` are CANCELLED."""
    return state.split()[0].rstrip("+") if state.strip() else ""


def largest_array() -> int | None:
    """SLURM's MaxArraySize; None where it cannot be asked."""
    try:
        said = _ask("scontrol", "show", "config")
    except NoAnswer:
        return None
    found = [line.partition("=")[2].strip() for line in said.splitlines() if line.startswith("MaxArraySize")]
    return int(found[0]) if found and found[0].isdigit() else None


def requeue(job: str) -> str:
    """Put a running job back into the queue; why that was refused, empty where it was not."""
    try:
        _ask("scontrol", "requeue", job)
    except NoAnswer as error:
        return str(error)
    return ""


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, waiting or running; those that have ended are left as they are.

    Raises NoAnswer where SLURM may not have done it.
    """
    if jobs:
        _ask("scancel", "--quiet", *jobs)


def _ask(*command: str) -> str:
    """What one of SLURM's programs prints."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True).stdout
    except FileNotFoundError:
        why = "not found on this machine"
    except subprocess.TimeoutExpired:
        why = f"no answer in {ANSWER_S:g} s"
    except subprocess.CalledProcessError as error:
        why = " ".join((error.stderr or f"ended with code {error.returncode}").split())
    except OSError as error:
        why = str(error)
    raise NoAnswer(f"{command[0]}: {why}")
