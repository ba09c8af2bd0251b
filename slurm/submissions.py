"""What was sent, by whom and with which code: one file per submission, `submissions/<time>-<host>-<pid>.json`.

It is written before anything is sent and says what is about to be, array by array; the ids of jobs are added as SLURM
gives them. So two that submit at once see each other, and the jobs of one that was killed can be told (`slurm.strays`).
"""

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infogan.lease import Holder
from shards import atomic, small_json
from shards.errors import UserError
from slurm import records

Entry = dict[str, Any]

FOLDER = "submissions"
FRESH_S = 300.0
"""How long a submission on another machine, whose processes cannot be looked up, counts as under way."""

_JOB = re.compile(r"\w[\w.-]*")
_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Submission:
    """The newest job of each run, and the code that was sent with it."""

    jobs: dict[str, str]
    code: dict[str, str]


def submissions(sweep: Path) -> list[Entry]:
    """Every submission so far, oldest first: `name`, `time`, `holder`, `open` (under way, or cut off), `kind` (train or
    evaluate), `cluster`, `arrays` (the runs of each job array, in its order, from before it was sent), and by run:
    `code`, for what was to be sent, and `jobs`, for what was. Files that `damaged` names are left out."""
    return [entry for _, entry in _read(sweep / FOLDER)[0]]


def damaged(sweep: Path) -> list[str]:
    """A line for each file of a submission that cannot be read. The jobs that it told of are not known then."""
    return [
        f"{path}: damaged: {why}: jobs that it told of are not known; remove it, and infogan sweep submit asks SLURM "
        "for them"
        for path, why in _read(sweep / FOLDER)[1]
    ]


def refuse_damaged(sweep: Path) -> None:
    """Raise UserError where a file of a submission cannot be read: what it told of would be sent again."""
    for line in damaged(sweep):
        raise UserError(line)


def _read(folder: Path) -> tuple[list[tuple[Path, Entry]], list[tuple[Path, str]]]:
    """The submissions of a folder, oldest first, and the files that hold none, with what is wrong with each."""
    found, torn = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append((path, _load(path)))
        except FileNotFoundError:  # of one that has sent nothing after all
            continue
        except (OSError, ValueError) as error:
            torn.append((path, records.words(error)))
    return sorted(found, key=lambda pair: float(pair[1]["time"])), torn


def _load(path: Path) -> Entry:
    """The submission that a file tells of; OSError or ValueError where it cannot be read, or tells of none."""
    entry = {"arrays": [], **small_json.mapping(path), "name": path.stem}  # older ones do not tell their arrays
    Holder.parse(entry.get("holder"))
    code, jobs, arrays = entry.get("code"), entry.get("jobs"), entry["arrays"]
    wrong = {
        "time": not records.moment(entry.get("time")),
        "open": not isinstance(entry.get("open"), bool),
        "cluster": not isinstance(entry.get("cluster"), str),
        "kind": entry.get("kind") not in (("train", "evaluate") if jobs else ("train", "evaluate", "")),
        "code": not (isinstance(code, dict) and _texts(code.values())),
        "jobs": not (isinstance(jobs, dict) and _texts(jobs.values()) and all(map(_JOB.fullmatch, jobs.values()))),
        "arrays": not (isinstance(arrays, list) and all(isinstance(runs, list) and _texts(runs) for runs in arrays)),
    }
    if any(wrong.values()):
        raise ValueError(f"{', '.join(key for key, is_so in wrong.items() if is_so)}: not as a submission writes it")
    if not entry["jobs"].keys() <= entry["code"].keys():
        raise ValueError("jobs of nothing that was to be sent")
    return entry


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


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
        self._facts: Entry = {
            "format": 1, "time": now, "holder": asdict(Holder.current()), "open": True,
            "kind": "", "cluster": "", "code": {}, "arrays": [], "jobs": {},
        }  # fmt: skip

    def intend(self, *, kind: str, cluster: str, code: Mapping[str, str]) -> None:
        """Write down what is about to be sent: `code`, by run."""
        self._facts |= {"kind": kind, "cluster": cluster, "code": dict(code)}
        self._write()

    def array(self, runs: Sequence[str]) -> tuple[str, int]:
        """Write down which job array is sent next; the submission and the number by which it can be told."""
        self._facts["arrays"].append(list(runs))
        self._write()
        return self._path.stem, len(self._facts["arrays"]) - 1

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
        refuse_damaged(self._path.parent.parent)
        others = [pair for pair in _read(self._path.parent)[0] if pair[0] != self._path]
        for path, entry in others:
            holder = Holder(**entry["holder"])
            gone = not entry["open"] or holder.gone(Holder.current())
            if gone is None:
                gone = abs(written - path.stat().st_mtime) > FRESH_S  # no file of a living one is of the future
            if not gone:
                raise UserError(
                    f"sweep {self._path.parent.parent}: {holder} is submitting just now: wait for it, then run the "
                    "same command again"
                )

    def end(self) -> None:
        """Let others submit: all that was meant to be sent is sent."""
        self._facts["open"] = False
        if self._facts["jobs"] or self._facts["arrays"]:  # SLURM may have those whose ids it has not told
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        atomic.write_json(self._path, self._facts)


def note_later(sweep: Path, submission: str, jobs: Mapping[str, str]) -> None:
    """Write down what a submission has sent that ended before it could."""
    path = sweep / FOLDER / f"{submission}.json"
    entry = {key: value for key, value in _load(path).items() if key != "name"}
    atomic.write_json(path, {**entry, "open": False, "jobs": {**entry["jobs"], **jobs}})


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
    altogether: they inherit what is blocked. Another thread may receive the signal, so it is handled as well. What is
    ignored, as nohup has it, stays so."""
    came: list[int] = []
    held = [number for number in _HELD if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in held}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _raise(list(dict.fromkeys(came)))


def _raise(numbers: Sequence[int]) -> None:
    """Take signals one after another, also where the first raises an exception."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _raise(numbers[1:])
