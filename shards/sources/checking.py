"""What a download lacks: compared with what its authors publish, and looked into at both ends."""

from __future__ import annotations

import dataclasses

from shards.errors import UserError
from shards.sources.base import Source, UnreadableImage

_MOST = 20  # lines; a set of which nothing fits needs no thousand


def location(source: type[Source]) -> str | None:
    """The option that says where a source's raw files are; None for one that needs none."""
    fields = dataclasses.fields(source.Options)
    places = [
        field.name for field in fields if not field.metadata.get("identity", True) and isinstance(field.default, str)
    ]
    return places[0] if places else None


def check(source: type[Source], options: object) -> tuple[Source | None, list[str]]:
    """Opens a source and says what its raw data lacks.

    Returns:
        The source, None where it cannot be opened, and one line for everything that is missing, damaged or of another
        number than published. The first and the last image of every split are read.
    """
    try:
        opened = source(options)
    except UserError as error:
        return None, [str(error)]
    lines = opened.lacks()
    for split, count in opened.splits.items():
        for i in sorted({0, count - 1} if count else set()):
            try:
                opened.sample(split, i)
            except UnreadableImage as error:
                lines.append(str(error))
    if len(lines) > _MOST:
        lines[_MOST:] = [f"and {len(lines) - _MOST:,} more of the kind"]
    return opened, lines
