"""Small JSON files as a full disk, a copy, another version or a stranger may have left them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

LIMIT_BYTES = 64 << 20
"""No file of this kind comes near; what is larger was not written by this program."""


def opened(path: Path) -> IO[bytes]:
    """A regular file, open for reading.

    Raises:
        OSError: it cannot be opened, or is a folder, a device or a pipe, which might keep its reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def content(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is larger than `LIMIT_BYTES`, or holds no JSON in UTF-8.
    """
    with opened(path) as file:
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"it has more than {LIMIT_BYTES >> 20} MiB")
    return parsed(data)


def mapping(path: Path) -> dict[str, Any]:
    """What a JSON file holds that is to hold a mapping; raises like `content`."""
    found = content(path)
    if not isinstance(found, dict):
        raise ValueError("it holds no mapping")
    return found


def parsed(data: bytes) -> Any:
    """What JSON in UTF-8 says; ValueError where it is none, or none that this machine can take in."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it is larger than the memory") from None
