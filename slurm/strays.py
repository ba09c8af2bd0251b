"""Jobs in SLURM's queue of which no submission of their sweep knows: it was killed before it could note them, or the
sweep's folder was removed while they lived. Before anything is sent they are noted, or refused.

The comment of each job array says which one it is: of which submission, of which folder.
"""

import re
import uuid
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import psutil

from shards.errors import UserError
from slurm import scheduler
from slurm.submissions import note_later, submissions
from slurm.sweep import Sweep

_MARK = re.compile(r"infogan (\S+) array (\d+) of (.+)")

Array = tuple[str, int]
"""The submission, and the array's place in it."""


def mark(sweep: Path, submission: str, array: int) -> str:
    """The comment by which the jobs of an array are found; a user's own stands before it."""
    return f"infogan {submission} array {array} of {sweep.resolve()}"


def cut_off(sweep: Sweep) -> bool:
    """Whether a submission has sent, or was about to send, an array whose jobs are not known."""
    entries = submissions(sweep.folder)
    return any(not set(runs) <= entry["jobs"].keys() for entry in entries for runs in entry["arrays"])


def claim(sweep: Sweep, jobs: Path, nothing: str) -> list[str]:
    """Note the jobs of submissions that were killed, in one's own turn; lines that tell of them. `jobs`: where orders
    lie; `nothing`: what was not done where this fails.

    Raises UserError where SLURM does not answer, and where it has jobs of this folder that cannot be made out.
    """
    _wait_for_none(jobs)
    known = {job for entry in submissions(sweep.folder) for job in entry["jobs"].values()}
    try:
        unknown = _unknown(sweep.folder, known)
    except scheduler.NoAnswer as error:
        raise UserError(f"SLURM does not answer ({error}): {nothing}; try again") from None
    said, strangers = [], list[str]()
    for (submission, array), found in unknown.items():
        number, runs = found[0].partition("_")[0], _runs(sweep.folder, submission, array)
        ids = {run: f"{number}_{place}" if len(runs) > 1 else number for place, run in enumerate(runs)}
        living = {run: job for run, job in ids.items() if job in found}
        if len(living) == len(found) and _ordered(jobs, living):
            note_later(sweep.folder, submission, ids)
            said.append(f"job {number}: {len(runs)} runs, sent by a submission that was cut off, are known now")
        else:
            strangers.append(number)
    if strangers:
        raise UserError(
            f"sweep {sweep.folder}: SLURM has jobs of this folder that it does not know, as when it was removed while "
            f"they lived: {nothing}; scancel {' '.join(strangers)} ends them, then run the same command again"
        )
    return said


def _unknown(sweep: Path, known: set[str]) -> dict[Array, list[str]]:
    """The jobs that live, bear the mark of this folder and are not known, by array."""
    found: dict[Array, list[str]] = defaultdict(list)
    for job, comment in scheduler.mine().items():
        told = _MARK.search(comment)
        if told and told[3] == str(sweep.resolve()) and job not in known:
            found[told[1], int(told[2])].append(job)
    return found


def _runs(sweep: Path, submission: str, array: int) -> list[str]:
    """The runs of an array in its order; none where its submission is not known."""
    found = [entry["arrays"] for entry in submissions(sweep) if entry["name"] == submission]
    return list(found[0][array]) if found and array < len(found[0]) else []


def _ordered(jobs: Path, living: Mapping[str, str]) -> bool:
    """Whether each job finds its order. submitit gives it the job's name only after sbatch has told that: where it was
    killed before, that is made up for."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    from slurm.job import TrainingJob

    places = {run: JobPaths(jobs, job) for run, job in living.items()}
    lacking = {run: place for run, place in places.items() if not place.submitted_pickle.is_file()}
    left = [path for path in jobs.glob("*.pkl") if _is_unnamed(path)] if lacking else []
    for path in sorted(left, key=lambda path: path.stat().st_mtime, reverse=True):
        job = cast(TrainingJob, DelayedSubmission.load(path).function)  # as the job itself would
        run = job.order.run_id
        if run in lacking:
            lacking.pop(run).move_temporary_file(path, "submitted_pickle")
    return not lacking


def _is_unnamed(path: Path) -> bool:
    try:
        return uuid.UUID(path.stem).hex == path.stem
    except ValueError:
        return False


def _wait_for_none(jobs: Path) -> None:
    """Raise UserError while an sbatch lives whose submission was killed: its jobs may not be in the queue yet."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.startswith(str(jobs / ".submission_file_")) for word in words):
            raise UserError(
                f"sweep {jobs.parent}: a submission was killed, and its sbatch, process {process.pid}, is at work "
                "still: wait for it, or end it, then run the same command again"
            )
