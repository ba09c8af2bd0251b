"""A few worker processes for decoding and encoding, which never outlive their owner.

They are forked, so that what they work on (an opened source, a shared array) is simply there, and they touch
neither torch nor the GPU. A worker leaves when its pipe closes, so a killed owner takes them along.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, UserError

_owned: weakref.WeakSet[Connection] = weakref.WeakSet()
_PATIENCE = 3.0  # seconds for a worker to leave by itself
_KINDS = {"DataError": DataError, "UserError": UserError}
Job = Callable[[Any, Callable[[Any], None]], Any]


def available_cores() -> int:
    """CPU cores that this process may use (its affinity, as SLURM and containers set it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, job: Job) -> None:
    for inherited in list(_owned):  # while any copy of the owner's end is open, its worker cannot see it go
        inherited.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the owner decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            task = connection.recv()
            try:
                connection.send(("done", job(task, lambda note: connection.send(("note", note)))))
            except UserError as error:
                kind = "DataError" if isinstance(error, DataError) else "UserError"
                connection.send(("failed", (kind, str(error))))
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                connection.send(("failed", ("OSError", traceback.format_exc())))
            except BaseException:  # SystemExit too: code of the user's may leave, a worker does not
                connection.send(("failed", ("Exception", traceback.format_exc())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


class Workers:
    """`count` processes that each run `job(task, note)`: notes on the way, and the result at the end."""

    def __init__(self, job: Job, count: int) -> None:
        context = multiprocessing.get_context("fork")
        self.connections: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            _owned.add(ours)
            process = context.Process(target=_serve, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self._processes.append(process)
        # a process that leaves without closing waits for its children, and they for their pipes
        Finalize(self, _close, (self.connections,), exitpriority=0)

    def __len__(self) -> int:
        return len(self.connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, tasks: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """Runs all tasks; yields ("note", value) and ("done", result) as they come, in no particular order.

        Raises:
            UserError, DataError: as the job raised it, or a worker died. RuntimeError: any other failure.
        """
        queue, idle, busy = iter(tasks), list(self.connections), set[Connection]()
        while True:
            while idle:
                try:
                    task = next(queue)
                except StopIteration:
                    break
                connection = idle.pop()
                _send(connection, task)
                busy.add(connection)
            if not busy:
                return
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                kind, value = _result(*self._reply(ready))
                if kind == "done":
                    busy.remove(ready)
                    idle.append(ready)
                yield kind, value

    def spread(self, wanted: NDArray[np.int64]) -> list[Any]:
        """Cuts an array into one piece per worker; the results of all pieces, in order. Raises like `run`."""
        pieces = [piece for piece in np.array_split(wanted, len(self.connections)) if len(piece)]
        pairs = list(zip(self.connections, pieces, strict=False))
        for connection, piece in pairs:
            _send(connection, piece)
        replies = [self._reply(connection) for connection, _ in pairs]  # all, before the first failure is raised
        return [_result(*reply)[1] for reply in replies]

    def _reply(self, connection: Connection) -> tuple[str, Any]:
        try:
            kind, value = connection.recv()
        except (EOFError, ConnectionResetError):
            return "failed", (
                "UserError",
                "a worker process died (killed, or out of memory): use fewer workers",
            )
        return kind, value

    def close(self) -> None:
        """Ends the workers: they see their pipes close, tidy up what they were writing, and leave."""
        _close(self.connections)
        for process in self._processes:
            process.join(_PATIENCE)
            process.terminate()
            process.join()
        self.connections, self._processes = [], []


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


def _send(connection: Connection, task: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker died: its reply, which never comes, says so
        connection.send(task)


def _result(kind: str, value: Any) -> tuple[str, Any]:
    """A worker's message, or the error that it reports."""
    if kind == "failed":
        name, text = value
        raise _KINDS.get(name, RuntimeError)(text)
    return kind, value
