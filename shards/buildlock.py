"""One build at a time in one folder.

An advisory lock (`flock`) on `lock` in the build's working folder. Forked workers share it, so it is free
only when the last process of a killed build has gone, which takes a fraction of a second; a start waits for
that. On a file system without locks a build goes on: shards appear whole under their names and two builds of
one plan write the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from shards.errors import UserError

_PATIENCE = 20.0  # seconds to wait for the workers of a build whose own process is gone


class BuildLock:
    """Held inside the `with` block.

    Args:
        folder: the working folder, made if `create` is set; without it and without the folder nothing is
            locked.

    Raises:
        UserError: another build, still running, holds it.
    """

    def __init__(self, folder: Path, create: bool = True) -> None:
        self._folder, self._create = folder, create
        self._descriptor: int | None = None
        self.exclusive = False

    def __enter__(self) -> Self:
        if not self._create and not self._folder.is_dir():
            return self
        deadline = time.monotonic() + _PATIENCE
        while not self._attempt():
            holder = self._holder()
            if holder is not None and _alive(holder):
                raise UserError(
                    f"{self._folder.parent} is being built by process {holder}: wait for it, or choose another --out"
                )
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self._folder.parent} is locked by another build: wait for it, or choose another --out"
                )
            time.sleep(0.05)
        return self

    def _attempt(self) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the other build just finished and removed its folder
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                raise
            return True
        try:
            same = os.stat(path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        if not same:  # we hold the lock of a file that was removed meanwhile
            os.close(descriptor)
            return False
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode("ascii"))
        self._descriptor, self.exclusive = descriptor, True
        return True

    def _holder(self) -> int | None:
        try:
            return int((self._folder / "lock").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
