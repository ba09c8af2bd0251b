"""What may stand in the places of a sweep file. All raise ValueError naming the place, the value and the rule."""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Values = dict[str, Any]
"""Dotted paths of a config and their values."""

SHOWN = 80
"""Characters of a value that a message repeats."""


def shown(value: Any) -> str:
    """A value as a message repeats it: as Python writes it, cut short."""
    return cut(repr(value))


def cut(text: str) -> str:
    """A text of a user's, short enough for a line."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def check_plain(place: str, value: Any) -> None:
    """Every value travels as JSON, into configs and to jobs; YAML can say more than that."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(f"{place}.{key}" if place else cut(str(key)), item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            check_plain(f"{place}.{number}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: {value}: must be finite")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{place}: {shown(value)}: must be a number, a word, true, false, null, a list or a mapping")


def section(plain: Values, key: str) -> Values:
    return mapping(key, plain.get(key, {}))


def mapping(place: str, value: Any) -> Values:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: {shown(value)}: must be a mapping from settings to values")
    return {str(key): item for key, item in value.items()}


def entries(plain: Values, key: str) -> list[Any]:
    value = plain.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key}: {shown(value)}: must be a list")
    return value


def options(place: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place}: {shown(value)}: must be a list of values")
    return value


def different(place: str, values: Sequence[Any]) -> None:
    """No value may be there twice: the two would be one run."""
    seen = set()
    for value in values:
        key = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else (isinstance(value, bool), value)
        if key in seen:
            raise ValueError(f"{place}: {shown(value)}: is there twice, which would be one run; say it once")
        seen.add(key)


def whole(place: str, value: Any, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{place}: {shown(value)}: must be a whole number, at least {least} and below 2**63")
    return value


def name(told: Any, path: Path) -> str:
    """A sweep's name, which is a folder's and a job's: as its file says, or the file's own."""
    value = path.stem if told is None else str(told)
    instead = "; say name: NAME in the file" if told is None else ""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise ValueError(f"name: {shown(value)}: must be letters, digits, _, . and -{instead}")
    if len(value) > SHOWN:
        raise ValueError(f"name: {shown(value)}: must be at most {SHOWN} characters long{instead}")
    return value


def seeds(value: Any, others: Mapping[str, Any]) -> Sequence[int]:
    """A number of seeds, or a list of them; `others`: what else the file sets, where no seed belongs."""
    if "seed" in others:
        raise ValueError("seed: belongs in seeds, as a number of seeds or a list of them")
    if not isinstance(value, list):
        return range(whole("seeds", value, 1))
    found = [whole("seeds", seed, 0) for seed in options("seeds", value)]
    different("seeds", found)
    return tuple(found)


def wanted(place: str, value: Any, known: Collection[str]) -> Values:
    """Values by which runs are picked; a key that no run has would pick none, and say nothing."""
    found = mapping(place, value)
    for key in found:
        if key not in known:
            raise ValueError(f"{place}.{cut(key)}: no run sets this; set here: {', '.join(sorted(known))}")
    return found
