"""What a run's folder says of its progress, read without torch: a login node should not have to wait for it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHECKPOINT = re.compile(r"kimg-(\d+(?:\.\d+)?)")
_TAIL_BYTES = 1 << 16


def newest_checkpoint(run: Path) -> tuple[int, float]:
    """Images seen at the newest checkpoint and when it was written; zeros where there is none."""
    folder = run / "checkpoints"
    found = [
        (round(float(match[1]) * 1000), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _CHECKPOINT.fullmatch(path.name))
    ]
    if not found:
        return 0, 0.0
    images, path = max(found)
    return images, (path / "manifest.json").stat().st_mtime


def rows(run: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a run's log."""
    path = run / "metrics.jsonl"
    yield from _parsed(path.read_bytes() if path.is_file() else b"")


def last_row(run: Path, key: str = "kimg") -> dict[str, Any]:
    """The last row of a run's log that has `key`; empty where there is none near the log's end."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        found = [row for row in _parsed(file.read()) if key in row]
    return found[-1] if found else {}


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:  # the first line of a tail begins anywhere
                continue


def tail(path: Path, lines: int, begin: int = 0) -> list[str]:
    """The last lines of a text file, of what stands from byte `begin` on; none where there is no file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(begin, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-lines:]
