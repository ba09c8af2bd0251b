"""One call of the training verb: find the run, its data and its checkpoint, train, and leave in order."""

import gc
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from infogan import checkpoint as checkpoints
from infogan import run as runs
from infogan.beforehand import resolved
from infogan.config import RunConfig
from infogan.engine import Engine, open_engine
from infogan.learner import Learner
from infogan.lease import Lease
from infogan.model import exported_digest
from infogan.settings import Settings
from infogan.stillness import OUT_OF_MEMORY
from infogan.trainer import Outcome, Trainer
from shards import Dataset
from shards.errors import UserError

Say = Callable[[str], None]

FEW_IMAGES = 5000
"""Training images below which augmentation is suggested, a rule of thumb."""

# What a CPU's allocators say, who have no error class of their own: torch's, oneDNN's (for its scratch space), C++'s.
ALLOCATION_FAILED = ("can't allocate memory", "could not create a primitive", "bad_alloc")


def train(settings: Settings, run: Path | None = None, *, start_from: str | None = None, say: Say = print) -> Outcome:
    """Train a run until its `stop`, or until a signal, going on from its latest checkpoint where it has one.

    `run`: its folder, `runs/<preset>-seed<n>` by default. `start_from`: `RUN[@kimg]`, another run whose weights a new
    run begins with. `say` prints one line; it is called on rank 0 only.
    """
    run = runs.default_folder(settings.preset, settings.config) if run is None else run
    runs.refuse_foreign(run)
    engine = open_engine(settings.config)
    try:
        with engine.watch.over():
            say = say if engine.is_main else _silent
            dataset = settings.config.data.open()
            if engine.is_main:  # what does not fit the run leaves it untouched, its heartbeat too
                resolved(settings.config, run, dataset, runs.learned(run))
            with runs.only_writer(run, say) if engine.is_main else nullcontext() as lease:
                engine.barrier()  # nobody looks into the run before it is held
                engine.watch.at("start", patient=True)
                learned = engine.meeting.from_main("learned" if runs.learned(run) else "")
                engine.follow(resolved(settings.config, run, dataset, runs.saved_config(run) if learned else None))
                outcome = _train(engine, engine.config, run, dataset, start_from, say, lease)
            engine.barrier()
            return outcome
    finally:
        engine.close()


def _train(
    engine: Engine,
    config: RunConfig,
    run: Path,
    dataset: Dataset,
    start_from: str | None,
    say: Say,
    lease: Lease | None,
) -> Outcome:
    found = _one_for_all(engine, lambda: checkpoints.latest(run))
    batch, samples = config.batch, dataset.manifest.splits["train"].samples
    images = config.stop.images(batch, samples)
    if lease is not None:
        lease.note(stop=str(config.stop), stop_images=images, images=found.images if found else 0)
        lease.beat()
    say(
        f"run {run}: {images // batch:,} updates of {batch} = {images / 1000:,g} kimg = {images / samples:,.1f} epochs "
        f"on {engine.world} x {engine.device.type}, {config.precision}, {engine.threads} threads"
        + (f", by {engine.name}" if engine.name != Engine.name else "")
    )
    if found is not None and engine.meeting.from_main("finished" if _is_finished(run, found, images) else ""):
        say(f"already finished: {found.folder} is at {found.images / 1000:g} kimg; to train longer, say a later stop")
        if lease is not None:
            lease.note(state="finished")
        return Outcome(found.images, True)
    if engine.is_main and found is not None and start_from is not None and not runs.began_from(run, start_from):
        raise UserError(
            f"--from {start_from}: run {run} has checkpoints of its own; give a new run another folder with --run DIR"
        )
    if found is None and samples < FEW_IMAGES and not config.augment:
        say(
            f"{samples:,} training images are few, and a critic may learn them by heart: consider "
            "augment.diffaugment=[color,translation,cutout], augment.mirror=true where mirror images are as good (of "
            "digits they are not), or fewer updates"
        )
    outcome = None
    try:
        outcome = _go_on(engine, config, run, dataset, found, start_from, say, lease)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    if outcome is None:  # out here the error is gone, and with it the tensors that its frames held
        raise _memory_advice(engine, config)
    if lease is not None:
        lease.note(images=outcome.images, state="finished" if outcome.finished else "stopped")
    if outcome.finished:
        say(f"finished at {outcome.images / 1000:g} kimg: pictures in {run / 'images'}, model in {run / 'export'}")
    else:
        say(
            f"stopped by {outcome.signal_name} at {outcome.images / 1000:g} kimg after saving; the same command resumes"
        )
    return outcome


def _is_finished(run: Path, found: checkpoints.Checkpoint, images: int) -> bool:
    return found.images >= images and exported_digest(run / "export") == found.digest


def _one_for_all(engine: Engine, find: Callable[[], checkpoints.Checkpoint | None]) -> checkpoints.Checkpoint | None:
    """The checkpoint that rank 0 finds, opened by every process: another might see an older one, or none."""
    found = find() if engine.is_main else None
    folder = engine.meeting.from_main(str(found.folder) if found else "")
    if not folder:
        return None
    engine.meeting.same(f"checkpoint {folder}", {"its digest": checkpoints.digest_of(Path(folder))})
    return found or checkpoints.open_checkpoint(Path(folder))


def _go_on(
    engine: Engine,
    config: RunConfig,
    run: Path,
    dataset: Dataset,
    found: checkpoints.Checkpoint | None,
    start_from: str | None,
    say: Say,
    lease: Lease | None,
) -> Outcome:
    """Train from the checkpoint `found`, else from another run's weights, else from the first ones."""
    trainer = Trainer(engine, config, run, dataset, lease)
    engine.watch.at("start")  # not patient any more: what is read from now on is small
    if found is not None:
        say(f"resuming from {found.folder}")
        trainer.resume(found)
    elif start_from is not None:
        weights = _one_for_all(engine, lambda: runs.starting_weights(start_from, run))
        assert weights is not None
        trainer.start_from(weights)
    engine.on_main("start", lambda: runs.begin(run, config, engine, origin=start_from, say=say))
    outcome = trainer.train(say)
    if outcome.finished:
        trainer.finish(say)
    return outcome


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ALLOCATION_FAILED
    )


def _memory_advice(engine: Engine, config: RunConfig) -> UserError:
    """Try smaller batches until one update fits, and say which."""
    engine.watch.at(OUT_OF_MEMORY, patient=True)
    gc.collect()
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
    local = config.batch // engine.world // config.accumulation
    fits = local // 2
    while fits >= 2 and not _fits(engine, config, fits):
        fits //= 2
    if fits < 2:
        return UserError(
            f"out of memory on {engine.device}: not even 2 images fit; use a smaller network or another device"
        )
    parts = math.ceil(local / fits) * config.accumulation
    while (config.batch // engine.world) % parts:
        parts += 1
    return UserError(
        f"out of memory on {engine.device} at {local} images per process; the largest batch that was tried and fits is "
        f"{fits}: say accumulation={parts}, which keeps batch {config.batch} but lets BatchNorm see only "
        f"{config.batch // engine.world // parts} images at a time, or batch={fits * engine.world}"
    )


def _fits(engine: Engine, config: RunConfig, size: int) -> bool:
    alone = engine.alone()  # the other processes may have no trouble, and would not answer
    try:
        learner = Learner(replace(config, batch=size, accumulation=1), alone)
        learner.update([torch.zeros(size, *config.network.image_shape, dtype=torch.uint8)], 0)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        gc.collect()
        return False
    return True


def _silent(line: str) -> None:
    """Other ranks keep quiet."""
