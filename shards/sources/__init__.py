"""The registry of sources: one file per family, and one line in `_FILES` that names what it registers."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from shards.errors import UserError
from shards.sources.base import Sample, Source, UnreadableImage, option

__all__ = ["Sample", "Source", "UnreadableImage", "get", "names", "open_source", "option", "register"]

_FILES = {
    "digits": "shards.sources.digits",
    "mnist": "shards.sources.idx",
    "fashion_mnist": "shards.sources.idx",
    "folder": "shards.sources.folder",
}
_registry: dict[str, type[Source]] = {}


def register(name: str) -> Callable[[type[Source]], type[Source]]:
    """Registers a `Source` class under a name."""

    def add(source: type[Source]) -> type[Source]:
        if _registry.get(name, source) is not source:
            raise UserError(f"two sources are registered as {name!r}: rename one of them")
        source.kind = name
        _registry[name] = source
        return source

    return add


def names() -> list[str]:
    """The names of all sources: ours, then those registered from outside."""
    return list(dict.fromkeys([*_FILES, *_registry]))


def get(name: str) -> type[Source]:
    """The source class registered under a name.

    Raises:
        UserError: unknown name; the message lists all valid ones.
    """
    if name not in _registry and name in _FILES:
        importlib.import_module(_FILES[name])
    if name not in _registry:
        raise UserError(f"unknown source {name!r}: choose one of {', '.join(names())}")
    return _registry[name]


def open_source(name: str, **options: object) -> Source:
    """Opens a source by name.

    Raises:
        UserError: unknown name or option, or an option out of range. DataError: missing or damaged raw data.
    """
    source = get(name)
    try:
        chosen = source.Options(**options)
    except TypeError:
        valid = ", ".join(source.Options.__dataclass_fields__) or "none"
        unknown = ", ".join(key for key in options if key not in source.Options.__dataclass_fields__)
        raise UserError(f"source {name!r} has no option {unknown}: it takes {valid}") from None
    return source(chosen)
