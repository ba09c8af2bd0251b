"""The registry of sources: one file per family, and one line in `_FILES` that names what it registers."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from shards import plugins
from shards.errors import UserError
from shards.sources.base import Sample, Source, UnreadableImage, option

__all__ = ["Sample", "Source", "UnreadableImage", "get", "names", "open_source", "option", "register"]

_FILES = {
    "digits": "shards.sources.digits",
    "mnist": "shards.sources.idx",
    "fashion_mnist": "shards.sources.idx",
    "svhn": "shards.sources.svhn",
    "celeba": "shards.sources.celeba",
    "faces": "shards.sources.faces",
    "chairs": "shards.sources.chairs",
    "dsprites": "shards.sources.dsprites",
    "folder": "shards.sources.folder",
    "sprites": "shards.renderers.sprites",
    "housenumbers": "shards.renderers.housenumbers",
    "faces3d": "shards.renderers.faces3d",
    "portraits": "shards.renderers.portraits",
    "chairs3d": "shards.renderers.chairs3d",
}
_BUILDING = ("out", "name", "encoding", "shard_size", "workers", "force", "quiet")
_TIMING = ("images", "rounds", "scratch", "json", "json_file")
RESERVED = frozenset((*_BUILDING, *_TIMING, "help", "plugin", "plugins"))
"""What commands that take a source's options call options of their own."""
_registry: dict[str, type[Source]] = {}


def register(name: str) -> Callable[[type[Source]], type[Source]]:
    """Registers a `Source` class under a name. The name of one of ours is taken, whether it was opened yet or not.

    Raises:
        UserError: as `shards.plugins.check_name` and `registering`; or it has no options of the kind that the command
            line can offer.
    """
    plugins.check_name("source", name)

    def add(source: type[Source]) -> type[Source]:
        ours = source.__module__ == _FILES.get(name)
        standing = get(name) if name in _FILES and not ours else _registry.get(name)
        plugins.registering("source", name, source, standing, ours=ours)
        _check_options(name, source)
        source.kind = name
        _registry[name] = source
        return source

    return add


def _check_options(name: str, source: type[Source]) -> None:
    options = getattr(source, "Options", None)
    if not dataclasses.is_dataclass(options):
        raise UserError(f"source {name!r}: its Options must be a dataclass, an empty one where there are none")
    for field in dataclasses.fields(options):
        if field.name in RESERVED:
            raise UserError(
                f"source {name!r}: its option {field.name} has the name of one that every build has: call it otherwise "
                f"than {', '.join(sorted(RESERVED))}"
            )
        if not isinstance(field.default, bool | int | float | str):
            raise UserError(
                f"source {name!r}: its option {field.name} needs a default that is a number, a text or a bool, and a "
                "help: shards.sources.option(DEFAULT, HELP)"
            )


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
