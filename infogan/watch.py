"""The processes of a run watch over each other: one that is gone or hangs ends them all, soon, with one message.

Each process publishes where training stands, from a thread of its own, through the store by which the processes found
each other. Rank 0 reads them all, and all read rank 0. The training loop itself only sets a field: it waits for
nothing, and asks nothing of the device.

- A process of which nothing is heard for `patience` seconds is gone, or stopped, or its machine is.
- One that is heard of but stands still while the others wait for it, hangs; where all stand still in the same place, a
  collective does. That takes `patience` seconds too, or three times the longest phase so far where that is longer.
- Places that may last, such as pictures or the wait for data, are `patient`: standing still there means nothing.

The first process that learns of a failure tells it, and all of them leave.
"""

import json
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import psutil
import torch.distributed as dist

from infogan.lease import process_table
from shards.errors import UserError

EXIT_PART_FAILED = 75  # EX_TEMPFAIL of sysexits.h: try again
PUBLISH_S = 0.5
ALARMED_S = 4.0  # silence that suffices once a collective has failed, as they do where a process of theirs dies
FIRST_UPDATE_S = 600.0  # for an update in which libraries may compile, or try out what is fastest
SLOWER = 3  # times the longest phase so far: what takes longer hangs
FORGET = 0.95  # of the longest phase is kept from one phase to the next: one may have waited for another's data

ALL_END = "all processes end here, and the same command resumes"

Who = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a process stands; `moves` counts the places before it, which are the same for every process."""

    phase: str = "start"
    update: int = 0
    patient: bool = True
    moves: int = 0

    def __str__(self) -> str:
        return f"{self.phase} phase of update {self.update}"


class Watch:
    """Looks after the processes of one run; where there is only one, there is nothing to do."""

    def __init__(self, rank: int, world: int, patience: float) -> None:
        self.rank, self.world, self.patience = rank, world, patience
        self.place = Place()
        self._since = time.monotonic()
        self._longest: float | None = None  # seconds of a phase; unknown until the first update is over
        self._interval = min(PUBLISH_S, patience / 8)
        self._alarmed_patience = min(ALARMED_S, patience)
        self._alarmed = False
        self._beat = 0
        self._leaving = threading.Event()
        self._who = _who()
        if world > 1:
            self._begin()

    def at(self, phase: str, update: int | None = None, *, patient: bool = False) -> None:
        """Say where this process stands. All processes have to pass the same places in the same order."""
        now, before = time.monotonic(), self.place
        if self._longest is not None and not before.patient:
            self._longest = max(FORGET * self._longest, now - self._since)
        elif update is not None and before.update not in (0, update):
            self._longest = 0.0
        self._since = now
        self.place = Place(phase, before.update if update is None else update, patient, before.moves + 1)

    @contextmanager
    def over(self) -> Iterator[None]:
        """While the block runs, an error in it ends every process, and the first that has one tells it."""
        if self.world == 1:
            yield
            return
        before = signal.signal(signal.SIGTERM, _terminated)  # from a launcher that has seen another process die
        try:
            yield
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._failed(error)
        else:
            signal.signal(signal.SIGTERM, before)

    def close(self) -> None:
        """Stop watching: this process, and so every other, is done."""
        self._leaving.set()

    # ---- in the thread that trains ----------------------------------------------------------------------------

    def _begin(self) -> None:
        store: Any = dist.distributed_c10d._get_default_store()
        self._store = store.clone()  # a connection of its own, since a call of a store waits for the one before
        self._publish()
        self._store.set(f"watch/who/{self.rank}", json.dumps(self._who))
        self._watched: dict[int, Who] = {}
        if self.rank == 0:
            self._watched = {rank: json.loads(self._store.get(f"watch/who/{rank}")) for rank in range(1, self.world)}
            elsewhere = [rank for rank, who in self._watched.items() if who["machine"] != self._who["machine"]]
            self._store.set("watch/verdict", "")
            self._store.set("watch/deputy", str(min(elsewhere, default=1)))
        self._deputy = int(self._store.get("watch/deputy"))
        if self.rank != 0:
            self._watched = {0: json.loads(self._store.get("watch/who/0"))}
        self._places, self._beats = dict.fromkeys(self._watched, Place()), dict.fromkeys(self._watched, 0)
        self._heard = dict.fromkeys(self._watched, time.monotonic())
        self._moved = dict(self._heard)
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, name=f"watch{work.__name__}", daemon=True).start()

    def _failed(self, error: BaseException) -> NoReturn:
        if isinstance(error, RuntimeError | _Terminated):
            self._alarmed = True  # where another process has died, the judge now ends this one before the sleep does
            time.sleep(self._alarmed_patience + 6 * self._interval)
        elif self.rank > 0:
            time.sleep(2 * self._interval)  # where all fail alike, rank 0 tells it
        if os.environ.get("INFOGAN_TRACEBACK", "") not in ("", "0"):
            traceback.print_exception(error)
        if isinstance(error, _Terminated | KeyboardInterrupt):
            number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
            self._end("interrupted", 128 + number)
        if isinstance(error, UserError):
            self._end(f"{self._error()}{' '.join(str(error).split())}", 2)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        self._end(
            f"{self._error()}rank {self.rank} {_told(self._who)} failed in the {self.place}: {what}; "
            f"INFOGAN_TRACEBACK=1 shows where; {ALL_END}",
            1,
        )

    # ---- in the threads that watch ----------------------------------------------------------------------------

    def _exchange(self) -> None:
        """Publish and read, again and again. The store may let it wait for ever, so it is not the one that judges."""
        while not self._leaving.wait(self._interval):
            try:
                self._publish()
                verdict, *states = self._store.multi_get(
                    ["watch/verdict", *(f"watch/{rank}" for rank in self._watched)]
                )
            except RuntimeError:  # it was rank 0's, which is gone: the judge will notice
                continue
            if verdict and not self._leaving.is_set():
                self._follow(json.loads(verdict))
            for rank, state in zip(self._watched, map(json.loads, states), strict=True):
                self._note(rank, state.pop("beat"), state.pop("alarmed"), Place(**state))

    def _publish(self) -> None:
        self._beat += 1
        state = {"beat": self._beat, "alarmed": self._alarmed, **asdict(self.place)}
        self._store.set(f"watch/{self.rank}", json.dumps(state))

    def _note(self, rank: int, beat: int, alarmed: bool, place: Place) -> None:
        now = time.monotonic()
        self._alarmed |= alarmed
        if beat != self._beats[rank]:
            self._beats[rank], self._heard[rank] = beat, now
        if place.moves != self._places[rank].moves:
            self._moved[rank] = now
        self._places[rank] = place

    def _judge(self) -> None:
        looked = time.monotonic()
        while not self._leaving.wait(self._interval):
            now = time.monotonic()
            if now - looked > 4 * self._interval:  # this process was stopped, and perhaps the others with it
                self._heard, self._moved = dict.fromkeys(self._heard, now), dict.fromkeys(self._moved, now)
                self._since = now
            looked = now
            for rank, heard in self._heard.items():
                if now - heard > (self._alarmed_patience if self._alarmed else self.patience):
                    self._lost(rank, now - heard)
            if self.rank == 0:
                self._judge_stillness(now)

    def _lost(self, rank: int, seconds: float) -> NoReturn:
        line = (
            f"{self._error()}rank {rank} {_told(self._watched[rank])} is gone or stopped: nothing was heard of it for "
            f"{seconds:.0f} s; it was in the {self._places[rank]}; {ALL_END}"
        )
        # who loses rank 0 may have lost the store with it, through which only one speaks
        self._end(line if rank > 0 or self.rank == self._deputy else None, EXIT_PART_FAILED, self._watched[rank])

    def _judge_stillness(self, now: float) -> None:
        places, moved = {0: self.place, **self._places}, {0: self._since, **self._moved}
        fewest = min(place.moves for place in places.values())
        last = [rank for rank, place in places.items() if place.moves == fewest]
        still = now - max(moved[rank] for rank in last)
        limit = FIRST_UPDATE_S if self._longest is None else max(self.patience, SLOWER * self._longest)
        limit *= 2 if self._alarmed else 1  # the one that failed is about to tell why
        place = places[last[0]]
        if still <= limit or place.patient:
            return
        if len(last) == len(places):
            line, culprit = (
                f"no process has moved for {still:.0f} s: all are in the {place}, where something hangs",
                None,
            )
        else:
            culprit = self._watched.get(last[0], self._who)
            line = (
                f"rank {last[0]} {_told(culprit)} hangs: for {still:.0f} s it has been in the {place}, and others wait"
            )
        self._end(f"{self._error()}{line}; {ALL_END}", EXIT_PART_FAILED, culprit)

    # ---- leaving ----------------------------------------------------------------------------------------------

    def _error(self) -> str:
        return "error: " if self.rank == 0 else f"error (rank {self.rank}): "

    def _end(self, line: str | None, code: int, culprit: Who | None = None) -> NoReturn:
        """End this process, and through a verdict in the store all others; tell `line` unless another has spoken."""
        self._leaving.set()
        verdict = json.dumps({"rank": self.rank, "code": code, "culprit": culprit})
        lost = self.rank > 0 and culprit == self._watched[0]
        with suppress(RuntimeError):
            if not lost and self._store.compare_set("watch/verdict", "", verdict).decode() != verdict:
                line = None
        if line is not None:
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
        self._follow({"code": code, "culprit": culprit})

    def _follow(self, verdict: dict[str, Any]) -> NoReturn:
        """Leave as the verdict says, but not before the others have read it: the store may be this process's."""
        self._leaving.set()
        culprit = verdict["culprit"]
        if culprit is not None and culprit["machine"] == self._who["machine"] and culprit != self._who:
            with suppress(psutil.Error):
                process = psutil.Process(culprit["pid"])
                if process.create_time() == culprit["born"]:
                    process.kill()
        time.sleep(4 * self._interval)
        os._exit(verdict["code"])


class _Terminated(BaseException):
    """SIGTERM came outside the training loop, which would have saved."""


def _terminated(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _who() -> Who:
    """This process, in a way in which another on its machine finds it and no other."""
    return {
        "pid": os.getpid(), "born": psutil.Process().create_time(), "host": platform.node(), "machine": process_table()
    }  # fmt: skip


def _told(who: Who) -> str:
    return f"(process {who['pid']} on {who['host']})"
