"""One writer per run: a lease that its holder renews, made of plain files, since Lustre and others may lack locks.

`<run>/.lease/000007.json` is the run's seventh lease; the highest number is the one that counts. Whoever may take over
makes the next number by a hard link, which succeeds for one process only. A holder that finds a higher number than its
own has been taken for gone, and leaves the run alone from then on.

The lease is the run's heartbeat too: rewritten every `BEAT_S` seconds, it says what the run is doing and how far it
is, so that `infogan sweep status` can tell without asking a scheduler. It stays when the run ends and says how.
"""

import errno
import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from shards import atomic, small_json
from shards.errors import UserError

FOLDER = ".lease"
BEAT_S = 10.0
STALE_S = 60.0
"""After so many seconds without a beat, a holder on another machine counts as gone."""

MESSAGE_LENGTH = 1000

_ENDING_S = 2.0  # how long a process of this machine that was told to end, or killed, may take to be gone
_POLL_S = 0.05
_NAME = re.compile(r"(\d{6,})\.json")
_KINDS = {"host": str, "table": str, "pid": int, "started": int | float, "job": str | None, "restart": int}
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Holder:
    """A process that holds, or wants, a run.

    `table`: which table of processes `pid` belongs to, the same for all that could look each other up; `started`: when
    the process was started, since pids are used again; `job` and `restart`: SLURM's id, and how often it was requeued.
    """

    host: str
    table: str
    pid: int
    started: float
    job: str | None
    restart: int

    @classmethod
    def current(cls) -> "Holder":
        return cls(
            platform.node(),
            process_table(),
            os.getpid(),
            psutil.Process().create_time(),
            os.environ.get("SLURM_JOB_ID"),
            restarts(),
        )

    @classmethod
    def parse(cls, plain: Any) -> "Holder":
        """A holder as a file tells of it; ValueError where it tells of none."""
        if isinstance(plain, dict) and plain.keys() == _KINDS.keys():
            found = cls(**plain)
            typed = all(isinstance(plain[key], kind) for key, kind in _KINDS.items())
            if typed and 0 < found.pid < 1 << 31 and 0 <= found.started < 1e11 and found.restart >= 0:
                return found
        raise ValueError("it names no process")

    def gone(self, asking: "Holder") -> bool | None:
        """Whether this process has ended; None where `asking` cannot tell, since it is on another machine."""
        if self.job is not None and self.job == asking.job and asking.restart > self.restart:
            return True  # SLURM starts a job again only after it has ended
        if self.table != asking.table:
            return None
        try:
            process = psutil.Process(self.pid)
            ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return ended or abs(process.create_time() - self.started) > 2
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


@dataclass(frozen=True)
class Heartbeat:
    """What a lease says: its `holder`, and `facts`: `state` (training, finished, stopped or failed), `time`, `beat`,
    and what the run noted: `images`, `stop_images`, `images_per_s`, `mi` (per code, nats), `message`."""

    number: int
    holder: Holder
    facts: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.facts["state"])

    @property
    def held(self) -> bool:
        return self.state == "training"


def restarts() -> int:
    """How often SLURM has put this job back; what is no number counts as never."""
    try:
        return max(int(os.environ.get("SLURM_RESTART_COUNT", "0")), 0)
    except ValueError:
        return 0


def process_table() -> str:
    """Names the set of processes that can see each other: a boot of a machine, and a container in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def read(run: Path) -> Heartbeat | None:
    """The newest lease of a run; None where there is none that can be read."""
    return _newest(run)[1]


class Lease:
    """Held inside the `with` block, and renewed by a thread of its own; made by `acquire`."""

    def __init__(self, run: Path, number: int, holder: Holder) -> None:
        self.run, self.number, self.holder = run, number, holder
        self.path = run / FOLDER / f"{number:06d}.json"
        self._facts: dict[str, Any] = {"state": "training", "beat": 0, "time": time.time()}
        self._ending = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def note(self, **facts: Any) -> None:
        """Add to what the heartbeat says from its next beat on."""
        self._facts = {**self._facts, **facts}

    @property
    def taken_by(self) -> Holder | None:
        """Who took the run over because this process seemed gone; None while it is ours."""
        numbers = [number for number, _ in _leases(self.run)]
        if not numbers or numbers[-1] <= self.number:
            return None
        found = read(self.run)
        return found.holder if found else self.holder

    def create(self) -> bool:
        """Make the lease's file, unless another process was quicker; whatever else lies beside it is cleared away."""
        if not _create(self.path, self.content()):
            return False
        if self.taken_by is not None:  # a process with a higher number had made this one before, and removed it
            self.path.unlink(missing_ok=True)
            return False
        for path in self.path.parent.iterdir():
            if path != self.path:
                path.unlink(missing_ok=True)
        return True

    def content(self) -> bytes:
        return json.dumps({"format": 1, "holder": asdict(self.holder), "facts": self._facts}).encode()

    def beat(self) -> None:
        """Write the heartbeat now; what cannot be written is left out, since the next one may be."""
        with self._writing:
            if self.taken_by is None:
                self.note(beat=self._facts["beat"] + 1, time=time.time())
                try:
                    atomic.write_bytes(self.path, self.content())
                except (UserError, OSError):
                    return

    def _renew(self) -> None:
        while not self._ending.wait(BEAT_S):
            self.beat()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if isinstance(error, Exception):
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.note(state="failed", message=" ".join(said.split())[:MESSAGE_LENGTH])
        elif self._facts["state"] == "training":
            self.note(state="stopped")
        self.beat()


def acquire(run: Path, say: Say) -> Lease:
    """Become the one process that writes to `run`.

    A holder that has ended is followed at once where that can be known: it was of this machine, or of the same SLURM
    job before a requeue. One on another machine is watched until it beats, or has not beaten for `STALE_S` seconds.

    Raises UserError where another process holds the run.
    """
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    me = Holder.current()
    first, begun, told = _newest(run), time.monotonic(), False
    while True:
        number, standing = found = _newest(run)
        if _may_follow(run, number, standing, me):
            lease = Lease(run, number + 1, me)
            if lease.create():
                return lease
            continue
        here = standing is not None and standing.holder.table == me.table
        if standing is not None and (found != first or (here and time.monotonic() > begun + _ENDING_S)):
            raise UserError(
                f"run {run}: another process is training it ({standing.holder}); wait for it, or say --run DIR"
            )
        if standing is not None and not here and not told:
            told = True
            say(f"run {run} was held by {standing.holder}: waiting up to {STALE_S:g} s to see whether it still is")
        time.sleep(_POLL_S if here else 1.0)


def _may_follow(run: Path, number: int, standing: Heartbeat | None, me: Holder) -> bool:
    """Whether nobody holds the run; `standing` is None where there is no lease, or none that can be read."""
    if number == 0 or (standing is not None and not standing.held):
        return True
    gone = standing.holder.gone(me) if standing is not None else None
    return _age(run / FOLDER, number) > STALE_S if gone is None else gone


def _create(path: Path, content: bytes) -> bool:
    """Make a file that no other process has made; it appears whole where the file system has hard links."""
    beside = path.with_name(f".{secrets.token_hex(4)}.probe")
    try:
        beside.write_bytes(content)
        os.link(beside, path)
        return True
    except (FileExistsError, FileNotFoundError):  # it stands; or whoever took the run cleared ours away
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    finally:
        beside.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
        return True
    except FileExistsError:
        return False


def _age(folder: Path, number: int) -> float:
    """Seconds since a lease was written, both times by the clock of the file system, which all machines share."""
    probe = folder / f".{secrets.token_hex(4)}.probe"
    try:
        probe.touch()
        return probe.stat().st_mtime - (folder / f"{number:06d}.json").stat().st_mtime
    except FileNotFoundError:  # somebody took the run over just now
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _newest(run: Path) -> tuple[int, Heartbeat | None]:
    """The highest number, 0 where there is none, and what that lease says; None where it cannot be read."""
    leases = _leases(run)
    if not leases:
        return 0, None
    number, path = leases[-1]
    with suppress(OSError, ValueError):
        content = small_json.mapping(path)
        facts = content.get("facts")
        if isinstance(facts, dict) and isinstance(facts.get("state"), str):
            return number, Heartbeat(number, Holder.parse(content.get("holder")), facts)
    return number, None


def _leases(run: Path) -> list[tuple[int, Path]]:
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted((int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
