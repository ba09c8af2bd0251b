"""`infogan bench memory`: that the memory of a build does not grow with the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.bench_options import json_option, scratch_option, tell, where
from launch.costs import cost_of, environment

if TYPE_CHECKING:
    from shards.sources import Source

FORMAT = 1
IMAGES = (10_000, 100_000, 1_000_000)


@click.command(name="memory")
@click.option(
    "--images",
    multiple=True,
    type=click.IntRange(min=1),
    default=IMAGES,
    show_default=True,
    help="Size of a set; can be repeated.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one per core]")
@scratch_option
@json_option
def command(images: tuple[int, ...], workers: int | None, scratch: Path | None, json_file: Path | None) -> None:
    """Show the peak memory of building sets of more and more images (16x16 noise, about 1 KiB of disk each)."""
    result = bench_memory(images, workers, scratch, lambda line: click.echo(line, err=True))
    tell(memory_table(result), result, json_file)


def bench_memory(
    images: Sequence[int], workers: int | None, scratch: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Build a set of noise of each size and measure it.

    Returns the JSON document of `--json`: `format` (1), `bench` ("memory"), `workers`, `environment` and `sets`, each
    with `images`, `seconds`, `parent_mib` and `worker_mib` (peaks of resident memory) and `bytes`.
    """
    from shards.workers import available_cores

    processes, sets = workers or available_cores(), list[dict[str, Any]]()
    for count in images:
        cost = cost_of(partial(_build, _noise(count), processes), scratch)
        say(f"{count:,} images: {cost.peak:,.1f} MiB, worker {cost.worker_peak:,.1f} MiB, {cost.seconds:,.1f} s")
        row = {"images": count, "seconds": cost.seconds, "parent_mib": cost.peak, "worker_mib": cost.worker_peak}
        sets.append(row | {"bytes": cost.size})
    return {"format": FORMAT, "bench": "memory", "workers": processes, "environment": environment(), "sets": sets}


def memory_table(result: Mapping[str, Any]) -> Iterator[str]:
    """The result of `bench_memory` as lines of text."""
    yield f"peak memory of building shards of 16x16 noise with {result['workers']} workers"
    yield from where(result["environment"])
    yield ""
    yield f"{'images':>12}  {'parent MiB':>10}  {'worker MiB':>10}  {'seconds':>9}  {'MB':>9}"
    for row in result["sets"]:
        peaks = f"{row['parent_mib']:>10,.1f}  {row['worker_mib']:>10,.1f}"
        yield f"{row['images']:>12,}  {peaks}  {row['seconds']:>9,.1f}  {row['bytes'] / 1e6:>9,.1f}"


def _build(source: Source, workers: int, folder: Path) -> None:
    from shards.writer import build

    build(source, folder, workers=workers, progress=False)


def _noise(count: int) -> Source:
    """`count` grey images of 16x16 noise, cut from one piece of noise: cheaper to make than to encode."""
    import numpy as np

    from shards.sources import Sample
    from shards.sources import Source as Base

    class Noise(Base):
        kind = "noise"

        def __init__(self, options: Any) -> None:
            self.options, self.shape, self.splits, self.fingerprint = options, (16, 16, 1), {"train": count}, "noise"
            self._pixels = np.random.default_rng(0).integers(0, 256, 2**16 + 256).astype(np.uint8)

        def identity_options(self) -> dict[str, Any]:
            return {"count": count}

        def sample(self, split: str, i: int) -> Sample:
            begin = i * 40_503 % 2**16
            return Sample(i, self._pixels[begin : begin + 256].reshape(16, 16, 1))

    return Noise(None)
