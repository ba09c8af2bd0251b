"""Files and folders that appear whole or not at all.

Everything is written beside its place under a temporary name (`.<name>.<host>-<pid>-<random>.partial`),
flushed to the disk, and renamed. A kill at any moment leaves either the old content or the new one under the
final name, and at worst a `.partial` sibling, which `clean_stale` removes once its writer is gone.

Replacing a folder: on Linux the two folders change places in one system call, so no moment has neither.
Elsewhere the old one is first renamed to `.<name>.<...>.replaced`; a kill just then leaves the target's name
empty, and `recover` (called on entry of `folder`, and by whoever opens such a folder) renames it back.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shards.errors import UserError

STALE_ELSEWHERE = 24 * 3600.0  # seconds after which another machine's leftover counts as abandoned
HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:24] or "host"
_TEMPORARY = re.compile(
    r"^\.(?P<target>.+)\.(?P<host>[A-Za-z0-9]+)-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>partial|replaced)$"
)
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere, then run the same command again",
    errno.EDQUOT: "the quota is used up: free some space or write elsewhere, then run the same command again",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.EACCES: "permission denied: write elsewhere or change the folder's permissions",
    errno.EPERM: "operation not permitted: write elsewhere or change the folder's permissions",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
}


def temporary_name(path: Path, kind: str = "partial") -> Path:
    """A name beside `path` that `clean_stale` knows."""
    return path.parent / f".{path.name}.{HOST}-{os.getpid()}-{secrets.token_hex(4)}.{kind}"


def is_temporary(name: str) -> bool:
    """Whether a file name is one that this module gives to unfinished or replaced things."""
    return _TEMPORARY.match(name) is not None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the system's refusals (full disk, quota, permissions) into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _REMEDIES:
            raise UserError(f"cannot write {path}: {_REMEDIES[error.errno]}") from error
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot flush a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def file(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[IO[bytes]]:
    """Yields a binary file; it stands at `path`, whole and on the disk, once the block ends without an error.

    Args:
        flush: wait for the disk; without it the file, which must be one that can be made again, may be lost or
            empty after a failure of the power.

    Raises:
        UserError: no space left, quota used up, no permission; what stood at `path` before is untouched.
    """
    target = Path(path)
    if os.path.lexists(target) and not target.is_file():
        raise UserError(f"cannot write {target}: something stands there that is no file; choose another name")
    temporary = temporary_name(target)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as stream:
                yield stream
                stream.flush()
                if flush:
                    os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if flush:
            _sync_folder(target.parent)


def check_target(path: str | os.PathLike[str]) -> None:
    """Says before long work that a file cannot come to stand at `path`.

    Raises:
        UserError: something that is no file stands there; its folder does not exist or may not be written.
    """
    target = Path(path)
    if os.path.lexists(target) and not target.is_file():
        raise UserError(f"cannot write {target}: something stands there that is no file; choose another name")
    if not target.parent.is_dir():
        raise UserError(f"cannot write {target}: there is no folder {target.parent}; make it first, or choose another")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {target}: the folder {target.parent} may not be written; choose another")


def write_bytes(path: str | os.PathLike[str], data: bytes, *, flush: bool = True) -> None:
    """Replaces the file at `path` by `data` in one step; see `file` for `flush`."""
    with file(path, flush=flush) as stream:
        stream.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes` for text, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """`write_bytes` for a JSON document (two spaces of indent, a newline at the end, no NaN or infinity)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def folder(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; it becomes `path` when the block ends without an error.

    Args:
        replace: exchange it for a folder that already stands at `path`, which is then removed.

    Raises:
        UserError: something stands at `path` and `replace` is off; no space left, quota used up, no
        permission.
    """
    target = Path(path)
    recover(target)
    if not replace:
        _refuse_existing(target)
    temporary = temporary_name(target)
    with explained(target):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            install(temporary, target, replace=replace)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} already exists and is not replaced: remove it or choose another name")


def install(new: Path, target: Path, replace: bool = False) -> None:
    """Flushes the folder `new`, a sibling of `target`, to the disk and renames it to `target`."""
    for parent, _, names in os.walk(new):
        for name in names:
            with open(os.path.join(parent, name), "rb") as stream:
                os.fsync(stream.fileno())
        _sync_folder(Path(parent))
    if not os.path.lexists(target):
        os.rename(new, target)
        _sync_folder(target.parent)
        return
    if not replace:
        _refuse_existing(target)
    aside = temporary_name(target, "replaced")
    if _exchange(new, target):
        os.rename(new, aside)
    else:
        os.rename(target, aside)
        os.rename(new, target)
    _sync_folder(target.parent)
    shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step (Linux `renameat2`); False where that does not exist."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_working_folder, exchange = -100, 2
    done: int = rename(at_working_folder, os.fsencode(one), at_working_folder, os.fsencode(other), exchange)
    return done == 0


def recover(path: str | os.PathLike[str]) -> bool:
    """Undoes a replacement that a kill cut in two: the old folder goes back if nothing stands at `path`."""
    target = Path(path)
    if os.path.lexists(target) or not target.parent.is_dir():
        return False
    for sibling in sorted(target.parent.iterdir()):
        match = _TEMPORARY.match(sibling.name)
        if match and match["kind"] == "replaced" and match["target"] == target.name:
            os.rename(sibling, target)
            return True
    return False


def clean_stale(directory: str | os.PathLike[str]) -> list[Path]:
    """Removes the temporary files and folders in `directory` whose writer is gone; returns their paths.

    A writer on this machine is gone when its process is; one on another machine when its file is a day old. A
    `.replaced` folder is kept while nothing stands at its target's name (`recover` needs it).
    """
    removed: list[Path] = []
    for path in sorted(Path(directory).iterdir()) if Path(directory).is_dir() else []:
        match = _TEMPORARY.match(path.name)
        if match is None or not _abandoned(path, match["host"], int(match["pid"])):
            continue
        if match["kind"] == "replaced" and not os.path.lexists(path.parent / match["target"]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _abandoned(path: Path, host: str, pid: int) -> bool:
    if host != HOST:
        try:
            return time.time() - path.stat().st_mtime > STALE_ELSEWHERE
        except FileNotFoundError:
            return False
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
