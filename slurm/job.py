"""A SLURM job of a run, through submitit: one task per rank, each supervising its trainer.

The task of rank 0 records what happens and, when the run was stopped, decides what becomes of it: put back into the
queue, left to SLURM, or ended with a reason.
"""

import os
import platform
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from submitit.core.job_environment import JobEnvironment
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from slurm.attempts import Record
from slurm.order import Order
from slurm.supervisor import Ending, Signals, as_words, describe_affinity, local_caches, supervise

PORTS = (20000, 32000)  # below those that Linux gives to outgoing connections
WAIT_S = 300.0  # for SLURM to take a job away that it is going to take away
NO_PROGRESS = 3  # attempts in a row that may end without a new checkpoint
ENDED_S = 30.0  # a job that is ended by its time limit has run so long but for what its start took
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
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.log = Path(self.place.paths.stdout)
        self.record = Record(Path(order.sweep), order.run_id)
        self.began = time.time()
        self.images, _ = order.progress()

    def run(self) -> None:
        """Train, then evaluate where that was asked for; a task that returns has done its part."""
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
        elif ending.outcome != "stopped":
            self._fail(ending)
        elif self.rank == 0:
            self._stopped(ending)
        # another rank has nothing to decide; that it leaves with code 0 does not end the job

    def _command(self, words: list[str], more: dict[str, str], training: bool) -> Ending:
        say(as_words(words))
        environment = {**os.environ, **local_caches(self.order.scratch), **more}
        environment["OMP_NUM_THREADS"] = str(self.order.cpus)
        return supervise(self.order, words, self.signals, environment, self.log, watches=training and self.rank == 0)

    def _distributed(self) -> dict[str, str]:
        """What torch.distributed reads; nothing for a run of one process."""
        if self.order.world == 1:
            return {}
        if self.place.num_tasks != self.order.world:
            self._fail(
                Ending("failed", f"{self.order.world} tasks were asked for and SLURM started {self.place.num_tasks}")
            )
        # of its own for each start of each job: one that was just given back may still be closing
        port = random.Random(f"{self.job}/{self.restart}").randint(*PORTS)
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
        if self.rank == 0:
            images, _ = self.order.progress()
            self.record.end(outcome=outcome, message=message, requeued=requeued, images_after=images)

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
        order = self.order
        # srun ends all tasks when one has failed: that is nobody's wish to have the machines back
        alone = self.record.failed_alone(self.job, self.restart)
        if alone is not None:
            self._fail(Ending("killed", alone["message"]))
        cause, taken_back = self._cause(job_facts(self.job))
        if cause == "cancelled":
            return self._end(cause)
        if order.requeue == "none":
            return self._end(cause, f"{ending.message} infogan sweep submit goes on with it".strip())
        obstacle = self._obstacle(cause)
        if obstacle:
            return self._end(cause, obstacle)
        by_slurm = taken_back or order.requeue == "slurm" or shutil.which("scontrol") is None
        if by_slurm and cause == "timed out":
            why = (
                "SLURM requeues nothing after a time limit" if order.requeue == "slurm" else "no scontrol on this node"
            )
            return self._end(cause, f"{why}: infogan sweep submit goes on with it")
        self._end(cause, ending.message or ("left to SLURM to requeue" if by_slurm else ""), requeued=True)
        if not by_slurm:
            try:
                self.place._requeue(order.timeouts - self._timeouts())
            except (OSError, subprocess.SubprocessError) as error:  # SLURM may have taken it back itself just now
                say(f"scontrol requeue {self.job}: {error}")
        time.sleep(WAIT_S)
        say(f"run {order.run_id}: SLURM has not taken the job back in {WAIT_S:g} s; leaving")

    def _cause(self, facts: dict[str, str]) -> tuple[str, bool]:
        """`preempted`, `timed out` or `cancelled`, and whether SLURM has taken the job back by itself already.

        By SLURM's word where it gives one, else by how near the limit is. A job that is being ended is COMPLETING,
        whether its user cancelled it or its time is over.
        """
        state, limit, ran = facts.get("JobState", "RUNNING"), self.order.time_s, time.time() - self.began
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

    def _timeouts(self) -> int:
        return sum(attempt.outcome == "timed out" for attempt in self.record.attempts())

    def _obstacle(self, cause: str) -> str:
        """Why it would be of no use, or is not wished, to go on; empty where it is."""
        order = self.order
        if cause == "timed out" and self._timeouts() >= order.timeouts:
            return (
                f"this was time limit {self._timeouts() + 1}, and preemption.timeouts allows {order.timeouts}: raise "
                "time or timeouts, then infogan sweep submit"
            )
        images, _ = order.progress()
        idle = [
            attempt for attempt in self.record.attempts()[-NO_PROGRESS:-1] if attempt.images == attempt.images_after
        ]
        if cause == "timed out" and images == self.images and len(idle) == NO_PROGRESS - 1:
            return (
                f"{NO_PROGRESS} attempts in a row ended at their time limit of {order.time_s // 60} minutes without a "
                "new checkpoint: raise time, then infogan sweep submit"
            )
        return ""


def job_facts(job: str) -> dict[str, str]:
    """What SLURM knows of a job now, as `scontrol show job` has it; empty where that cannot be asked."""
    command = ["scontrol", "-o", "show", "job", job]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {key: value for key, equals, value in (word.partition("=") for word in said.split()) if equals}


def say(line: str) -> None:
    print(line, flush=True)
