"""Small JSON files of a sweep and of its runs, which a full disk or a copy may have torn.

What cannot be read counts as absent: a sweep of days is not lost for a line. That is said once per file and process.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_told: set[Path] = set()


def mapping(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds a mapping; empty where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        ignore(path, _words(error))
        return {}
    if not isinstance(content, dict):
        ignore(path, "it holds no mapping")
        return {}
    return content


def rows(path: Path, begin: int = 0) -> Iterator[dict[str, Any]]:
    """The mappings in a file of JSON lines, from byte `begin` on, of which the first line may be the end of one.

    A last line without its end is being written, or was when its writer was killed: it is left out.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            lines = file.read().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        return ignore(path, _words(error))
    for place, line in enumerate(lines[:-1], 1):
        content = _parsed(line)
        if content is not None:
            yield content
        elif line.strip() and (place > 1 or not begin):
            ignore(path, "a line near its end cannot be read" if begin else f"line {place} cannot be read")


def number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def ignore(path: Path, why: str) -> None:
    """Say that something in a file counts as absent, unless that was said of the file before."""
    if path not in _told:
        _told.add(path)
        print(f"warning: {path}: {why}: it counts as absent", file=sys.stderr)


def _words(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot be read ({said or type(error).__name__})"
