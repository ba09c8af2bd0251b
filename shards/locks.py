"""Advisory locks on a disk of this machine; the system lets go of one when its holder is killed.

Processes that the holder forks share the lock, but ours leave with their owner, and `release` lets go for all of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from shards import atomic
from shards.errors import UserError

_POLL_S = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


class Stopped(Exception):
    """Whoever waited was told to stop."""


class FileLock:
    """An exclusive lock on a file, against other processes and other threads.

    Args:
        stop: ends the waiting with `Stopped`.

    Raises:
        UserError: the file system has no locks, or no room for the file.
    """

    def __init__(self, path: Path, stop: threading.Event | None = None) -> None:
        self.path, self._stop = path, stop or threading.Event()
        self._descriptor: int | None = None

    def attempt(self) -> bool:
        """Takes the lock if it is free; never waits."""
        with atomic.explained(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                raise UserError(
                    f"{self.path.parent}: its file system has no file locks; set data.cache.path to a folder on a "
                    "disk of this machine"
                ) from None
            if not isinstance(error, BlockingIOError):
                raise
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Lets go, also for processes that were forked meanwhile."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        while not self.attempt():
            if self._stop.wait(_POLL_S):
                raise Stopped
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
