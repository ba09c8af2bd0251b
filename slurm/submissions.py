"""What was sent, by whom and with which code: one file per submission, `submissions/<time>-<host>-<pid>.json`.

It is written before anything is sent and says what is about to be; the ids of jobs are added as SLURM gives them. So
two that submit at once see each other, and one that is interrupted forgets no job.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infogan.lease import Holder
from shards import atomic
from shards.errors import UserError

FOLDER = "submissions"
FRESH_S = 300.0
"""How long a submission on another machine, whose processes cannot be looked up, counts as under way."""

_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Submission:
    """The newest job of each run, and the code that was sent with it."""

    jobs: dict[str, str]
    code: dict[str, str]


def submissions(sweep: Path) -> list[dict[str, Any]]:
    """Every submission so far, oldest first: `time`, `holder`, `open` (under way, or cut off), `kind` (train or
    evaluate), `cluster`, and by run: `code`, for what was to be sent, and `jobs`, for what was."""
    return [entry for _, entry in _read(sweep / FOLDER)]


def _read(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # of one that has sent nothing after all
            found.append((path, json.loads(path.read_bytes())))
    return sorted(found, key=lambda pair: float(pair[1]["time"]))


def newest(sweep: Path) -> Submission:
    jobs: dict[str, str] = {}
    code: dict[str, str] = {}
    for entry in submissions(sweep):
        if entry["kind"] == "train":
            jobs |= entry["jobs"]
            code |= {run: entry["code"][run] for run in entry["jobs"]}
    return Submission(jobs, code)


class Turn:
    """One submission, from before it is decided what to send until all of that is sent."""

    def __init__(self, sweep: Path) -> None:
        now = time.time()
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}"
        self._path = sweep / FOLDER / f"{stamp}-{atomic.HOST}-{os.getpid()}.json"  # nobody else's
        self._facts: dict[str, Any] = {
            "format": 1, "time": now, "holder": asdict(Holder.current()), "open": True,
            "kind": "", "cluster": "", "code": {}, "jobs": {},
        }  # fmt: skip
        self.cut_off = ""
        """Who was killed while sending, if the submission before was; jobs of it may be unknown here."""

    def intend(self, *, kind: str, cluster: str, code: Mapping[str, str]) -> None:
        """Write down what is about to be sent: `code`, by run."""
        self._facts |= {"kind": kind, "cluster": cluster, "code": dict(code)}
        self._write()

    def note(self, jobs: Mapping[str, str]) -> None:
        """Write down what was sent: job ids by run."""
        self._facts["jobs"] |= jobs
        self._write()

    def _begin(self) -> None:
        """Say first that this process is about to send, and look for others then: of two at once, one sees the other.

        Raises UserError where another process is at it.
        """
        self._write()
        written = self._path.stat().st_mtime
        others = [pair for pair in _read(self._path.parent) if pair[0] != self._path]
        for path, entry in others:
            holder = Holder(**entry["holder"])
            gone = not entry["open"] or holder.gone(Holder.current())
            if gone is None:
                gone = written - path.stat().st_mtime > FRESH_S
            if not gone:
                raise UserError(
                    f"sweep {self._path.parent.parent}: {holder} is submitting just now: wait for it, then run the "
                    "same command again"
                )
            cut_off = entry["open"] and entry["code"].keys() != entry["jobs"].keys()
            self.cut_off = str(holder) if cut_off else ""  # of the newest

    def end(self) -> None:
        """Let others submit: all that was meant to be sent is sent."""
        self._facts["open"] = False
        if self._facts["jobs"]:
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        atomic.write_json(self._path, self._facts)


@contextmanager
def turn(sweep: Path) -> Iterator[Turn]:
    """The right to decide what to send for a sweep, and to send it; one process has it at a time.

    Raises UserError where another has it.
    """
    mine = Turn(sweep)
    try:
        mine._begin()
        yield mine
    finally:
        mine.end()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What tells this process to end while the block runs takes effect after it, and spares the programs that it starts
    altogether: they inherit what is blocked. Another thread may receive the signal, so it is handled as well."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in _HELD}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
