"""What SLURM says of jobs: squeue for those that live, sacct for those that have ended, scancel to end them.

A squeue that does not answer says nothing about jobs, least of all that they are gone. Accounting may be missing: then
nothing is said, and heartbeats and records have to tell.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from shards.errors import UserError

LIVE_LATER = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
"""Words of accounting for a job that is over, once the queue does not hold it any more; others are on the way."""
ANSWER_S = 60.0
SLOW_S = 2.0
"""After so long without an answer a user is told what is waited for."""

SHOWN = 300
"""Letters of what a program says are told."""

_FILTERS = re.compile("(SQUEUE|SCANCEL|SACCT)_|SLURM_CLUSTERS$")
"""Variables by which a user sees, and ends, fewer jobs than there are, or those of another cluster."""

_told: list[str] = []


class NoAnswer(UserError):
    """SLURM could not be asked, or refused: which program, and why."""


def require() -> None:
    """Raise UserError where this machine has no SLURM."""
    if shutil.which("srun") is None:
        raise UserError("there is no SLURM on this machine (no srun): submit from a login node, or say --cluster local")


def mine() -> dict[str, str]:
    """The comments of all jobs of this user that wait or run, whatever they are for.

    Raises NoAnswer where the queue cannot be asked.
    """
    # by number: a name would have to be looked up, and $USER may be wrong
    rows = _queue("--user", str(os.getuid()), "--format", "%i|%k")
    lines = (line.split("|", 1) for line in rows if "|" in line)  # a comment may have several lines
    return {job.strip(): comment for job, comment in lines}


def live(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of the jobs (`1234_5`), those that wait or run, whosever they are: their state, and SLURM's reason.

    Raises NoAnswer where the queue cannot be asked.
    """
    if not jobs:
        return {}
    arrays = ",".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
    try:
        rows = _queue("--jobs", arrays, "--format", "%i|%T|%r")
    except NoAnswer as error:
        if str(error).endswith("Invalid job id specified"):  # all of them ended long ago
            return {}
        raise
    wanted = set(jobs)
    lines = (line.split("|", 2) for line in rows if line.count("|") >= 2)
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
    # 0 switches arrays off: a job each
    return max(1, int(found[0])) if found and re.fullmatch("[0-9]+", found[0]) else None


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


def _queue(*words: str) -> list[str]:
    """The lines of squeue below their headings, which show that it is the queue that was told, and the whole of it."""
    said = _ask("squeue", "--array", *words)
    heading, *rows = said.splitlines() or [""]
    if not heading.startswith("JOBID|") or not said.endswith("\n"):
        raise NoAnswer(f"squeue: no list of jobs but {said[:SHOWN].strip()!r}")
    return rows


def _ask(*command: str) -> str:
    """What one of SLURM's programs prints."""
    try:
        return _answer(command)
    except FileNotFoundError:
        why = "not found on this machine"
    except subprocess.TimeoutExpired:
        why = f"no answer in {ANSWER_S:g} s"
    except subprocess.CalledProcessError as error:
        why = " ".join((error.stderr or f"ended with code {error.returncode}")[:SHOWN].split())
        why = why.removeprefix(f"{command[0]}: ")
    except OSError as error:
        why = str(error)
    raise NoAnswer(f"{command[0]}: {why}")


def _answer(command: Sequence[str]) -> str:
    pipe = subprocess.PIPE
    environment = {key: value for key, value in os.environ.items() if not _FILTERS.match(key)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, encoding="utf-8", errors="replace"
    ) as process:
        try:
            said, error = process.communicate(timeout=min(SLOW_S, ANSWER_S))
        except subprocess.TimeoutExpired:
            _tell_once(f"waiting for SLURM: {command[0]} has not answered yet, and has {ANSWER_S:g} s")
            said, error = process.communicate(timeout=max(ANSWER_S - SLOW_S, 0))
        finally:
            process.kill()  # of no effect on one that has ended
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, said, error)
    return said


def _tell_once(line: str) -> None:
    """On stderr, since what is printed may be for machines; once, since one that is slow is so again and again."""
    if not _told:
        _told.append(line)
        print(line, file=sys.stderr, flush=True)
