"""What each job of a run did: one line when it began and one when it ended, in the sweep's `attempts/ID.jsonl`.

The process of rank 0 writes them, each with the job, its kind (`train` or `evaluate`) and how often it was restarted.
An attempt that was killed has no second line. A rank that fails alone, or only because another one has, says so in
`attempts/ID.rank<n>.json`, since two machines cannot append to one file safely.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards import atomic
from slurm import records
from slurm.parsing import cut
from slurm.runfolder import heartbeat

if TYPE_CHECKING:
    from slurm.order import Order

Line = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One job of a run from its start, or its requeue, to its end. Times are seconds since 1970.

    `checkpoint_time`, `last_sign`: when the newest checkpoint and the last heartbeat that it found were written. `cpus`
    and `gpus`: of all its processes together. `ended`: None where nobody said so.
    """

    began: float
    kind: str = "train"
    job: str = ""
    restart: int = 0
    images: int = 0
    checkpoint_time: float = 0.0
    last_sign: float = 0.0
    cpus: int = 1
    gpus: int = 0
    code: str = ""
    log: str = ""
    ended: float | None = None
    outcome: str = ""
    message: str = ""
    requeued: bool = False
    images_after: int | None = None


_FIELDS = {field.name: field.default for field in fields(Attempt) if field.name not in ("began", "ended")}


class Record:
    """The attempts of one run."""

    def __init__(self, sweep: Path, run_id: str) -> None:
        self.path = sweep / "attempts" / f"{run_id}.jsonl"

    def begin(self, order: "Order", job: str, restart: int, log: Path) -> None:
        """Note that a job begins with a run, and how that stands."""
        images, checkpoint_time = order.progress()
        heart = heartbeat(Path(order.run))
        self._append(
            {
                "event": "begin", "time": time.time(), "kind": "train" if order.train else "evaluate", "job": job,
                "restart": restart, "images": images,
                "checkpoint_time": checkpoint_time,
                "last_sign": float(heart.facts["time"]) if heart is not None else 0.0,
                "cpus": order.world * max(order.cpus, 1), "gpus": order.world * order.gpus, "code": order.code,
                "log": str(log),
            }
        )  # fmt: skip

    def end(self, job: str, restart: int, **facts: Any) -> None:
        """Note how a job ended."""
        self._append({"event": "end", "time": time.time(), "job": job, "restart": restart, **facts})

    def fail_alone(self, rank: int, host: str, job: str, restart: int, message: str, *, bereft: bool = False) -> None:
        """Say why a rank other than 0 ended; `bereft`: only because another one is gone, hangs or failed."""
        path = self.path.with_name(f"{self.path.stem}.rank{rank}.json")
        facts = {"time": time.time(), "rank": rank, "host": host, "job": job, "restart": restart, "message": message}
        atomic.write_json(path, facts | {"bereft": bereft})

    def failed_alone(self, job: str, restart: int) -> Line | None:
        """The first failure of a rank other than 0 in one start of a job, of those that are nobody else's."""
        found = [line for line in self._of_ranks(job, restart) if line.get("bereft") is not True]
        return min(found, key=lambda line: line["time"], default=None)

    def bereft(self, job: str, restart: int) -> int:
        """How many ranks other than 0 have said in one start of a job that another's end has ended them."""
        return sum(line.get("bereft") is True for line in self._of_ranks(job, restart))

    def _of_ranks(self, job: str, restart: int) -> list[Line]:
        found = []
        for path in self.path.parent.glob(f"{self.path.stem}.rank*.json"):
            line = records.mapping(path)
            if not (records.number(line.get("time")) and isinstance(line.get("message"), str)):
                records.ignore(path, "it says no time or no message")
            elif (line.get("job"), line.get("restart")) == (job, restart):
                found.append(line)
        return found

    def attempts(self) -> list[Attempt]:
        """All attempts so far, oldest first."""
        found: list[Attempt] = []
        for line in self._lines():
            event, when = line["event"], line["time"]
            known = {
                key: line[key] for key in line.keys() & _FIELDS.keys()
            }  # a job may run older or newer code than this
            if event == "begin":
                found.append(Attempt(began=when, **known))
                continue
            whose = line.get("job"), line.get("restart", 0)
            same = [n for n, one in enumerate(found) if whose == (one.job, one.restart)]
            if same:
                found[same[-1]] = replace(found[same[-1]], ended=when, **known)
        return found

    def _append(self, line: Line) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.explained(self.path), self.path.open("ab+") as file:
            begun = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * begun + json.dumps(line).encode() + b"\n")  # a kill may have torn the line before

    def _lines(self) -> Iterator[Line]:
        """Whole lines; one that a kill tore is left out."""
        for line in records.rows(self.path):
            if _sound(line):
                yield line
            else:
                records.ignore(self.path, f"a line in it is none of an attempt ({cut(json.dumps(line))})")


def _sound(line: Line) -> bool:
    """Whether a line can be read as the beginning or the end of an attempt."""
    if line.get("event") not in ("begin", "end") or not records.moment(line.get("time")):
        return False
    for key in line.keys() & _FIELDS.keys():
        value, usual = line[key], _FIELDS[key]
        typed = isinstance(value, type(usual)) if isinstance(usual, str | bool) else records.number(value)
        if not typed and (value, usual) != (None, None):
            return False
    return True
