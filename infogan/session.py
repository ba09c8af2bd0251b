"""One call of the training verb: find the run, its data and its checkpoint, train, and leave in order."""

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from infogan import checkpoint as checkpoints
from infogan import run as runs
from infogan.config import RunConfig
from infogan.engine import Engine
from infogan.model import check_identity
from infogan.settings import Settings
from infogan.trainer import Outcome, Trainer
from shards import Dataset, open_dataset
from shards.errors import UserError

Say = Callable[[str], None]


def train(settings: Settings, run: Path | None = None, *, start_from: str | None = None, say: Say = print) -> Outcome:
    """Train a run until its `stop`, or until a signal, going on from its latest checkpoint where it has one.

    `run`: its folder, `runs/<preset>-seed<n>` by default. `start_from`: `RUN[@kimg]`, another run whose weights a new run
    begins with. `say` prints one line; it is called on rank 0 only.
    """
    run = run or runs.default_folder(settings.preset, settings.config)
    saved = runs.saved_config(run)
    engine = Engine(runs.follow_saved(settings.config, saved))
    try:
        say = say if engine.is_main else _silent
        dataset = open_dataset(engine.config.data.path)
        check_identity(engine.config, dataset)
        config = replace(engine.config, data=replace(engine.config.data, digest=dataset.manifest.digest))
        if saved is not None:
            runs.refuse_changes(run, config, saved)
        with engine.main_first() as main:
            if main:
                runs.begin(run, config, engine, origin=start_from)
        return _train(engine, config, run, dataset, start_from, say)
    finally:
        engine.close()


def _train(engine: Engine, config: RunConfig, run: Path, dataset: Dataset, start_from: str | None, say: Say) -> Outcome:
    found = checkpoints.latest(run)
    batch, samples = config.batch, dataset.manifest.splits["train"].samples
    images = config.stop.images(batch, samples)
    say(
        f"run {run}: {images // batch:,} updates of {batch} = {images / 1000:,g} kimg = {images / samples:,.1f} epochs "
        f"on {engine.world} x {engine.device.type}, {config.precision}, {engine.threads} threads"
    )
    if found is not None and found.images >= images:
        say(f"already finished: {found.folder} is at {found.images / 1000:g} kimg; to train longer, say a later stop")
        return Outcome(found.images, True)
    if found is not None and start_from is not None:
        raise UserError(f"--from {start_from}: run {run} has checkpoints of its own; give a new run another folder with --run DIR")
    try:
        trainer = Trainer(engine, config, run, dataset)
        if found is not None:
            say(f"resuming from {found.folder}")
            trainer.resume(found)
        elif start_from is not None:
            trainer.start_from(runs.starting_weights(start_from, run))
        outcome = trainer.train(say)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise _memory_advice(engine, config, run, dataset) from None
    if outcome.finished:
        say(f"finished at {outcome.images / 1000:g} kimg: pictures in {run / 'images'}, model in {run / 'export'}")
    else:
        say(f"stopped by {outcome.signal_name} at {outcome.images / 1000:g} kimg after saving; the same command resumes")
    return outcome


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _memory_advice(engine: Engine, config: RunConfig, run: Path, dataset: Dataset) -> UserError:
    """Try smaller batches until one update fits, and say which."""
    gc.collect()
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
    local = config.batch // engine.world // config.accumulation
    fits = local // 2
    while fits >= 2 and not _fits(engine, config, run, dataset, fits):
        fits //= 2
    if fits < 2:
        return UserError(f"out of memory on {engine.device}: not even 2 images fit; use a smaller network or another device")
    parts = math.ceil(local / fits) * config.accumulation
    while (config.batch // engine.world) % parts:
        parts += 1
    return UserError(
        f"out of memory on {engine.device} at {local} images per process; the largest batch that was tried and fits is {fits}: "
        f"say accumulation={parts}, which keeps batch {config.batch} but normalises every {config.batch // engine.world // parts} "
        f"images by themselves in BatchNorm, or batch={fits * engine.world}"
    )


def _fits(engine: Engine, config: RunConfig, run: Path, dataset: Dataset, size: int) -> bool:
    smaller = replace(config, batch=size * engine.world, accumulation=1)
    try:
        Trainer(engine, smaller, run, dataset).try_update()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        gc.collect()
        return False
    return True


def _silent(line: str) -> None:
    """Other ranks keep quiet."""
