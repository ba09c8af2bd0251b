"""What a download lacks: compared with what its authors publish, and looked into at both ends."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from shards.errors import DataError, UserError
from shards.manifest import check_plan
from shards.sources.base import Source, UnreadableImage

_MOST = 20  # lines; a set of which nothing fits needs no thousand


def location(source: type[Source]) -> str | None:
    """The option that says where a source's raw files are; None for one that needs none."""
    fields = dataclasses.fields(source.Options)
    places = [
        field.name for field in fields if not field.metadata.get("identity", True) and isinstance(field.default, str)
    ]
    return places[0] if places else None


def promised(source: Source) -> dict[str, Any]:
    """What an opened source says that it holds, as JSON: `source`, `image`, `classes`, `factors` and `splits`.

    Numbers may be numpy's. The image has no encoding of its own yet: `png` stands there.

    Raises:
        DataError: an attribute that a source must have is missing, of another kind or out of range, or there are no
            training images.
    """
    where = f"source {source.kind!r}"
    lacking = [name for name in ("shape", "splits", "fingerprint") if not hasattr(source, name)]
    if lacking:
        raise DataError(f"{where}: its constructor does not set self.{lacking[0]}: see shards.sources.Source")
    shape = source.shape
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise DataError(f"{where}: its shape is {shape!r}: (height, width, channels) is needed")
    said = {
        "source": source.describe(),
        "image": {**dict(zip(("height", "width", "channels"), shape, strict=True)), "encoding": "png"},
        "classes": list(source.classes),
        "factors": source.factors,
        "splits": source.splits,
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(said, default=as_plain_number))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: what it says of itself cannot be written as JSON ({error}): correct it") from None
    check_plan(plain)
    for name, factor in plain["factors"].items():
        low, high = factor.get("range", (0, 1))
        with np.errstate(over="ignore"):
            near, far = np.float32(low), np.float32(high)
        if not (np.isfinite([near, far]).all() and near < far):
            raise DataError(
                f"{where}: the factor {name} goes from {low:g} to {high:g}, which is no range in float32, as which "
                "factors are read: rescale it or leave it out"
            )
    return plain


def as_plain_number(value: object) -> bool | int | float | str:
    """The Python number of a numpy one, for `json.dumps`. Raises a TypeError for anything else."""
    if isinstance(value, np.generic) and isinstance(plain := value.item(), bool | int | float | str):
        return plain
    raise TypeError(f"{type(value).__name__} is no number")


def check(source: type[Source], options: object) -> tuple[Source | None, list[str]]:
    """Opens a source and says what its raw data lacks.

    Returns:
        The source, None where it cannot be opened, and one line for everything that is missing, damaged or of another
        number than published. The first and the last image of every split are read.
    """
    try:
        opened = source(options)
        promised(opened)
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
