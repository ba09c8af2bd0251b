"""`infogan bench train`: how fast an update is, against a plain PyTorch loop and against the step alone.

Absolute times say little about code: machines differ, and one machine differs from hour to hour. So the
contestants run in turns in one process, and what counts is the ratio within a round, its median and its spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch import bench_build, bench_memory
from launch.bench_options import json_option, tell
from launch.turns import Contestant, Turn, spread, take_turns
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.config import RunConfig
    from infogan.engine import Engine
    from infogan.learner import Learner
    from launch.plain_loop import PlainDataset
    from shards import BatchStream, Dataset, Reader

FORMAT = 1
DEFAULT_PRESET = "paper/mnist"
TRIED_WORKERS = (0, 2)
DESCRIPTIONS = {
    "plain": "PyTorch loop as users write it: PIL + ToTensor, DataLoader ({workers} workers), fp32, .item()",
    "ours": "infogan train: {precision}, channels-last, fused Adam, {reader}; no pictures or checkpoints",
    "limit": "ours on one fixed batch: no data, no log",
}


class Ours:
    """The trainer's own update, from the batch to the running means of the statistics."""

    def __init__(self, engine: Engine, learner: Learner, stream: BatchStream) -> None:
        from infogan.tracking import Means

        self.engine, self.learner, self.stream = engine, learner, stream
        self._batches, self._means, self._images = iter(stream), Means(), 0

    def advance(self, updates: int) -> float:
        self.engine.tune_memory()
        config, before = self.engine.config, self.stream.time_waited
        for _ in range(updates):
            parts = [next(self._batches).images for _ in range(config.accumulation)]
            self._means.add(self.learner.update(parts, self._images))
            self._images += config.batch
        self._means.take(self.engine.mean)
        return self.stream.time_waited - before


class Limit:
    """Our update on one batch that lies on the device."""

    def __init__(self, engine: Engine, learner: Learner, reader: Reader) -> None:
        import numpy as np

        config = engine.config
        images = reader.gather(np.arange(config.batch) % reader.samples).images
        self.engine, self.learner, self.batch, self._images = engine, learner, config.batch, 0
        self._parts = images.chunk(config.accumulation)

    def advance(self, updates: int) -> float:
        self.engine.tune_memory()
        for _ in range(updates):
            self.learner.update(self._parts, self._images)
            self._images += self.batch
        return 0.0


@click.group(name="bench", short_help="Measure speed against a plain loop and against the limit.")
def command() -> None:
    """Measure how fast this machine works, as ratios of things that run in turns."""


command.add_command(bench_build.command)
command.add_command(bench_memory.command)


@command.command()
@click.argument("words", nargs=-1, metavar="[PRESET] [KEY=VALUE]...")
@click.option("--data", metavar="FOLDER_OR_URL", help="The data set.  [default: the preset's data.path]")
@click.option("--updates", type=click.IntRange(min=1), default=20, show_default=True, help="Timed in every round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="In each, all take turns.")
@json_option
def train(words: tuple[str, ...], data: str | None, updates: int, rounds: int, json_file: Path | None) -> None:
    """Time the train step of PRESET (paper/mnist): ours, a plain PyTorch loop, and ours without data.

    KEY=VALUE overrides a setting, as for infogan train. The plain loop is the same networks, losses and
    updates, written as most scripts are: a torchvision-style data set, a DataLoader, fp32, Adam as it comes,
    .item() in every step.
    """
    from infogan import settings

    preset, overrides = _preset_and_overrides(words)
    config = settings.load(preset, overrides).config
    if data is not None:
        config = replace(config, data=replace(config.data, path=data))
    result = bench_train(config, preset, updates, rounds, lambda line: click.echo(line, err=True))
    tell(table(result), result, json_file)


def bench_train(
    config: RunConfig, preset: str, updates: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the three in turns; `preset` is the name of the config, `say` prints a line.

    Returns the JSON document of `--json`. A spread is {"median", "min", "max", "rounds"}, the last with one
    number per round; a ratio is taken within each round.

    - `format` (1), `bench` ("train"), `preset`, `config` (the resolved one), `data` (its digest), `batch`,
      `updates`, `rounds`;
    - `environment`: as in a run's environment.json (device, threads, precision, packages, commit, ...), with
      `cores` (that this process may use) and `native_bf16` of the device;
    - `contestants`: per name (`plain`, `ours`, `limit`) `what` in words, the spreads `images_per_s` and
      `data_wait` (share of its time spent waiting for data), and for `plain` the DataLoader's `workers`, with
      the images/s of each number of them that was tried in `workers_tried`;
    - `ratios`: `ours/plain` and `ours/limit`, spreads of ratios of images/s.

    Raises:
        UserError: no data set, one that does not fit the network or is smaller than a batch, several
            processes, fp64, or a penalty or augmentation that the plain loop lacks.
    """
    import torch

    from infogan import run as runs
    from infogan.config import to_plain
    from infogan.devices import native_bf16
    from infogan.engine import open_engine
    from shards import workers

    if config.precision == "fp64":
        raise UserError("precision: fp64: the plain loop that ours is timed against has fp32; use fp32, bf16 or auto")
    for name, used, without in (
        ("objective.r1", config.objective.r1, "objective.r1=0"),
        ("objective.ramp_kimg", config.objective.ramp_kimg, "objective.ramp_kimg=0"),
        ("augment", config.augment, "augment.mirror=false augment.diffaugment=[]"),
    ):
        if used:
            raise UserError(f"{name}: the plain loop that ours is timed against has none; say {without}")
    dataset = _open(config)
    engine = open_engine(config)
    with closing(engine), ExitStack() as stack:
        config = engine.config
        if engine.world > 1:
            raise UserError("bench: times one process; start it without a launcher, as infogan bench train")
        wait = torch.cuda.synchronize if engine.device.type == "cuda" else _no_wait
        contestants, about = _contestants(engine, dataset, max(2, updates // 4), wait, stack)
        timings = take_turns(
            contestants,
            rounds,
            updates,
            wait,
            lambda number, done: say(_round_line(number, rounds, done, updates * config.batch)),
        )
    machine = {"cores": workers.available_cores(), "native_bf16": native_bf16(engine.device)}
    return {
        "format": FORMAT,
        "bench": "train",
        "preset": preset,
        "config": to_plain(config),
        "data": dataset.manifest.digest,
        "batch": config.batch,
        "updates": updates,
        "rounds": rounds,
        "environment": runs.environment(engine) | machine,
        **summary(timings, updates * config.batch, about),
    }


def summary(timings: Mapping[str, Sequence[Turn]], images: int, about: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """`contestants` and `ratios` of the result; `images`: of one turn."""
    speeds = {name: [images / turn.seconds for turn in turns] for name, turns in timings.items()}
    waits = {name: [turn.waited / turn.seconds for turn in turns] for name, turns in timings.items()}
    return {
        "contestants": {
            name: about[name] | {"images_per_s": spread(speeds[name]), "data_wait": spread(waits[name])}
            for name in timings
        },
        "ratios": {
            f"ours/{other}": spread([a / b for a, b in zip(speeds["ours"], speeds[other], strict=True)])
            for other in ("plain", "limit")
        },
    }


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as lines of text."""
    where, packages = result["environment"], result["environment"]["packages"]
    bf16 = "native bf16" if where["native_bf16"] else "no native bf16"
    turns = f"{result['rounds']} rounds in turns, {result['updates']} updates each"
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchvision", "accelerate"))
    yield f"train step of {result['preset']}, batch {result['batch']}: {turns}"
    yield f"{where['device']}, {bf16}; {where['cores']} cores, {where['threads']} threads"
    yield f"Python {where['python']}, {versions}, commit {(where['commit'] or 'unknown')[:12]}"
    yield ""
    yield f"{'':7}{'images/s':>9}  {'min - max':>17}  {'ms/update':>9}  {'data wait':>9}"
    for name, row in result["contestants"].items():
        speed, wait = row["images_per_s"], row["data_wait"]
        span = f"{speed['min']:,.0f} - {speed['max']:,.0f}"
        step = 1000 * result["batch"] / speed["median"]
        yield f"{name:7}{speed['median']:>9,.0f}  {span:>17}  {step:>9.1f}  {wait['median']:>9.2%}"
    yield ""
    for name, ratio in result["ratios"].items():
        yield f"{name:12} {ratio['median']:.2f}  ({ratio['min']:.2f} - {ratio['max']:.2f})"
    yield ""
    for name, row in result["contestants"].items():
        yield f"{name:7}{row['what']}"
    tried = ", ".join(
        f"{count} workers: {speed:,.0f}" for count, speed in result["contestants"]["plain"]["workers_tried"].items()
    )
    yield f"{'':7}DataLoader workers: the faster of those tried first (images/s with {tried})"


def _contestants(
    engine: Engine, dataset: Dataset, trial: int, wait: Callable[[], object], stack: ExitStack
) -> tuple[dict[str, Contestant], dict[str, dict[str, Any]]]:
    """All three from the same first weights, and what each is. What they need is closed with `stack`."""
    from infogan.learner import Learner
    from shards import BatchStream, Plan, open_reader

    config = engine.config
    reader = stack.enter_context(closing(open_reader(dataset, "train", kind=config.data.reader, device=engine.device)))
    plan = Plan(dataset.shard_sizes("train"), config.seed, config.data.window)
    ours, limit = Learner(config, engine), Learner(config, engine)
    plain, tried = _best_plain(engine, _plain_dataset(reader, config), limit, trial, wait)
    stream = stack.enter_context(BatchStream(reader, plan, batch=config.batch, accumulation=config.accumulation))
    workers = max(tried, key=lambda count: tried[count])
    words = {
        "workers": workers,
        "precision": config.precision,
        "reader": f"{type(reader).__name__.removesuffix('Reader').lower()} data",
    }
    about: dict[str, dict[str, Any]] = {name: {"what": text.format(**words)} for name, text in DESCRIPTIONS.items()}
    about["plain"] |= {"workers": workers, "workers_tried": {str(count): speed for count, speed in tried.items()}}
    return {"plain": plain, "ours": Ours(engine, ours, stream), "limit": Limit(engine, limit, reader)}, about


def _best_plain(
    engine: Engine, data: PlainDataset, first: Learner, trial: int, wait: Callable[[], object]
) -> tuple[Contestant, dict[int, float]]:
    """The plain loop with the number of DataLoader workers that is fastest here, and images/s by that number."""
    from launch.plain_loop import PlainLoop, plain_loader

    config = engine.config
    loops = {
        str(count): PlainLoop(
            config, first.generator, first.critic, plain_loader(data, config.batch, count), engine.device
        )
        for count in TRIED_WORKERS
    }
    timings = take_turns(loops, 3, trial, wait)
    speeds = {
        int(count): trial * config.batch / statistics.median(turn.seconds for turn in turns)
        for count, turns in timings.items()
    }
    return loops[str(max(speeds, key=lambda count: speeds[count]))], speeds


def _plain_dataset(reader: Reader, config: RunConfig) -> PlainDataset:
    import numpy as np

    from launch.plain_loop import MOST_BYTES, PlainDataset

    spec = reader.manifest.image
    count = min(reader.samples, max(config.batch, MOST_BYTES // spec.nbytes))
    batch = reader.gather(np.arange(count))
    images = np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).cpu().numpy())
    return PlainDataset(images, batch.labels.tolist(), config.network.image_range)


def _open(config: RunConfig) -> Dataset:
    from infogan.model import check_identity
    from shards import sources
    from shards.location import is_url

    path = Path(config.data.path)
    if not config.data.path or not (is_url(config.data.path) or path.exists()):
        source = path.name if path.name in sources.names() else "SOURCE"
        raise UserError(
            f"data {config.data.path or '(none)'}: no data set there; make it with "
            f"`infogan shards build {source} --out {config.data.path or 'DIR'}`, or name another with --data DIR"
        )
    dataset = config.data.open()
    check_identity(config, dataset)
    return dataset


def _preset_and_overrides(words: Sequence[str]) -> tuple[str, list[str]]:
    presets = [word for word in words if "=" not in word] or [DEFAULT_PRESET]
    if len(presets) > 1:
        raise click.UsageError(f"one preset at a time, not {', '.join(presets)}; settings are KEY=VALUE")
    return presets[0], [word for word in words if "=" in word]


def _round_line(number: int, rounds: int, done: Mapping[str, Turn], images: int) -> str:
    return (
        f"round {number} of {rounds}: "
        + ", ".join(f"{name} {images / turn.seconds:,.0f}" for name, turn in done.items())
        + " images/s"
    )


def _no_wait() -> None:
    """The CPU is done when a call returns."""
