"""The training loop: it orders what the other files do, and holds no mathematics of its own.

The clock is `images`, the number of images seen. Everything that is drawn or read in an update is a function of the seed
and of where that clock stands, so a run that is stopped anywhere and resumed is the run that was never stopped.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from infogan import checkpoint as checkpoints
from infogan.clock import Clock
from infogan.codes import ContinuousCode, Latents, bound_at_best_std
from infogan.config import RunConfig, digest
from infogan.ema import EmaGenerator
from infogan.engine import Engine
from infogan.interruption import Interruption
from infogan.model import Model, origin_of, snapshot
from infogan.monitor import Monitor, Score
from infogan.networks import Critic, to_network_range
from infogan.phases import LossFunction, Players, Statistics, build_phases
from infogan.randomness import generator as draws
from infogan.tracking import Log, Means
from shards import Batch, BatchStream, Dataset, Plan, atomic, open_reader
from shards.errors import UserError

PHASES = ("critic", "generator")


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: `finished`, or stopped by `signal_name` after saving."""

    images: int
    finished: bool
    signal_name: str | None = None


class Trainer:
    """Trains one run, from its latest checkpoint where it has one, else from its first weights."""

    def __init__(self, engine: Engine, config: RunConfig, run: Path, dataset: Dataset) -> None:
        self.engine, self.config, self.run, self.dataset = engine, config, run, dataset
        self.codes = config.latent_codes()
        self.stop_images = config.stop.images(config.batch, dataset.manifest.splits["train"].samples)
        self.plan = Plan(dataset.shard_sizes("train"), config.seed)
        self.reader = open_reader(dataset, "train", kind=config.data.reader, device=engine.device)
        self._build_players()
        self.images = 0
        self.means = Means()
        self.log_length = 0
        self.best: dict[str, Any] | None = None
        self.failed_at = torch.full((len(PHASES),), -1, dtype=torch.int64, device=engine.device)

    def _build_players(self) -> None:
        config, engine = self.config, self.engine
        generator = config.network.generator(self.codes.input_width)
        critic = config.network.critic(self.codes.q_width)
        critic.detach_q = config.objective.mi_gradient == "head"
        self.modules: dict[str, nn.Module] = {"critic": critic, "generator": generator}
        for name, module in self.modules.items():
            config.network.initialise(module, draws(config.seed, f"init/{name}"))
            module.to(engine.device, engine.dtype).train()
        self.ema = EmaGenerator(generator, config.ema.half_life_kimg, config.ema.rampup)
        players = Players(generator, critic, engine.wrap(generator), engine.wrap(critic))
        self.optimizers = {
            name: torch.optim.Adam(
                self.modules[name].parameters(),
                lr=getattr(config.optimizer, name).lr,
                betas=config.optimizer.betas,
                fused=True,
            )
            for name in PHASES
        }
        self.phases = build_phases(
            players, self.codes, config.objective, self.optimizers["critic"], self.optimizers["generator"]
        )

    # ---- from and to disk -------------------------------------------------------------------------------------

    def start_from(self, found: checkpoints.Checkpoint) -> None:
        """Take another run's weights, and nothing else of it."""
        self._load_weights(found)

    def resume(self, found: checkpoints.Checkpoint) -> None:
        """Go on from a checkpoint of this run."""
        self._load_weights(found)
        tensors = found.tensors("optimizer")
        for name in PHASES:
            checkpoints.load_optimizer(self.optimizers[name], self.modules[name], name, tensors)
        self.images = found.images
        self.log_length = found.state["log_bytes"]
        self.means.load(found.state["means"], self.engine.device)
        self.engine.load_scaler_state(found.state["scalers"])
        self.best = found.state["best"]

    def _load_weights(self, found: checkpoints.Checkpoint) -> None:
        found.load_into("ema", self.ema.module)
        for name in PHASES:
            found.load_into(name, self.modules[name])

    def _state(self, log_bytes: int) -> dict[str, Any]:
        return {
            "images": self.images,
            **self._position(),
            "config_digest": digest(self.config),
            "data_digest": self.dataset.manifest.digest,
            "log_bytes": log_bytes,
            "means": self.means.state(),
            "scalers": self.engine.scaler_state(),
            "best": self.best,
        }

    def _save(self, monitor: Monitor) -> Path:
        """Write a checkpoint, on rank 0."""
        optimizers: dict[str, Tensor] = {}
        for name in PHASES:
            optimizers |= checkpoints.optimizer_tensors(self.optimizers[name], self.modules[name], name)
        modules = {**self.modules, "ema": self.ema.module}
        folder = checkpoints.save(self.run, modules, optimizers, self._state(monitor.log_length()))
        checkpoints.prune(self.run, self.config.checkpoint.keep, self.best["folder"] if self.best else None)
        return folder

    # ---- the loop ---------------------------------------------------------------------------------------------

    def train(self, say: Callable[[str], None]) -> Outcome:
        """Train until `stop` or a signal; `say` prints a line above the progress bar."""
        config, engine = self.config, self.engine
        log = Log(self.run, self.log_length, self.images / 1000) if engine.is_main else None
        stream = BatchStream(
            self.reader, self.plan, batch=config.batch, rank=engine.rank, world=engine.world,
            accumulation=config.accumulation, start=self.images, stop=self.stop_images,
        )  # fmt: skip
        clock = Clock(config.check_interval)
        monitor = Monitor(self.run, config, self.dataset, log, self.images / 1000, say)
        signal_name = None
        with closing(monitor), stream, Interruption() as interruption:
            batches = iter(stream)
            while self.images < self.stop_images and signal_name is None:
                self.means.add(self._update(batches))
                clock.tick(config.batch, stream.time_waited)
                if clock.check_due() or self._due(config.log.every_kimg):
                    signal_name = self._agree(interruption, clock)
                if self._due(config.log.every_kimg):
                    monitor.report(self._row(clock))
                if self._due(config.images.every_kimg):
                    self._on_main(lambda: monitor.picture(self._model()))
                if self._due(config.eval.every_kimg):
                    self._on_main(lambda: self._note_score(monitor.validate(self._model())))
                if signal_name or self._due(config.eval.every_kimg) or self._due(config.checkpoint.every_kimg):
                    self._on_main(lambda: self._save(monitor))
            if self.images >= self.stop_images:
                self._on_main(lambda: self._finish(monitor))
        return Outcome(self.images, self.images >= self.stop_images, signal_name)

    def try_update(self) -> None:
        """Make one update on the first images, to see whether it fits into memory."""
        stream = BatchStream(
            self.reader, self.plan, batch=self.config.batch, rank=self.engine.rank, world=self.engine.world, stop=self.config.batch
        )  # fmt: skip
        with stream:
            self._update(iter(stream))

    def _update(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One update: every phase once, each with fresh latents. Returns its statistics."""
        engine, config = self.engine, self.config
        image_range = config.network.image_range
        parts = [next(batches).images for _ in range(config.accumulation)]  # [B, C, H, W] uint8
        real = [to_network_range(part.to(engine.device), image_range, engine.dtype) for part in parts]
        statistics: dict[str, Tensor] = {}
        flags = []
        for phase in self.phases:
            latents = self._latents(phase.name)
            losses = [_bind(phase.loss, images, part) for images, part in zip(real, latents, strict=True)]
            found, failed = engine.update(phase.name, phase.module, phase.optimizer, losses)
            statistics |= found
            flags.append(failed)
        self.ema.update(self.images + config.batch, config.batch)
        self._note_failures(torch.stack(flags), statistics)
        self.images += config.batch
        return statistics

    def _latents(self, phase: str) -> list[Latents]:
        """This rank's latents of this phase, one part per micro-batch, cut from those of the global batch."""
        whole = self.codes.sample(self.config.batch, draws(self.config.seed, f"latents/{phase}", self.images))
        size = self.config.batch // (self.engine.world * self.config.accumulation)
        parts = (micro * self.engine.world + self.engine.rank for micro in range(self.config.accumulation))
        return [whole[part * size : (part + 1) * size].to(self.engine.device, self.engine.dtype) for part in parts]

    def _note_failures(self, flags: Tensor, statistics: dict[str, Tensor]) -> None:
        """Remember on the device the first update of each phase whose gradients were not finite; in fp16, which skips such
        updates while it looks for a loss scale, count them instead."""
        if self.config.precision == "fp16":
            statistics["skipped"] = flags.sum()
        else:
            first = (flags > 0) & (self.failed_at < 0)
            self.failed_at = torch.where(first, self.images // self.config.batch, self.failed_at)

    def _due(self, every_kimg: float | None) -> bool:
        """Whether the update that just ended crossed a multiple of the interval, or was the last."""
        if every_kimg is None:
            return False
        every = every_kimg * 1000
        return self.images // every != (self.images - self.config.batch) // every or self.images >= self.stop_images

    def _agree(self, interruption: Interruption, clock: Clock) -> str | None:
        """Let all processes know of a signal or a failed update that one of them saw, and when to ask again."""
        failed = [int(update) + 1 for update in self.failed_at.tolist()]
        signals = [int(interruption.signal_name == name) for name in ("SIGINT", "SIGTERM")]
        stride, *agreed = self.engine.agree([clock.stride(), *signals, *failed])
        clock.next_check(stride)
        for phase, update in zip(PHASES, agreed[2:], strict=True):
            if update:
                self._refuse_failed(phase, update - 1)
        return next((name for name, flag in zip(("SIGINT", "SIGTERM"), agreed, strict=False) if flag), None)

    def _refuse_failed(self, phase: str, update: int) -> None:
        batch = self.config.batch
        indices = self.plan.indices(update * batch, batch)
        dump = self.run / "nonfinite.json"
        if self.engine.is_main:
            atomic.write_json(dump, {"phase": phase, "update": update, "images": [int(index) for index in indices]})
        raise UserError(
            f"update {update} ({update * batch / 1000:g} kimg), {phase} phase: its gradients were not finite and it was not applied; "
            f"the batch's images are listed in {dump}; try a lower optimizer.{phase}.lr, or precision=fp32, in a new run"
        )

    # ---- at intervals -----------------------------------------------------------------------------------------

    def _row(self, clock: Clock) -> dict[str, Any]:
        """One row of the log: where training stands, and the means since the last row."""
        row: dict[str, Any] = self._position()
        row["epoch"] = self.images / self.plan.samples
        means = self.means.take(self.engine.mean)
        for name, value in means.items():
            row[name] = value
            code = self.codes.codes.get(name.removeprefix("mi/")) if name.startswith("mi/") else None
            if code is not None:
                row[f"{name}/ceiling"] = code.ceiling
            if isinstance(code, ContinuousCode):
                row[f"{name}/best_std"] = bound_at_best_std(means[name.replace("mi/", "mse/", 1)])
        return row | clock.take()

    def _position(self) -> dict[str, Any]:
        return {"kimg": self.images / 1000, "update": self.images // self.config.batch}

    def _on_main(self, work: Callable[[], None]) -> None:
        """Let rank 0 work while the others wait."""
        with self.engine.main_first() as main:
            if main:
                work()

    def _model(self, checkpoint_digest: str = "") -> Model:
        """The EMA generator and the critic as they stand, ready to be judged."""
        origin = origin_of(self.run, checkpoint_digest, {"images": self.images, **self._position()}, self.dataset)
        critic = cast(Critic, self.modules["critic"])
        return snapshot(self.config, self.ema.module, critic, self.reader, origin, self.engine.device)

    def _note_score(self, score: Score) -> None:
        if self.best is None or score.better_than(self.best["value"]):
            folder = checkpoints.folder_name(self.images)
            self.best = {"folder": folder, "metric": score.metric, "value": score.value}

    def _finish(self, monitor: Monitor) -> None:
        """Final checkpoint, pictures, curves and the exported model."""
        folder = self._save(monitor)
        monitor.finish(self._model(checkpoints.open_checkpoint(folder).digest))


def _bind(loss: LossFunction, real: Tensor, latents: Latents) -> Callable[[], tuple[Tensor, Statistics]]:
    return lambda: loss(real, latents)
