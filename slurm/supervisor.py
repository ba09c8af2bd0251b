"""What stands between a scheduler and a run: starts the trainer as a child, hands signals on, and says how it ended.

One supervisor per task. The child is the command that a user could give; it saves at a step boundary, all ranks
together, when it is told to stop. What becomes of the run then is decided by the supervisor of rank 0 (`slurm.job`).
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infogan.interruption import EXIT_PART_FAILED
from launch.train import EXIT_STOPPED
from slurm.condition import Condition
from slurm.order import Order, expanded
from slurm.runfolder import last_row, tail

LOOK_S = 0.2
HOPELESS_S = 5.0
MARGIN_S = 5.0  # what is left of the notice when a child that has not saved by then is killed


@dataclass(frozen=True)
class Ending:
    """How a child ended: `finished`, `stopped` (saved), `hopeless`, `failed` or `killed`, and what there is to say.

    `bereft`: it ended only because another process of the run is gone, hangs or failed.
    """

    outcome: str
    message: str = ""
    bereft: bool = False


class Signals:
    """The first signal that told this process to stop, and when; every later one is counted, and handed on as well."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.since = 0.0
        self.count = 0
        self._children: list[subprocess.Popen[bytes]] = []

    def install(self) -> None:
        """Take the signals over, from submitit too: its own handler would leave before the ranks have saved."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: self.stop(signal.Signals(number).name))
        signal.signal(signal.SIGCONT, signal.SIG_IGN)

    def stop(self, name: str) -> None:
        self.count += 1
        if self.name is None:
            self.name, self.since = name, time.time()
        for child in self._children:
            send(child, signal.Signals[name])

    def start(self, words: list[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a child that is told of every signal from now on, in a session of its own: a terminal's Ctrl-C, which
        reaches every process of a session, is handed on once."""
        child = subprocess.Popen(words, start_new_session=True, **options)  # type: ignore[call-overload]
        self._children.append(child)
        if self.name is not None:
            send(child, signal.SIGTERM)
        return child

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        self._children.remove(child)


def send(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        child.send_signal(number)


def supervise(
    order: Order,
    words: list[str],
    signals: Signals,
    environment: Mapping[str, str],
    log: Path,
    *,
    watches: bool,
    output: object = None,
) -> Ending:
    """Run one command of a run to its end.

    `watches`: whether this process looks for the conditions that make a run hopeless. `log`: where the child's output
    goes, whether by `output` or by being inherited; the error that it prints is read there.
    """
    began = log.stat().st_size if log.is_file() else 0
    child = signals.start(words, cwd=order.folder, env=dict(environment), stdout=output, stderr=output)
    watch = Watch(order) if watches else None
    try:
        killed_late = _wait(child, signals, order.notice_s, watch)
    finally:
        signals.forget(child)
    if watch is not None and watch.reason and child.returncode in (*EXIT_STOPPED.values(), -signal.SIGTERM):
        return Ending("hopeless", watch.reason)
    if killed_late and order.progress()[1] < signals.since:
        return Ending("stopped", "it had not saved in time and was killed: it goes on from its last checkpoint")
    if killed_late:
        return Ending("stopped")
    return _ending(child.returncode, signals, log, began)


def _wait(child: "subprocess.Popen[bytes]", signals: Signals, notice_s: int, watch: "Watch | None") -> bool:
    """Wait for the child; whether it was killed because the time that it had for saving was over."""
    while True:
        try:
            child.wait(LOOK_S)
            return False
        except subprocess.TimeoutExpired:
            pass
        late = time.time() - signals.since > max(notice_s - MARGIN_S, notice_s / 2)
        if notice_s and signals.name in ("SIGUSR2", "SIGTERM") and late:
            child.kill()
            child.wait()
            return True
        if watch is not None and watch.says_stop():
            send(child, signal.SIGTERM)


def _ending(code: int, signals: Signals, log: Path, began: int) -> Ending:
    if code == 0:
        return Ending("finished")
    if code in EXIT_STOPPED.values():
        return Ending("stopped")
    if code < 0:
        name = signal.Signals(-code).name
        if signals.name is not None:  # it did not listen yet, or no longer
            return Ending("stopped", "it ended at once when told to stop: what was saved before stays")
        guess = ", as when memory runs out" if name == "SIGKILL" else ""
        return Ending("killed", f"the training process was ended by {name}{guess}")
    said = error_line(log, began) or f"the training process ended with code {code}"
    return Ending("killed", said, bereft=True) if code == EXIT_PART_FAILED else Ending("failed", said)


def error_line(log: Path, began: int) -> str:
    """The last line of a log, from byte `began` on, by which a command of ours, or Python, said what went wrong."""
    lines = [line.strip() for line in tail(log, 400, began)]
    for wanted in ("error: ", "error (rank "):
        for line in reversed(lines):
            if line.startswith(wanted):
                return line
    return next((line for line in reversed(lines) if "Error" in line or "Exception" in line), "")


class Watch:
    """Looks in a run's log for what makes it hopeless."""

    def __init__(self, order: Order) -> None:
        self._run = Path(order.run)
        self._conditions = [Condition.parse(text) for text in order.stop_if]
        self._next = 0.0
        self.reason = ""

    def says_stop(self) -> bool:
        """Whether a condition holds; asked again, the answer is no."""
        if self.reason or not self._conditions or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + HOPELESS_S
        for condition in self._conditions:
            row = last_row(self._run, condition.metric)
            if condition.holds(row):
                self.reason = (
                    f"{condition.metric} was {row[condition.metric]:.4g} at {row['kimg']:g} kimg: stop_if "
                    f"{condition.text!r}"
                )
                return True
        return False


def with_caches(environment: Mapping[str, str], scratch: str | None) -> dict[str, str]:
    """An environment in which compilers and plotters keep what they make on the node's own disk, not in a home that all
    nodes share; where it says itself where they do, that holds."""
    root = Path(expanded(scratch, environment) if scratch else environment.get("TMPDIR", "/tmp"))
    folder = root / f"infogan-caches-{os.getuid()}"
    places = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib"}
    return {variable: str(folder / name) for variable, name in places.items()} | dict(environment)


def describe_affinity(cpus: int, say: Callable[[str], None]) -> str | None:
    """Print the CPUs that this task may use; what is wrong where they are fewer than asked for."""
    allowed = sorted(os.sched_getaffinity(0))
    say(f"CPUs {','.join(map(str, allowed))} ({len(allowed)}), {cpus} asked for")
    if len(allowed) >= cpus:
        return None
    return (
        f"{cpus} CPUs per process were asked for and this one may use {len(allowed)}: check cpus_per_process against "
        "the cluster's --cpu-bind and cgroup settings (srun: [--cpu-bind=none] in the cluster file may help)"
    )


def as_words(words: list[str]) -> str:
    """A command for a log."""
    return " ".join(word if all(c not in word for c in " \"'$") else json.dumps(word) for word in words)
