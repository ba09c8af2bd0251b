"""`infogan shards`: checks raw data; builds, adopts, verifies, describes and prefetches data sets.

Each source is a subcommand of `build` and of `check` whose options are the fields of the source's dataclass, so
a new source needs no line here. Only click is imported until a command runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.far_data import adopt_command, cache_from, cache_options, prefetch_command, say_made
from launch.signals import sigterm_told

if TYPE_CHECKING:
    from shards.dataset import Dataset

_BUILD_OPTIONS = ("out", "name", "encoding", "shard_size", "workers", "force", "quiet")
_SHEET_SIDE = 10  # images along each side of a contact sheet
_SHEET_PIXELS = 48  # smaller images are enlarged to at least this height


@click.group("shards")
def shards_group() -> None:
    """Check raw data; build, adopt, verify, describe and prefetch data sets."""


shards_group.add_command(adopt_command)
shards_group.add_command(prefetch_command)


class SourceGroup(click.Group):
    """One subcommand per registered source, made by `make`."""

    make: Callable[[type[Any]], click.Command]

    def list_commands(self, ctx: click.Context) -> list[str]:
        from shards import sources

        return sources.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        from shards import sources

        return type(self).make(sources.get(cmd_name))


def _build_command(source: type[Any]) -> click.Command:
    """`build NAME` with the source's own options before those of every build."""
    parameters: list[click.Parameter] = [source_option(field) for field in dataclasses.fields(source.Options)]
    parameters += [
        click.Option(["--out"], metavar="FOLDER", help=f"The data set's folder.  [default: data/{source.kind}]"),
        click.Option(["--name"], help="The data set's name.  [default: the folder's]"),
        click.Option(
            ["--encoding"],
            default="png",
            show_default=True,
            type=click.Choice(["png", "npy"]),
            help="png, or npy: raw bytes, larger and faster to read.",
        ),
        click.Option(["--shard-size"], type=int, default=4096, show_default=True, help="Samples per shard."),
        click.Option(["--workers"], type=int, help="Processes.  [default: one per core]"),
        click.Option(["--force"], is_flag=True, help="Build anew where a data set already stands."),
        click.Option(["--quiet"], is_flag=True, help="No progress bar."),
    ]

    def run(**options: Any) -> None:
        common = {name: options.pop(name) for name in _BUILD_OPTIONS}
        _build(source.kind, options, **common)

    return click.Command(source.kind, params=parameters, callback=run, help=first_line(source))


def first_line(source: type[Any]) -> str:
    """A source in one line of help: the first of its docstring."""
    return str((source.__doc__ or source.kind).strip().splitlines()[0])


def source_option(field: dataclasses.Field[Any]) -> click.Option:
    flag = f"--{field.name.replace('_', '-')}"
    text = field.metadata.get("help", "")
    if isinstance(field.default, bool):
        declaration = [f"{flag}/--no-{flag[2:]}"] if field.default else [flag]
        return click.Option([*declaration, field.name], is_flag=True, default=field.default, help=text)
    return click.Option(
        [flag, field.name],
        type=type(field.default),
        default=field.default,
        show_default=field.default != "",
        help=text,
    )


class _BuildGroup(SourceGroup):
    make = staticmethod(_build_command)


@shards_group.command("build", cls=_BuildGroup, subcommand_metavar="SOURCE [OPTIONS]")
def build_group() -> None:
    """Build a data set from raw images; the same command continues a build that was cut off."""


def _build(
    kind: str,
    source_options: dict[str, Any],
    *,
    out: str | None,
    name: str | None,
    encoding: str,
    shard_size: int,
    workers: int | None,
    force: bool,
    quiet: bool,
) -> None:
    from shards.sources import open_source
    from shards.writer import build

    folder = out or f"data/{kind}"
    with sigterm_told(
        f"stopped by SIGTERM: {folder} is {'still what it was' if force else 'not complete'}; the same command goes on "
        "with the shards that were made"
    ):
        manifest = build(
            open_source(kind, **source_options),
            folder,
            name=name or (kind if out is None else None),
            encoding=encoding,
            shard_size=shard_size,
            workers=workers,
            progress=not quiet,
            force=force,
        )
    say_made(folder, manifest)


def _check_command(source: type[Any]) -> click.Command:
    """`check NAME [PATH]` with the source's own options."""
    from shards.sources.checking import check, location

    place = location(source)
    fields = [field for field in dataclasses.fields(source.Options) if field.name != place]
    parameters: list[click.Parameter] = [source_option(field) for field in fields]
    if place is not None:
        default = source.Options.__dataclass_fields__[place].default
        parameters.append(click.Argument([place], metavar="[PATH]", required=False, default=default))

    def run(**options: Any) -> None:
        opened, lines = check(source, source.Options(**options))
        for line in lines:
            click.echo(line)
        if lines or opened is None:
            click.get_current_context().exit(1)
        counts = ", ".join(f"{count:,} {what}" for what, count in opened.found().items())
        if place is None:
            click.echo(f"{source.kind}: nothing to download: {counts}")
        elif opened.published:
            click.echo(f"{options[place]}: complete: {counts}")
        else:
            click.echo(f"{options[place]}: usable: {counts}; there is no published number to compare with")

    return click.Command(source.kind, params=parameters, callback=run, help=first_line(source))


class _CheckGroup(SourceGroup):
    make = staticmethod(_check_command)


@shards_group.command("check", cls=_CheckGroup, subcommand_metavar="SOURCE [PATH] [OPTIONS]")
def check_group() -> None:
    """Say what the raw data of a source in PATH lacks; exit status 1 if it lacks anything."""


@shards_group.command("verify")
@click.argument("path", metavar="FOLDER_OR_URL")
@click.option("--fast", is_flag=True, help="Only look at names and sizes; read no data.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@cache_options
@click.pass_context
def verify_command(
    ctx: click.Context, path: str, fast: bool, quiet: bool, cache: str | None, cache_limit: float | None
) -> None:
    """Find every fault of a data set; one line each, and exit status 1 if there are any."""
    from shards.dataset import open_dataset
    from shards.verify import verify

    options = cache_from(cache, cache_limit)
    faults = verify(path, deep=not fast, progress=not quiet, cache=options)
    for fault in faults:
        click.echo(str(fault))
    if faults:
        ctx.exit(1)
    manifest = open_dataset(path, options).manifest
    shards = sum(len(split.shards) for split in manifest.splits.values())
    click.echo(f"ok: {manifest.samples:,} samples in {shards} shards")


@shards_group.command("describe")
@click.argument("path", metavar="FOLDER_OR_URL")
@click.option("--json", "as_json", is_flag=True, help="The manifest, as JSON.")
@click.option("--sheet", metavar="FILE.png", help="Also write a contact sheet of 10x10 images, chosen at random.")
@click.option("--split", default="train", show_default=True, help="The split that the sheet shows.")
@cache_options
def describe_command(
    path: str, as_json: bool, sheet: str | None, split: str, cache: str | None, cache_limit: float | None
) -> None:
    """Say what a data set is."""
    from shards.dataset import open_dataset

    dataset = open_dataset(path, cache_from(cache, cache_limit))
    manifest = dataset.manifest
    if sheet is not None:
        _write_sheet(dataset, split, sheet)
    if as_json:
        click.echo(json.dumps(manifest.document(), indent=2, ensure_ascii=False))
        return
    image = manifest.image
    options = ", ".join(f"{key}={value}" for key, value in manifest.source["options"].items())
    rows = [
        ("name", manifest.name),
        ("source", manifest.source["kind"] + (f" ({options})" if options else "")),
        ("image", f"{image.height} x {image.width} x {image.channels}, {image.encoding}"),
        (
            "classes",
            f"{len(manifest.classes)}: {', '.join(manifest.classes)}" if manifest.classes else "none",
        ),
        ("factors", ", ".join(manifest.factors) or "none"),
        ("digest", manifest.digest),
    ]
    if manifest.source["skipped"]:
        rows.append(("skipped", f"{manifest.source['skipped']} unreadable images, listed in skipped.json"))
    for key, value in rows:
        click.echo(f"{key:<8} {value}")
    click.echo(f"\n{'split':<12}{'samples':>12}{'shards':>8}{'bytes':>16}")
    for name, part in manifest.splits.items():
        size = sum(shard.bytes for shard in part.shards)
        click.echo(f"{name:<12}{part.samples:>12,}{len(part.shards):>8}{size:>16,}")


def _write_sheet(dataset: Dataset, split: str, file: str) -> None:
    """Writes up to 100 images of a split, the same ones each time, as one PNG; from a URL those of its first shards."""
    import numpy as np

    from infogan.pictures import grid, png
    from shards import atomic
    from shards.errors import UserError
    from shards.loader import open_reader

    if Path(file).suffix.lower() != ".png":
        raise UserError(f"--sheet {file}: a contact sheet is a PNG file; give a name that ends in .png")
    atomic.check_target(file)
    reader = open_reader(dataset, split, kind="remote" if dataset.remote else "indexed", workers=0)
    try:
        shown = min(_SHEET_SIDE**2, reader.samples)
        choice = np.arange(reader.samples) if not dataset.remote else np.arange(shown)
        chosen = np.random.RandomState(0).choice(choice, shown, replace=False)
        images = reader.gather(chosen.astype(np.int64)).images
    finally:
        reader.close()
    atomic.write_bytes(file, png(grid(images, min(_SHEET_SIDE, shown), least_side=_SHEET_PIXELS)))
