"""What the benchmarks share on the command line: options, and how a result is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

scratch_option = click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where the shards go for the time being; a few per cent more than the data set's size is needed.",
)


def _checked(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """Now, not after all rounds."""
    if file is not None:
        from shards import atomic

        atomic.check_target(file)
    return file


json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    callback=_checked,
    metavar="FILE",
    help="Also write the result here.",
)


def tell(lines: Iterator[str], result: dict[str, Any], json_file: Path | None) -> None:
    """Print a result as text, and write it to a file where one was named."""
    from shards import atomic

    click.echo("\n".join(lines))
    if json_file is not None:
        atomic.write_json(json_file, result)


def where(machine: Mapping[str, Any]) -> Iterator[str]:
    """The line of a table that says what `launch.costs.environment` found."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield f"{machine['device']}, {machine['cores']} cores; Python {machine['python']}, {versions}"
