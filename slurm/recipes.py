"""`data:` of a sweep file: from which source, with which options, a data set is built that is not there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infogan import sections
from infogan.config import RunConfig
from shards import sources
from shards.errors import UserError
from shards.sources import Source
from slurm.parsing import Values, cut
from slurm.spec import Spec


def recipe(place: str, told: Values) -> tuple[type[Source], Any]:
    """A source and its options, checked as far as they can be without the raw data.

    Raises UserError naming the place.
    """
    name = told.get("source")
    if not isinstance(name, str):
        raise UserError(f"{place}: needs a source, as in {{source: mnist, path: FOLDER}}")
    try:
        source = sources.get(name)
    except UserError as error:
        raise UserError(f"{place}.source: {error}") from None
    options = {key: value for key, value in told.items() if key != "source"}
    return source, sections.build(source.Options, options, place)


def by_path(spec: Spec) -> dict[str, tuple[str, Values]]:
    """Where each stands in the sweep file and what it says, by the path of the data set as runs have it."""
    return {str(Path(path).absolute()): (f"data.{cut(path)}", told) for path, told in spec.data.items()}


def check(spec: Spec, configs: Sequence[RunConfig]) -> None:
    """Refuse what would fail, or be of no use, when data sets are built.

    Raises UserError naming the place.
    """
    used = dict.fromkeys(config.data.path for config in configs)
    for path, (place, told) in by_path(spec).items():
        recipe(place, told)
        if path not in used:
            raise UserError(f"{place}: no run has this data.path; they have {cut(', '.join(used)) or 'none'}")
