"""What a piece of work costs, in time and in memory: each turn is a process of its own, and nothing of it stays.

Where a machine does other work too, the seconds on the clock are anyone's; the processor's seconds are the work's own.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from shards.errors import UserError
from shards.versions import installed

PACKAGES = ("pillow", "numpy", "webdataset")
Work = Callable[[Path], object]


class Cost(NamedTuple):
    """One turn: seconds on the clock and of processors, MiB at the peak, and bytes left in the folder.

    `peak`: of the process that built; `worker_peak`: of its largest worker, 0 without any.
    """

    seconds: float
    cpu_seconds: float
    peak: float
    worker_peak: float
    size: int


def cost_of(work: Work, scratch: Path | None, *, one_core: bool = False) -> Cost:
    """Do `work` in a forked process, with a folder that it has to make and that goes afterwards.

    Raises:
        UserError: as `work` raised it, or the process died.
    """
    with tempfile.TemporaryDirectory(prefix="infogan-bench-", dir=scratch) as parent:
        folder = Path(parent) / "set"
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_turn, args=(work, folder, one_core, theirs))
        process.start()
        theirs.close()
        try:
            seconds, cpu_seconds, peak, worker_peak, failed = ours.recv()
        except EOFError:
            failed = "the process that built died (killed, or out of memory)"
        finally:
            process.join()
        if failed:
            raise UserError(failed)
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
        return Cost(seconds, cpu_seconds, peak, worker_peak, sum(path.stat().st_size for path in files))


def _turn(work: Work, folder: Path, one_core: bool, answer: Connection) -> None:
    from shards import atomic

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group; one of it tells
    if one_core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    failed, begun = None, time.perf_counter()
    try:
        with atomic.explained(folder):
            work(folder)
    except UserError as error:
        failed = str(error)
    seconds = time.perf_counter() - begun
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in (own, workers))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MiB
    answer.send((seconds, cpu_seconds, own.ru_maxrss / unit, workers.ru_maxrss / unit, failed))


def environment() -> dict[str, Any]:
    """The machine and the versions; asked last, since torch, which knows the processor's name, is slow to import."""
    from infogan.devices import cpu_name
    from shards.workers import available_cores

    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "host": platform.node(),
        "system": platform.platform(),
        "device": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
    }
