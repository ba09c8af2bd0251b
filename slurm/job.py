"""A SLURM job of a run, through submitit: one task per rank, each supervising its trainer.

The task of rank 0 records what happens and, when the run was stopped, decides what becomes of it: put back into the
queue, left to SLURM, or ended with a reason.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from submitit.core.job_environment import JobEnvironment
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from infogan.lease import restarts
from slurm import scheduler
from slurm.attempts import Attempt, Record
from slurm.order import Order
from slurm.supervisor import Ending, Signals, as_words, describe_affinity, supervise, with_caches

PORTS = (20000, 32000)  # below those that Linux gives to outgoing connections
STARTS = 12  # of a job, each with a port of its own
WAIT_S = 300.0  # for SLURM to take a job away that it is going to take away
NO_PROGRESS = 3  # attempts in a row that may end without a new checkpoint
RETRY_S = 10.0  # from one refusal to requeue to the next attempt
GONE_S = 5.0  # for a supervisor that lives to tell what became of its trainer, after which its node counts as gone
LOOK_S = 0.2
ENDED_S = 30.0  # a job that is ended by its time limit has run so long, or longer
EARLY_S = 90.0  # SLURM looks at time limits every half minute or so and may send its signal a minute early


@dataclass
class TrainingJob(Checkpointable):
    """What submitit runs in every task. Checkpointable, so that submitit's own handler, which is in force for a moment
    before ours, requeues the job as well."""

    order: Order

    def __call__(self) -> None:
        signals = Signals()
        signals.install()
        Task(self.order, signals).run()


class Task:
    """One task of a job."""

    def __init__(self, order: Order, signals: Signals) -> None:
        self.order, self.signals = order, signals
        self.place = JobEnvironment()
        self.rank = self.place.global_rank
        self.job = self.place.job_id
        self.restart = restarts()
        self.log = Path(self.place.paths.stdout)
        self.record = Record(Path(order.sweep), order.run_id)
        self.decides = self.rank == 0
        self.began = time.time()
        self.images, _ = order.progress()
        self.again = "infogan sweep submit" if order.train else "infogan sweep evaluate"

    def run(self) -> None:
        """Train, then evaluate where that was asked for; a task that returns has done its part."""
        try:
            self._run()
        except Exception as error:  # of ours, or of a disk that is full or gone: it is told like any other end
            traceback.print_exc()
            self._fail(Ending("failed", " ".join(f"{type(error).__name__}: {error}".split())))

    def _run(self) -> None:
        order = self.order
        say(f"run {order.run_id}: rank {self.rank} of {order.world} on {platform.node()}, job {self.job}")
        if self.rank == 0:
            self.record.begin(order, self.job, self.restart, self.log)
        wrong = describe_affinity(order.cpus, say)
        if wrong is not None:
            self._fail(Ending("failed", wrong))
        ending = self._command(order.training(launcher=False), self._distributed(), True) if order.train else None
        if (ending is None or ending.outcome == "finished") and order.evaluate is not None and self.rank == 0:
            ending = self._command(order.evaluation(), {}, False)
        if ending is None or ending.outcome == "finished":
            self._end("finished")
        elif ending.outcome == "hopeless":
            self._end("hopeless", ending.message)
        elif ending.bereft and order.nodes > 1:
            self._bereft(ending)
        elif ending.outcome != "stopped":
            self._fail(ending)
        elif self.rank == 0:
            self._stopped(ending)
        # another rank has nothing to decide; that it leaves with code 0 does not end the job

    def _command(self, words: list[str], more: dict[str, str], training: bool) -> Ending:
        say(as_words(words))
        threads = {"OMP_NUM_THREADS": str(self.order.cpus)}
        environment = with_caches({**os.environ, **threads, **more}, self.order.scratch)
        return supervise(self.order, words, self.signals, environment, self.log, watches=training and self.rank == 0)

    def _distributed(self) -> dict[str, str]:
        """What torch.distributed reads; nothing for a run of one process."""
        if self.order.world == 1:
            return {}
        if self.place.num_tasks != self.order.world:
            self._fail(
                Ending("failed", f"{self.order.world} tasks were asked for and SLURM started {self.place.num_tasks}")
            )
        port = port_of(int(os.environ["SLURM_JOB_ID"]), self.restart)
        os.environ["MASTER_PORT"] = str(port)
        found = TorchDistributedEnvironment()
        return {
            "MASTER_ADDR": found.master_addr, "MASTER_PORT": str(port),
            "RANK": str(found.rank), "WORLD_SIZE": str(found.world_size),
            "LOCAL_RANK": str(found.local_rank), "LOCAL_WORLD_SIZE": str(found.local_world_size),
        }  # fmt: skip

    # ---- endings ----------------------------------------------------------------------------------------------

    def _end(self, outcome: str, message: str = "", *, requeued: bool = False) -> None:
        say(f"run {self.order.run_id}: {outcome}{': ' if message else ''}{message}")
        if self.decides:
            images, _ = self.order.progress()
            facts = {"outcome": outcome, "message": message, "requeued": requeued, "images_after": images}
            self.record.end(self.job, self.restart, **facts)

    def _fail(self, ending: Ending) -> NoReturn:
        """Leave with a reason. srun ends the other tasks then, so a rank other than 0 says it in a file of its own."""
        if self.rank == 0:
            self._end(ending.outcome, ending.message)
        else:
            message = f"rank {self.rank}: {ending.message}"
            say(f"run {self.order.run_id}: {ending.outcome}: {message}")
            self.record.fail_alone(self.rank, platform.node(), self.job, self.restart, message)
        sys.exit(1)

    def _stopped(self, ending: Ending) -> None:
        """Rank 0, after all ranks have saved: go on later, or say why not."""
        # srun ends all tasks when one has failed: that is nobody's wish to have the machines back
        alone = self.record.failed_alone(self.job, self.restart)
        if alone is not None:
            self._fail(Ending("killed", alone["message"]))
        self._go_on(*self._cause(job_facts(self.job)), ending.message)

    def _bereft(self, ending: Ending) -> NoReturn:
        """Another process of the run is gone or hangs. Its supervisor tells why, and ends the job, unless its node is
        gone too: then the first node that is left puts the run back, rank 0's if that is among them. Where every
        supervisor is still there and none knows why, no node has failed: something hangs that would hang again."""
        if self.rank > 0:
            self.record.fail_alone(self.rank, platform.node(), self.job, self.restart, ending.message, bereft=True)
        until = time.monotonic() + GONE_S * (1 + self.place.node)
        while time.monotonic() < until:
            if (alone := self.record.failed_alone(self.job, self.restart)) is not None:
                if self.rank == 0:
                    self._end("killed", alone["message"])
                sys.exit(1)
            time.sleep(LOOK_S)
        if self.rank == 0 and self.record.bereft(self.job, self.restart) == self.order.world - 1:
            self._fail(ending)
        decided = any(
            one.ended is not None
            for one in self.record.attempts()
            if (one.job, one.restart) == (self.job, self.restart)
        )
        self.decides = self.rank == 0 or (self.place.local_rank == 0 and not decided)
        if self.decides:
            cause, taken_back = self._cause(job_facts(self.job))
            self._go_on("cancelled" if cause == "cancelled" else "node failure", taken_back, ending.message)
        else:
            time.sleep(WAIT_S)  # until SLURM ends the job: left early with a failure, it would not be put back
        sys.exit(1)

    def _go_on(self, cause: str, taken_back: bool, message: str) -> None:
        order = self.order
        if cause == "cancelled":
            return self._end(cause)
        last = "killed" if cause == "node failure" else cause
        if order.requeue == "none":
            return self._end(last, f"{message} {self.again} goes on with it".strip())
        obstacle = self._obstacle(cause)
        if obstacle:
            return self._end(last, f"{obstacle}{f'; {message}' if last == 'killed' else ''}")
        by_slurm = taken_back or order.requeue == "slurm" or shutil.which("scontrol") is None
        if by_slurm and cause == "timed out":
            why = (
                "SLURM requeues nothing after a time limit" if order.requeue == "slurm" else "no scontrol on this node"
            )
            return self._end(cause, f"{why}: {self.again} goes on with it")
        self._end(cause, message or ("left to SLURM to requeue" if by_slurm else ""), requeued=True)
        if refused := ("" if by_slurm else self._requeue()) or self._stays():
            self._end(last, f"{refused}: {self.again} goes on with it")

    def _requeue(self) -> str:
        """Have SLURM put the job back; why it did not, in all the time that was left."""
        until = time.time() + max(self.order.notice_s - (time.time() - (self.signals.since or time.time())), 0)
        while refused := scheduler.requeue(self.job):
            say(refused)
            if int(job_facts(self.job).get("Restarts", self.restart)) > self.restart:  # SLURM itself has, just now
                return ""
            if time.time() + RETRY_S > until:
                return refused
            time.sleep(RETRY_S)
        return ""

    def _stays(self) -> str:
        """Wait for SLURM to end this job, in order to put it back; what there is to say where it does not."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if job_facts(self.job).get("JobState", "RUNNING") != "RUNNING":
                return ""
            heard, again = self.signals.count, time.monotonic() + RETRY_S
            while self.signals.count == heard and time.monotonic() < again:
                time.sleep(LOOK_S)
        return f"SLURM has not taken the job back in {WAIT_S:g} s"

    def _cause(self, facts: dict[str, str]) -> tuple[str, bool]:
        """`preempted`, `timed out` or `cancelled`, and whether SLURM has taken the job back by itself already.

        By SLURM's word where it gives one, else by how near the limit is. A job that is being ended is COMPLETING,
        whether its user cancelled it or its time is over.
        """
        state = facts.get("JobState", "RUNNING")
        limit = seconds(facts.get("TimeLimit", "")) or self.order.time_s
        ran = seconds(facts.get("RunTime", "")) or time.time() - self.began  # modules may take long to load
        if int(facts.get("Restarts", self.restart)) > self.restart:
            return "preempted", True
        if facts.get("PreemptTime", "None") not in ("None", "N/A", "Unknown") or state == "PREEMPTED":
            return "preempted", False
        if state == "TIMEOUT" or (state == "COMPLETING" and ran > limit - ENDED_S):
            return "timed out", False
        if state == "COMPLETING" or state.startswith("CANCELLED"):
            return "cancelled", False
        near = ran > max(limit - self.order.notice_s - EARLY_S, limit / 4)
        return ("timed out" if near else "preempted"), False

    def _attempts(self) -> list[Attempt]:
        """Those of this job's kind: what evaluations meet says nothing of training."""
        kind = "train" if self.order.train else "evaluate"
        return [attempt for attempt in self.record.attempts() if attempt.kind == kind]

    def _obstacle(self, cause: str) -> str:
        """Why it would be of no use, or is not wished, to go on; empty where it is."""
        order = self.order
        attempts = self._attempts()
        limits = sum(attempt.outcome == "timed out" for attempt in attempts)
        if cause == "timed out" and limits >= order.timeouts:
            return (
                f"this was time limit {limits + 1}, and preemption.timeouts allows {order.timeouts}: raise "
                f"time or timeouts, then {self.again}"
            )
        images, _ = order.progress()
        idle = [attempt for attempt in attempts[-NO_PROGRESS:-1] if attempt.images == attempt.images_after]
        without = "a new checkpoint" if order.train else "a report"
        if cause == "preempted" or images != self.images or len(idle) < NO_PROGRESS - 1:
            return ""
        if cause == "node failure":
            return (
                f"{NO_PROGRESS} attempts in a row ended without {without}, this one by a node's failure: "
                f"{self.again} tries again"
            )
        return (
            f"{NO_PROGRESS} attempts in a row ended at their time limit of {order.time_s // 60} minutes without "
            f"{without}: raise time, then {self.again}"
        )


def port_of(job: int, restart: int) -> int:
    """Where the processes of a job meet: unlike all starts of the jobs beside it, and unlike its own last ones, whose
    port may still be closing."""
    first, end = PORTS
    return first + job % ((end - first) // STARTS) * STARTS + restart % STARTS


def job_facts(job: str) -> dict[str, str]:
    """What SLURM knows of a job now, as `scontrol show job` has it; empty where that cannot be asked."""
    command = ["scontrol", "-o", "show", "job", job]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {key: value for key, equals, value in (word.partition("=") for word in said.split()) if equals}


def seconds(duration: str) -> int | None:
    """`1-02:03:04` or `02:03:04`, as SLURM tells durations, in seconds; None where it tells none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", duration)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + rest


def say(line: str) -> None:
    print(line, flush=True)
