"""Small JSON files of a sweep and of its runs, which a full disk or a copy may have torn.

What cannot be read counts as absent: a sweep of days is not lost for a line. That is said once per file and process.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shards import small_json

_LARGEST = 1e150  # of which sums, squares and quotients are numbers too
_LATEST = 1e11  # seconds; calendars end somewhere beyond
_LINE_BYTES = 16 << 20

_told: set[Path] = set()


def mapping(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds a mapping; empty where there is none, or none that can be read."""
    try:
        return small_json.mapping(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        ignore(path, words(error))
        return {}


def rows(path: Path, begin: int = 0) -> Iterator[dict[str, Any]]:
    """The mappings in a file of JSON lines, from byte `begin` on, of which the first line may be the end of one.

    A last line without its end is being written, or was when its writer was killed: it is left out.
    """
    try:
        with small_json.opened(path) as file:
            file.seek(begin)
            for place, line in enumerate(iter(lambda: file.readline(_LINE_BYTES), b""), 1):
                if not line.endswith(b"\n"):
                    return ignore(path, f"line {place} has no end") if len(line) == _LINE_BYTES else None
                content = _parsed(line)
                if content is not None:
                    yield content
                elif line.strip() and (place > 1 or not begin):
                    ignore(path, "a line near its end cannot be read" if begin else f"line {place} cannot be read")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        ignore(path, words(error))


def number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def moment(value: Any) -> bool:
    """Whether a value of a JSON file is a time in seconds since 1970 that has a date."""
    return number(value) and 0 <= value < _LATEST


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        content = small_json.parsed(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def ignore(path: Path, why: str) -> None:
    """Say that something in a file counts as absent, unless that was said of the file before."""
    if path not in _told:
        _told.add(path)
        print(f"warning: {path}: {why}: it counts as absent", file=sys.stderr)


def words(error: Exception) -> str:
    """Why a file cannot be read."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot be read ({said or type(error).__name__})"
