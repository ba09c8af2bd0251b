"""What became of each run: told by its heartbeat, by what its jobs recorded, and by SLURM where that still knows."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infogan import lease
from infogan.lease import Heartbeat, Holder
from shards import atomic
from slurm import scheduler
from slurm.attempts import Attempt, Line, Record
from slurm.submissions import newest
from slurm.sweep import Run, Sweep, is_evaluated

STATES = {
    "waiting": "not sent yet",
    "queued": "waits in the queue",
    "starting": "has a machine, does not train yet",
    "running": "trains",
    "evaluating": "is trained, is being evaluated",
    "finished": "reached its stop",
    "hopeless": "ended by stop_if",
    "cancelled": "ended by its user",
    "stopped": "saved and left; nothing waits in the queue for it",
    "timed out": "met its last time limit",
    "killed": "was ended from outside",
    "failed": "ended by an error",
    "lost": "has been silent, and nobody knows why",
}
LIVE = ("queued", "starting", "running", "evaluating")
SETTLED = ("finished", "hopeless", "cancelled")
"""States in which a run is not sent again unless that is asked for."""


@dataclass(frozen=True)
class Status:
    """One run as it stands. `seconds_left`: by its present speed; `silent_s`: since its last heartbeat."""

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

    @property
    def progress(self) -> float | None:
        return self.images / self.stop_images if self.stop_images else None


def statuses(sweep: Sweep) -> list[Status]:
    """Every run of a sweep as it stands, in the sweep's order."""
    sent = newest(sweep.folder)
    jobs = [job for run, job in sent.jobs.items() if not job.startswith("local")]
    living = scheduler.live(jobs)
    finals = _finals(sweep.folder, [job for job in jobs if job not in living])
    found = []
    for run in sweep.runs:
        job = sent.jobs.get(run.id)
        found.append(_status(sweep, run, job, living.get(job or ""), finals.get(job or "")))
    return found


def _finals(sweep: Path, jobs: Sequence[str]) -> dict[str, str]:
    """Final states by job. What accounting said once is kept, since it forgets."""
    path = sweep / "final.json"
    known: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
    fresh = scheduler.ended([job for job in jobs if job not in known])
    if fresh:
        known |= fresh
        atomic.write_json(path, known)
    return known


def _status(sweep: Sweep, run: Run, job: str | None, living: tuple[str, str] | None, final: str | None) -> Status:
    folder = sweep.run_folder(run)
    heart = lease.read(folder)
    record = Record(sweep.folder, run.id)
    attempts = record.attempts()
    state, message = _state(sweep, run, heart, record, attempts, job, living, final)
    facts = heart.facts if heart is not None else {}
    images, whole = int(facts.get("images", 0)), facts.get("stop_images")
    speed = facts.get("images_per_s")
    running = state == "running"
    return Status(
        id=run.id, values=run.values, state=state, message=message, images=images, stop_images=whole,
        images_per_s=speed, mi=facts.get("mi", {}),
        seconds_left=(whole - images) / speed if running and speed and whole else None,
        silent_s=time.time() - facts["time"] if running and "time" in facts else None,
        job=job, host=heart.holder.host if heart is not None else None, attempts=len(attempts),
        log=attempts[-1].log if attempts else None,
    )  # fmt: skip


def _state(
    sweep: Sweep,
    run: Run,
    heart: Heartbeat | None,
    record: Record,
    attempts: list[Attempt],
    job: str | None,
    living: tuple[str, str] | None,
    final: str | None,
) -> tuple[str, str]:
    """The state of a run and the reason for it."""
    last = attempts[-1] if attempts else None
    trained = heart is not None and heart.state == "finished" and heart.facts.get("stop") == run.stop
    if living is not None:
        return _living(living, heart, last, trained, sweep.evaluate.when == "run")
    if trained and (sweep.evaluate.when != "run" or is_evaluated(sweep, run)):
        return "finished", ""
    if heart is not None and heart.held and heart.holder.gone(Holder.current()) is False:
        return "running", ""
    alone = record.failed_alone(last.job, last.restart) if last is not None else None
    if last is not None and alone is not None and _came_first(alone, last):
        return "killed" if "was ended by SIG" in alone["message"] else "failed", alone["message"]
    if last is not None and last.ended is not None and not last.requeued and last.job == (job or last.job):
        return _recorded(last)
    if final is not None:
        return _by_accounting(final, heart, last)
    if heart is not None and heart.held:
        return _silent(heart)
    if heart is not None and heart.state == "failed":
        return "failed", str(heart.facts.get("message", ""))
    if heart is not None or last is not None:
        return "stopped", last.message if last is not None else ""
    return ("lost", "its job is unknown to SLURM and never began") if job else ("waiting", "")


def _living(
    living: tuple[str, str], heart: Heartbeat | None, last: Attempt | None, trained: bool, evaluates: bool
) -> tuple[str, str]:
    state, reason = living
    if state in scheduler.LIVE_LATER:
        before = f"{last.outcome} and put back; " if last is not None and last.requeued else ""
        return "queued", f"{before}{reason}"
    if trained:
        return ("evaluating" if evaluates else "running"), ""  # finished once its job has left, and recorded that
    if heart is not None and heart.held and last is not None and heart.facts["time"] >= last.began:
        return "running", ""
    return "starting", ""


def _came_first(alone: Line, last: Attempt) -> bool:
    """Whether one rank's failure is why the run ended, and not what another rank's end led to. The end of one makes all
    others fail, so one that was killed is believed first."""
    if last.outcome not in ("", "failed", "killed"):
        return False
    return last.ended is None or alone["time"] < last.ended or "was ended by SIG" in alone["message"]


def _recorded(last: Attempt) -> tuple[str, str]:
    if last.outcome in ("preempted", "stopped"):
        return "stopped", last.message or last.outcome
    if last.outcome == "finished":  # by an earlier stop: there is more to do now
        return "stopped", "finished at an earlier stop"
    return last.outcome, last.message


def _by_accounting(final: str, heart: Heartbeat | None, last: Attempt | None) -> tuple[str, str]:
    """SLURM's word for how a job ended that said nothing itself."""
    word = final.split()[0].rstrip("+")
    told = str(heart.facts.get("message", "")) if heart is not None and heart.state == "failed" else ""
    if word == "CANCELLED":
        return "cancelled", ""
    if word == "TIMEOUT":
        return "timed out", "SLURM ended it at its time limit before it could save; see preemption.notice_s"
    if word == "COMPLETED":
        return "stopped", told
    if told:
        return "failed", told
    reasons = {
        "OUT_OF_MEMORY": "out of memory: raise memory_per_process",
        "NODE_FAIL": "its node failed",
        "PREEMPTED": "preempted, and not requeued by SLURM",
        "FAILED": "its processes were killed from outside" if last is not None else "it never began; see its log",
    }
    return ("killed" if last is not None or word != "FAILED" else "failed"), reasons.get(word, f"SLURM says {final}")


def _silent(heart: Heartbeat) -> tuple[str, str]:
    silent = time.time() - float(heart.facts["time"])
    if heart.holder.gone(Holder.current()):
        return "killed", f"{heart.holder} is gone without a word"
    if silent < lease.STALE_S:
        return "running", ""
    return "lost", f"silent for {silent:.0f} s, on {heart.holder.host}"


def as_json(sweep: Sweep, found: Sequence[Status]) -> dict[str, Any]:
    """The answer of `infogan sweep status --json`, format 1."""
    runs = [{**asdict(status), "progress": status.progress} for status in found]
    return {"format": 1, "sweep": sweep.name, "folder": str(sweep.folder), "time": time.time(), "runs": runs}
