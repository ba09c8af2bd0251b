"""What became of each run of a sweep: what there is to see of it is gathered here, and judged in `slurm.states`."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infogan.lease import Heartbeat, Holder
from shards import atomic
from shards.errors import UserError
from slurm import records, scheduler
from slurm.attempts import Attempt, Record
from slurm.runfolder import heartbeat, report_of
from slurm.scheduler import NoAnswer
from slurm.states import Evidence, Job, Seen, state_of
from slurm.submissions import submissions
from slurm.sweep import Run, Sweep

QUIET_S = 600.0
"""After so long without a sign from any of its runs, a process on another machine counts as gone; evaluations are
silent."""


@dataclass(frozen=True)
class Status:
    """One run as it stands. `seconds_left`: by its present speed; `silent_s`: since its last heartbeat, while it runs;
    `job`, `log`: of its newest job; `trained`: it has reached its stop; `reported`: and has the report asked for."""

    id: str
    values: dict[str, Any]
    state: str
    message: str
    images: int
    stop_images: int | None
    images_per_s: float | None
    mi: dict[str, float]
    seconds_left: float | None
    silent_s: float | None
    job: str | None
    host: str | None
    attempts: int
    log: str | None
    trained: bool
    reported: bool

    @property
    def progress(self) -> float | None:
        return self.images / self.stop_images if self.stop_images else None


@dataclass(frozen=True)
class Look:
    """A sweep as it stands: its runs in its order, and, of all that was ever sent for it, the jobs in SLURM's queue and
    the runs that they are of. `unheard`: why SLURM could not be asked; empty where it answered, or need not be."""

    runs: tuple[Status, ...]
    living: Mapping[str, str]
    unheard: str

    @property
    def strangers(self) -> list[str]:
        """Runs that have left the sweep's file, but not the queue."""
        own = {status.id for status in self.runs}
        return list(dict.fromkeys(run for run in self.living.values() if run not in own))


def look(sweep: Sweep) -> Look:
    """See how all runs of a sweep stand."""
    sent = _sent(sweep.folder)
    queue, unheard = _queue([job for jobs in sent.values() for job in jobs])
    newest = {run: {job.kind: job for job in jobs} for run, jobs in sent.items()}
    over = [job.id for jobs in newest.values() for job in jobs.values() if not job.local and queue.get(job.id) is None]
    finals = _finals(sweep.folder, over, ask=not unheard)
    gathered = {run.id: (heartbeat(sweep.run_folder(run)), Record(sweep.folder, run.id)) for run in sweep.runs}
    attempts = {run: record.attempts() for run, (_, record) in gathered.items()}
    signs = _signs(newest, {run: heart for run, (heart, _) in gathered.items()}, attempts)
    found = []
    for run in sweep.runs:
        heart, record = gathered[run.id]
        evidence = {}
        for kind, job in newest.get(run.id, {}).items():
            last = next((one for one in reversed(attempts[run.id]) if one.job == job.id), None)
            word = _in_local_queue(job, last, signs[job.id]) if job.local else queue.get(job.id)
            evidence[kind] = Evidence(job, last, word, finals.get(job.id))
        found.append(_status(sweep, run, heart, record, attempts[run.id], evidence, heard=not unheard))
    living = {job.id: run for run, jobs in sent.items() for job in jobs if job.id in queue}
    return Look(tuple(found), living, unheard)


def certain(sweep: Sweep, nothing: str) -> Look:
    """How all runs stand, where that can be known.

    Raises UserError where SLURM has jobs of the sweep and does not answer; `nothing`: what was not done therefore.
    """
    found = look(sweep)
    if found.unheard:
        raise UserError(f"SLURM does not answer ({found.unheard}): {nothing}; try again")
    return found


def refuse_beside_local(sweep: Sweep) -> None:
    """Raise UserError while a process without SLURM, on this machine, has runs of the sweep in its queue."""
    me = Holder.current()
    for jobs in _sent(sweep.folder).values():
        for job in jobs:
            if job.local and job.holder.pid != me.pid and job.holder.gone(me) is False:
                raise UserError(
                    f"sweep {sweep.name}: {job.holder} runs it already: wait for it, or end it by Ctrl-C there, then "
                    "run the same command again"
                )


def note_cancelled(sweep: Path, jobs: Sequence[str]) -> None:
    """Remember that jobs were cancelled, since a job that never began cannot say so, and accounting may be missing."""
    _keep(sweep, dict.fromkeys(jobs, "CANCELLED"))


def _sent(sweep: Path) -> dict[str, list[Job]]:
    """Every job by the run that it is of, oldest first."""
    found: dict[str, list[Job]] = defaultdict(list)
    for entry in submissions(sweep):
        for run, job in entry["jobs"].items():
            found[run].append(Job(job, entry["kind"], entry["time"], Holder(**entry["holder"])))
    return found


def _queue(jobs: Sequence[Job]) -> tuple[dict[str, tuple[str, str]], str]:
    """SLURM's queue, as far as it holds these jobs; or why it could not be asked."""
    try:
        return scheduler.live([job.id for job in jobs if not job.local]), ""
    except NoAnswer as error:
        return {}, str(error)


def _finals(sweep: Path, jobs: Sequence[str], *, ask: bool) -> dict[str, str]:
    """Final states by job. What accounting said once is kept, since it forgets."""
    known = _kept(sweep)
    fresh = scheduler.ended([job for job in jobs if job not in known]) if ask else {}
    if fresh:
        with suppress(UserError):  # a folder that cannot be written can be looked at
            _keep(sweep, fresh)
    return {**known, **fresh}


def _kept(sweep: Path) -> dict[str, str]:
    path = sweep / "final.json"
    states = records.mapping(path)
    known = {job: state for job, state in states.items() if isinstance(state, str)}
    if len(known) < len(states):
        records.ignore(path, "the state of a job in it is no word")
    return known


def _keep(sweep: Path, states: Mapping[str, str]) -> None:
    atomic.write_json(sweep / "final.json", {**_kept(sweep), **states})


def _signs(
    newest: Mapping[str, Mapping[str, Job]],
    hearts: Mapping[str, Heartbeat | None],
    attempts: Mapping[str, Sequence[Attempt]],
) -> dict[str, float]:
    """When something was last heard of each job, from any of the runs that it has in its queue."""
    found: dict[str, float] = {}
    for run, jobs in newest.items():
        heart = hearts.get(run)
        beat = float(heart.facts["time"]) if heart is not None else 0.0
        for job in jobs.values():
            lines = [max(one.began, one.ended or 0.0) for one in attempts.get(run, ()) if one.job == job.id]
            found[job.id] = max([found.get(job.id, job.sent), beat, *lines])
    return found


def _in_local_queue(job: Job, last: Attempt | None, sign: float) -> tuple[str, str] | None:
    """A run of a sweep without SLURM, in SLURM's words: it waits in its process, or that runs it, or neither."""
    gone = job.holder.gone(Holder.current())
    if gone is None:
        gone = time.time() - sign > QUIET_S
    if gone or (last is not None and last.ended is not None):
        return None
    return ("PENDING", f"its turn comes in {job.holder}") if last is None else ("RUNNING", "")


def _status(
    sweep: Sweep,
    run: Run,
    heart: Heartbeat | None,
    record: Record,
    attempts: Sequence[Attempt],
    evidence: Mapping[str, Evidence],
    *,
    heard: bool,
) -> Status:
    folder = sweep.run_folder(run)
    training = evidence.get("train")
    last = training.last if training is not None else None
    seen = Seen(
        training=training,
        evaluation=evidence.get("evaluate"),
        heart=heart,
        alone=record.failed_alone(last.job, last.restart) if last is not None else None,
        heard=heard,
        trained=heart is not None and heart.state == "finished" and heart.facts.get("stop") == run.stop,
        reported=report_of(folder, sweep.evaluate) is not None,
        evaluates=sweep.evaluate.when == "run",
    )
    state, message = state_of(seen)
    facts = heart.facts if heart is not None else {}
    images, whole = int(facts.get("images", 0)), facts.get("stop_images")
    speed = facts.get("images_per_s")
    running = state == "running"
    newest = max(evidence.values(), key=lambda one: one.job.sent, default=None)
    return Status(
        id=run.id, values=run.values, state=state, message=message, images=images, stop_images=whole,
        images_per_s=speed, mi=facts.get("mi", {}),
        seconds_left=(whole - images) / speed if running and whole and (speed or 0) > 1e-9 else None,
        silent_s=time.time() - facts["time"] if running and "time" in facts else None,
        job=newest.job.id if newest is not None else None,
        host=heart.holder.host if heart is not None else None, attempts=len(attempts),
        log=_log(sweep, newest), trained=seen.trained, reported=seen.reported,
    )  # fmt: skip


def _log(sweep: Sweep, newest: Evidence | None) -> str | None:
    """The newest job's log: where it said that it writes, or else what SLURM wrote before it could say anything."""
    if newest is None:
        return None
    if newest.last is not None:
        return newest.last.log
    path = sweep.folder.absolute() / "jobs" / f"{newest.job.id}_0_log.out"
    return str(path) if path.is_file() else None


def as_json(sweep: Sweep, found: Look) -> dict[str, Any]:
    """The answer of `infogan sweep status --json`, format 1."""
    runs = [{**asdict(status), "progress": status.progress} for status in found.runs]
    plain = {"format": 1, "sweep": sweep.name, "folder": str(sweep.folder), "time": time.time()}
    return {**plain, "slurm": found.unheard or "answers", "runs": runs}
