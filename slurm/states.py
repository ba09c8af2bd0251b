"""The state of a run, from what was seen of it and of its newest jobs; and the words for it.

In this order of trust: SLURM's queue (or the process on this machine that has the run in its queue), a run that has
reached its stop, a heartbeat whose process can be looked up, what the job recorded, accounting's last word, and what a
heartbeat that fell silent leaves to guess. What an older job left behind says nothing of a newer one.
"""

import time
from dataclasses import dataclass

from infogan import lease
from infogan.lease import Heartbeat, Holder
from slurm import scheduler
from slurm.attempts import Attempt, Line

STATES = {
    "failed": "ended by an error",
    "killed": "was ended from outside",
    "lost": "has been silent, and nobody knows why",
    "timed out": "met its last time limit",
    "stopped": "saved and left; nothing waits in the queue for it",
    "unknown": "SLURM does not answer, and nothing else tells",
    "running": "trains",
    "evaluating": "is trained, is being evaluated",
    "starting": "has a machine, does not train yet",
    "ending": "its job is being ended",
    "queued": "waits in the queue",
    "waiting": "not sent yet",
    "hopeless": "ended by stop_if",
    "cancelled": "ended by its user",
    "finished": "reached its stop",
}
"""In the order in which a table lists runs: what wants a look first."""

LIVE = ("unknown", "running", "evaluating", "starting", "ending", "queued")
SETTLED = ("finished", "hopeless", "cancelled")
"""States in which a run is not sent again unless that is asked for."""
BAD = ("failed", "killed", "lost", "timed out")


@dataclass(frozen=True)
class Job:
    """A job as it was sent: when, and by which process, whose child it is where there is no SLURM (`local`)."""

    id: str
    kind: str
    sent: float
    holder: Holder

    @property
    def local(self) -> bool:
        return self.id.startswith("local")


@dataclass(frozen=True)
class Evidence:
    """What is known of one job: its last attempt, the queue's state and reason while it lives, accounting's word."""

    job: Job
    last: Attempt | None = None
    living: tuple[str, str] | None = None
    final: str | None = None


@dataclass(frozen=True)
class Seen:
    """What is known of one run and of the newest job that trained and that evaluated it.

    `alone`: a failure of one rank of the last attempt; `heard`: whether SLURM answered; `trained`: it has reached its
    stop; `reported`: and has the report that the sweep asks for; `evaluates`: its training job is to make that.
    """

    training: Evidence | None = None
    evaluation: Evidence | None = None
    heart: Heartbeat | None = None
    alone: Line | None = None
    heard: bool = True
    trained: bool = False
    reported: bool = False
    evaluates: bool = False

    @property
    def last(self) -> Attempt | None:
        return self.training.last if self.training is not None else None

    @property
    def sign(self) -> Heartbeat | None:
        """The heartbeat, unless it is older than the newest job."""
        since = self.training.job.sent if self.training is not None else 0.0
        return self.heart if self.heart is not None and self.heart.facts["time"] >= since else None


def state_of(seen: Seen) -> tuple[str, str]:
    """The state of a run and the reason for it."""
    heart, last, final = seen.heart, seen.last, seen.training.final if seen.training is not None else None
    if seen.evaluation is not None and seen.evaluation.living is not None:
        state, reason = seen.evaluation.living
        return "evaluating", f"queued: {reason}" if state in scheduler.LIVE_LATER else ""
    if seen.training is not None and seen.training.living is not None:
        return _living(seen, *seen.training.living)
    if seen.trained and (seen.reported or not seen.evaluates):
        return "finished", _unreported(seen)
    if heart is not None and heart.held and heart.holder.gone(Holder.current()) is False:
        return "running", ""
    if last is not None and seen.alone is not None and _came_first(seen.alone, last):
        return "killed" if "was ended by SIG" in seen.alone["message"] else "failed", seen.alone["message"]
    if last is not None and last.ended is not None and not last.requeued:
        return _recorded(seen, last)
    if final is not None:
        return _by_accounting(seen, final)
    state, message = _guessed(seen)
    return ("unknown" if not seen.heard and state in ("lost", "stopped") else state), message


def _living(seen: Seen, state: str, reason: str) -> tuple[str, str]:
    last, heart = seen.last, seen.heart
    before = f"{last.outcome} and put back" if last is not None and last.requeued else ""
    if state in scheduler.LIVE_LATER:
        return "queued", "; ".join(filter(None, (before, reason)))
    if state == "COMPLETING":
        return "ending", before
    if seen.trained:
        return ("evaluating" if seen.evaluates else "running"), ""  # finished once its job has left, and recorded that
    if heart is not None and heart.held and last is not None and heart.facts["time"] >= last.began:
        return "running", ""
    return "starting", ""


def _unreported(seen: Seen) -> str:
    """Why a finished run has no report although a job was sent to make one."""
    found = seen.evaluation
    if found is None or seen.reported or (seen.training is not None and found.job.sent < seen.training.job.sent):
        return ""
    if found.last is not None and found.last.outcome not in ("", "finished"):
        return f"its evaluation {found.last.outcome}: {found.last.message}".rstrip(": ")
    what = "never began" if found.last is None else "left no report"
    return f"its evaluation {what} (job {found.job.id}{', ' if found.final else ''}{found.final or ''})"


def _came_first(alone: Line, last: Attempt) -> bool:
    """Whether one rank's failure is why the run ended, and not what another rank's end led to. The end of one makes all
    others fail, so one that was killed is believed first."""
    if last.outcome not in ("", "failed", "killed"):
        return False
    return last.ended is None or alone["time"] < last.ended or "was ended by SIG" in alone["message"]


def _recorded(seen: Seen, last: Attempt) -> tuple[str, str]:
    if last.outcome in ("preempted", "stopped"):
        return "stopped", last.message or ("preempted" if last.outcome == "preempted" else "")
    if last.outcome not in STATES:
        return "lost", f"its record says how it ended in a word that this version does not know: {last.outcome!r}"
    if last.outcome != "finished":
        return last.outcome, last.message
    if not seen.trained:
        return "stopped", "finished at an earlier stop"
    return "stopped", _unreported(seen) or "trained, without the report that evaluate asks for: infogan sweep evaluate"


def _by_accounting(seen: Seen, final: str) -> tuple[str, str]:
    """SLURM's word for how a job ended that said nothing itself."""
    word, sign = scheduler.word(final), seen.sign
    told = str(sign.facts.get("message", "")) if sign is not None and sign.state == "failed" else ""
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
        "FAILED": "its processes were killed from outside" if seen.last is not None else "it never began; see its log",
    }
    state = "failed" if word == "FAILED" and seen.last is None else "killed"
    return state, reasons.get(word, f"SLURM says {final}")


def _guessed(seen: Seen) -> tuple[str, str]:
    """Of a run whose job lives no more, as far as is known, and whose end nobody recorded."""
    sign, last = seen.sign, seen.last
    if sign is not None and sign.held:
        return _silent(sign)
    if sign is not None and sign.state == "failed":
        return "failed", str(sign.facts.get("message", ""))
    if sign is not None or last is not None:
        return "stopped", last.message if last is not None else ""
    if seen.training is None:
        return "waiting", ""
    if seen.training.job.local:
        return "waiting", f"{seen.training.job.holder}, which had it in its queue, is gone"
    return "lost", "its job is unknown to SLURM and never began" if seen.heard else ""


def _silent(heart: Heartbeat) -> tuple[str, str]:
    silent = time.time() - float(heart.facts["time"])
    if heart.holder.gone(Holder.current()):
        return "killed", f"{heart.holder} is gone without a word"
    if silent < lease.STALE_S:
        return "running", ""
    return "lost", f"silent for {silent:.0f} s, on {heart.holder.host}"
