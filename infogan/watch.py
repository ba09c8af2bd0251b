"""The processes of a run watch over each other: one that is gone or hangs ends them all, soon, with one message.

Each process publishes where training stands, from a thread of its own, through the store by which the processes found
each other. Rank 0 reads them all, and all read rank 0. The training loop itself only sets a field: it waits for
nothing, and asks nothing of the device.

- A process of which nothing is heard for `patience` seconds is gone, or stopped, or its machine is.
- One that is heard of but stands still while the others wait for it, hangs; where all stand still in the same place, a
  collective does. That takes `patience` seconds too, or three times the longest phase so far where that is longer;
  until the first update since the start, or a resume, is over, it takes FIRST_UPDATE_S.
- Places that may last, such as pictures, the wait for data, or `start` until the networks stand, are `patient`:
  standing still there means nothing. Who has done its part and waits at a barrier is patient no more: where nobody
  stands further back, it waits in vain.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import psutil
import torch.distributed as dist

from infogan.interruption import EXIT_PART_FAILED
from infogan.lease import process_table
from infogan.stillness import Place, judge
from shards.errors import UserError

PUBLISH_S = 0.5
ALARMED_S = 4.0  # silence that suffices once a collective has failed, as they do where a process of theirs dies
FIRST_UPDATE_S = 600.0  # for an update in which libraries may compile, or try out what is fastest
SPEAK_S = 2.0  # for the store to answer whether another has spoken; that of a frozen machine does not
SLOWER = 3  # times the longest phase so far: what takes longer hangs
TOLD = "INFOGAN_TOLD"  # in the environment: the file by which a launcher of ours knows that one has spoken
FORGET = 0.95  # of the longest phase is kept from one phase to the next: one may have waited for another's data

INTERRUPTED = "interrupted"
ALL_END = "all processes end here, and the same command resumes"

Who = dict[str, Any]


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
        self._signals: int | None = None  # where the numbers of signals can be read as they come
        self._terminated: float | None = None
        self._who = _who()
        held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._launcher = os.getppid() if held else None  # it holds the store, or stands for who does
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
        self._signals, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
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
            time.sleep(self._seconds_to_tell())
        elif self.rank > 0:
            time.sleep(2 * self._interval)  # where all fail alike, rank 0 tells it
        if os.environ.get("INFOGAN_TRACEBACK", "") not in ("", "0"):
            traceback.print_exception(error)
        if isinstance(error, _Terminated | KeyboardInterrupt):
            number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
            self._end(INTERRUPTED, 128 + number)
        if isinstance(error, UserError):
            self._end(f"{self._error()}{' '.join(str(error).split())}", 2)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        self._end(
            f"{self._error()}rank {self.rank} {_told(self._who)} failed in the {self.place}: {what}; "
            f"INFOGAN_TRACEBACK=1 shows where; {ALL_END}",
            1,
        )

    def _seconds_to_tell(self) -> float:
        """Until the judge has ended this process where another one is gone."""
        return self._alarmed_patience + 6 * self._interval

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
            if self._launcher not in (None, os.getppid()):
                line = f"{self._error()}the launcher (process {self._launcher}) is gone; {ALL_END}"
                self._end(line if os.environ.get("LOCAL_RANK") == "0" else None, EXIT_PART_FAILED)
            for rank, heard in self._heard.items():
                if now - heard > (self._alarmed_patience if self._alarmed else self.patience):
                    self._lost(rank, now - heard)
            self._judge_signals(now)
            if self.rank == 0:
                self._judge_stillness(now)

    def _judge_signals(self, now: float) -> None:
        """End this process where SIGTERM came and Python's handler is not called, since a wait in C++ does not end."""
        if self._signals is None:
            return
        with suppress(BlockingIOError):
            if signal.SIGTERM in os.read(self._signals, 4096) and signal.getsignal(signal.SIGTERM) is _terminated:
                self._terminated = now
        if self._terminated is not None and now - self._terminated > 2 * self._seconds_to_tell():
            self._end(INTERRUPTED, 128 + signal.SIGTERM)

    def _lost(self, rank: int, seconds: float) -> NoReturn:
        line = (
            f"{self._error()}rank {rank} {_told(self._watched[rank])} is gone or stopped: nothing was heard of it for "
            f"{seconds:.0f} s; it was in the {self._places[rank]}; {ALL_END}"
        )
        # who loses rank 0 may have lost the store with it, through which only one speaks
        self._end(line if rank > 0 or self.rank == self._deputy else None, EXIT_PART_FAILED, self._watched[rank])

    def _judge_stillness(self, now: float) -> None:
        limit = FIRST_UPDATE_S if self._longest is None else max(self.patience, SLOWER * self._longest)
        limit *= 2 if self._alarmed else 1  # the one that failed is about to tell why
        found = judge({0: self.place, **self._places}, {0: self._since, **self._moved}, now, limit)
        if found is None:
            return
        if found.rank is None:
            culprit = None
            line = (
                f"no process has moved for {found.seconds:.0f} s: all are in the {found.place}, where something hangs"
            )
        else:
            culprit = self._watched.get(found.rank, self._who)
            line = (
                f"rank {found.rank} {_told(culprit)} hangs: for {found.seconds:.0f} s it has been in the "
                f"{found.place}, and others wait"
            )
        self._end(f"{self._error()}{line}; {ALL_END}", EXIT_PART_FAILED, culprit)

    # ---- leaving ----------------------------------------------------------------------------------------------

    def _error(self) -> str:
        return "error: " if self.rank == 0 else f"error (rank {self.rank}): "

    def _end(self, line: str | None, code: int, culprit: Who | None = None) -> NoReturn:
        """End this process, and through a verdict in the store all others; tell `line` unless another has spoken."""
        self._leaving.set()
        verdict = {"rank": self.rank, "code": code, "culprit": culprit}
        lost = self.rank > 0 and culprit == self._watched[0]
        if line is not None and (lost or self._first_to_speak(json.dumps(verdict))):
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
            if (told := os.environ.get(TOLD)) and self._launcher in (None, os.getppid()):
                with suppress(OSError):
                    Path(told).touch()
        self._follow(verdict)

    def _first_to_speak(self, verdict: str) -> bool:
        """Put a verdict into the store; whether none was there. A store that does not answer is nobody's any more."""
        found = []

        def ask() -> None:
            with suppress(RuntimeError):
                found.append(self._store.compare_set("watch/verdict", "", verdict).decode())

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SPEAK_S)
        return not found or found[0] == verdict

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
