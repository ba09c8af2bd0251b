"""`infogan bench build`: what making the shards of a data set costs, beside the plain loop that a user would write.

Both get the same images from the same opened source, on one core each and in turns; what counts is the ratio within a
round, its median and its spread.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.bench_options import json_option, scratch_option, tell, where
from launch.costs import Cost, Work, cost_of, environment
from launch.datasets import SourceGroup, first_line, source_option
from launch.turns import spread

if TYPE_CHECKING:
    from shards.sources import Source

FORMAT = 1
DEFAULT_SOURCE = "digits"
SHARD_SIZE = 4096
DESCRIPTIONS = {
    "plain": "a loop over webdataset.ShardWriter, which encodes Pillow images as PNG; no checks, digests or flushes",
    "ours": "infogan shards build --workers 1: PNG, checked, with digests, sidecars and manifest, flushed to the disk",
}


def _source_command(source: type[Any]) -> click.Command:
    parameters: list[click.Parameter] = [source_option(field) for field in fields(source.Options)]

    @click.command(source.kind, params=parameters, help=first_line(source))
    @click.option("--images", type=click.IntRange(min=1), help="At most so many of each split.  [default: all]")
    @click.option(
        "--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="In each, both take turns."
    )
    @scratch_option
    @json_option
    def run(images: int | None, rounds: int, scratch: Path | None, json_file: Path | None, **options: Any) -> None:
        from shards.sources import open_source

        opened = open_source(source.kind, **options)
        result = bench_build(opened, images, rounds, scratch, lambda line: click.echo(line, err=True))
        tell(table(result), result, json_file)

    return run


class _DefaultSourceGroup(SourceGroup):
    """Digits where no source is named."""

    make = staticmethod(_source_command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = not args or args[0] in ctx.help_option_names or not args[0].startswith("-")
        return super().parse_args(ctx, args if named and args else [DEFAULT_SOURCE, *args])


@click.command(cls=_DefaultSourceGroup, name="build", subcommand_metavar="[SOURCE] [OPTIONS]")
def command() -> None:
    """Time the building of a source's shards, against a plain loop over webdataset.ShardWriter.

    SOURCE and its options are those of infogan shards build; digits, which need no download, where none is named.
    """


def bench_build(
    source: Source, images: int | None, rounds: int, scratch: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Build the shards of `source` in turns with a plain loop; `say` prints a line.

    `images`: at most so many of each split. A first round is not counted: it finds the raw files, as all later ones
    do, in the page cache. Who begins changes with every round, and nothing that one wrote is still to be flushed
    when the other's turn comes.

    Returns the JSON document of `--json`: `format` (1), `bench` ("build"), `source`, `images`, `shape`, `rounds`,
    `environment`, `contestants` (`plain`, `ours`; of each `what`, `bytes`, and the spreads `images_per_s` and
    `images_per_cpu_s`) and `ratios` (`ours/plain` of both, taken within each round).
    """
    import webdataset.writer  # noqa: F401  # here, so that no turn pays for the import

    from shards.writer import build

    part = _part(source, images)
    contestants: dict[str, Work] = {
        "plain": lambda folder: plain_build(part, folder),
        "ours": lambda folder: build(part, folder, shard_size=SHARD_SIZE, workers=1, progress=False),
    }
    count = sum(part.splits.values())
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        order = list(contestants) if number % 2 else list(reversed(contestants))
        turns = {name: cost_of(contestants[name], scratch, one_core=True) for name in order}
        for name in contestants if number else ():
            costs[name].append(turns[name])
        speeds = ", ".join(f"{name} {count / turns[name].cpu_seconds:,.0f}" for name in contestants)
        say(f"{f'round {number} of {rounds}' if number else 'not counted'}: {speeds} images per second of a core")
    return {
        "format": FORMAT,
        "bench": "build",
        "source": part.describe(),
        "images": count,
        "shape": list(part.shape),
        "rounds": rounds,
        "environment": environment(),
        **summary(costs, count),
    }


def summary(costs: Mapping[str, Sequence[Cost]], images: int) -> dict[str, Any]:
    """`contestants` and `ratios` of the result."""
    clock = {name: [images / cost.seconds for cost in turns] for name, turns in costs.items()}
    cpu = {name: [images / cost.cpu_seconds for cost in turns] for name, turns in costs.items()}
    return {
        "contestants": {
            name: {
                "what": DESCRIPTIONS[name],
                "bytes": costs[name][-1].size,
                "images_per_s": spread(clock[name]),
                "images_per_cpu_s": spread(cpu[name]),
            }
            for name in costs
        },
        "ratios": {
            f"ours/plain {what}": spread([a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True)])
            for what, speeds in (("per second", clock), ("per second of a core", cpu))
        },
    }


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """The result of `bench_build` as lines of text."""
    height, width, channels = result["shape"]
    what = f"{result['images']:,} images of {height}x{width}x{channels}"
    yield f"shards of {result['source']['kind']}, {what}: {result['rounds']} rounds in turns, one core"
    yield from where(result["environment"])
    yield ""
    yield f"{'':7}{'images/s':>9}  {'min - max':>17}  {'of a core':>9}  {'min - max':>17}  {'MB':>9}"
    for name, row in result["contestants"].items():
        cells = []
        for speed in (row["images_per_s"], row["images_per_cpu_s"]):
            span = f"{speed['min']:,.0f} - {speed['max']:,.0f}"
            cells.append(f"{speed['median']:>9,.0f}  {span:>17}")
        yield f"{name:7}{cells[0]}  {cells[1]}  {row['bytes'] / 1e6:>9,.1f}"
    yield ""
    for name, ratio in result["ratios"].items():
        yield f"{name:32} {ratio['median']:.2f}  ({ratio['min']:.2f} - {ratio['max']:.2f})"
    yield ""
    for name, row in result["contestants"].items():
        yield f"{name:7}{row['what']}"


def plain_build(source: Source, folder: Path) -> None:
    """What a user would write: each sample through webdataset's writer, which encodes the PNG itself."""
    from PIL import Image
    from webdataset.writer import ShardWriter

    folder.mkdir()
    for split, count in source.splits.items():
        with ShardWriter(str(folder / f"{split}-%06d.tar"), maxcount=SHARD_SIZE, verbose=0) as writer:
            for i in range(count):
                sample = source.sample(split, i)
                pixels = sample.image[..., 0] if sample.image.shape[2] == 1 else sample.image
                members: dict[str, Any] = {"__key__": f"{sample.key:08d}", "png": Image.fromarray(pixels)}
                if sample.label is not None:
                    members["cls"] = sample.label
                if sample.factors is not None:
                    members["json"] = sample.factors
                writer.write(members)


def _part(source: Source, most: int | None) -> Source:
    """The source with at most so many samples in each split."""
    part = copy.copy(source)
    if most is not None:
        part.splits = {name: min(count, most) for name, count in source.splits.items()}
    return part
