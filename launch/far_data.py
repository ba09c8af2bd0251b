"""`infogan shards adopt` and `prefetch`, and the options of every command that reads a data set from a URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shards.cache import CacheOptions
    from shards.manifest import Manifest


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--cache` and `--cache-limit`, for commands that read from a URL."""
    limit = click.option("--cache-limit", type=float, metavar="GB", help="How much it may hold.  [default: 50]")
    where = click.option(
        "--cache", metavar="FOLDER", help="A local folder for shards of a URL.  [default: ~/.cache/infogan/shards]"
    )
    return where(limit(command))


def cache_from(cache: str | None, cache_limit: float | None) -> CacheOptions:
    from shards.cache import CacheOptions
    from shards.errors import UserError

    try:
        given = {"path": cache, "limit_gb": cache_limit}
        return CacheOptions(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"--cache-limit: {error}") from None


def say_made(folder: str, manifest: Manifest) -> None:
    counts = ", ".join(f"{split.samples:,} {key}" for key, split in manifest.splits.items())
    click.echo(f"{folder}: {counts}; digest {manifest.digest[:16]}")


@click.command("adopt")
@click.argument("place", metavar="FOLDER_OR_URL")
@click.option("--out", metavar="FOLDER", help="For the manifest and the index.  [default: beside the tars]")
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME=PATTERN",
    help="Tars of a split, as in train='train-*.tar' or test='t-{00..09}.tar'; may be repeated.  "
    "[default: by folders or names that begin with train, val, test; else all are train]",
)
@click.option("--name", help="The data set's name.  [default: the folder's]")
@click.option("--image", default="", metavar="EXT", help="The image's extension, where samples have several.")
@click.option(
    "--label",
    default="",
    metavar="EXT",
    help="The label's extension, or none.  [default: cls, class, or a numeric txt]",
)
@click.option("--factors", is_flag=True, help="The numbers in .json members are known factors.")
@click.option("--classes", metavar="FILE", type=click.Path(exists=True), help="Names of the classes, one per line.")
@click.option("--workers", type=int, help="Processes.  [default: one per core]")
@click.option("--force", is_flag=True, help="Replace a manifest that stands in --out.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@cache_options
def adopt_command(
    place: str,
    out: str | None,
    splits: tuple[str, ...],
    name: str | None,
    image: str,
    label: str,
    factors: bool,
    classes: str | None,
    workers: int | None,
    force: bool,
    quiet: bool,
    cache: str | None,
    cache_limit: float | None,
) -> None:
    """Make a data set of WebDataset tars that others wrote, without rewriting them."""
    from pathlib import Path

    from shards.adopt import Choices, adopt

    names = tuple(Path(classes).read_text(encoding="utf-8").split("\n")) if classes else ()
    patterns: dict[str, list[str]] = {}
    for text in splits:
        split, equals, pattern = text.partition("=")
        if not equals or not pattern:
            raise click.BadParameter(f"{text!r}: must be NAME=PATTERN", param_hint="--split")
        patterns.setdefault(split, []).append(pattern)
    manifest = adopt(
        place,
        out,
        splits=patterns or None,
        choices=Choices(image, label, factors, tuple(line.strip() for line in names if line.strip())),
        name=name,
        count=workers,
        force=force,
        progress=not quiet,
        cache=cache_from(cache, cache_limit),
    )
    say_made(out or place, manifest)


@click.command("prefetch")
@click.argument("path", metavar="URL")
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.  [default: all]")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@cache_options
def prefetch_command(
    path: str, splits: tuple[str, ...], quiet: bool, cache: str | None, cache_limit: float | None
) -> None:
    """Fetch a data set into this machine's cache, so that runs find it there, also without a network."""
    from shards.dataset import open_dataset
    from shards.staging import prefetch

    dataset = open_dataset(path, cache_from(cache, cache_limit))
    folder = prefetch(dataset, splits or None, progress=not quiet)
    click.echo(f"{folder}: holds {', '.join(splits) or 'all splits'} of {dataset.shown}")
