"""The training loop: it orders what the other files do, and holds no mathematics of its own.

The clock is `images`, the number of images seen. Everything that is drawn or read in an update is a function of the
seed and of where that clock stands, so a run that is stopped anywhere and resumed is the run that was never stopped.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infogan import checkpoint as checkpoints
from infogan.clock import Clock
from infogan.codes import ContinuousCode, bound_at_best_std
from infogan.config import RunConfig, digest
from infogan.engine import PHASES, Engine
from infogan.interruption import Interruption
from infogan.learner import MOST_SKIPPED, Learner
from infogan.lease import Lease
from infogan.model import Model, origin_of, snapshot
from infogan.monitor import Monitor, Score, final_products
from infogan.phases import Statistics
from infogan.tracking import Log, Means
from shards import Batch, BatchStream, Dataset, Plan, atomic, open_reader
from shards.errors import UserError

STATE = {"images", "config_digest", "data_digest", "shard_sizes", "means", "scalers", "best", "log_bytes"}
"""What a checkpoint's state must hold for a run to go on from it."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: `finished`, or stopped by `signal_name` after saving."""

    images: int
    finished: bool
    signal_name: str | None = None


class Trainer:
    """Trains one run: from its first weights, unless `resume` or `start_from` is called before `train`.

    `lease`: rank 0's hold on the run; it is told of the progress, and ends training where another process took it.
    """

    def __init__(
        self, engine: Engine, config: RunConfig, run: Path, dataset: Dataset, lease: Lease | None = None
    ) -> None:
        self.engine, self.config, self.run, self.dataset = engine, config, run, dataset
        self.stop_images = config.stop.images(config.batch, dataset.manifest.splits["train"].samples)
        self.plan = Plan(dataset.shard_sizes("train"), config.seed, config.data.window)
        self.reader = open_reader(dataset, "train", kind=config.data.reader, device=engine.device)
        self.learner = Learner(config, engine)
        self.images = 0
        self.means = Means()
        self.log_length = 0
        self.best: dict[str, Any] | None = None
        self.lease = lease
        self._judged: Model | None = None
        self._owed = False  # pictures and validation of the moment of the checkpoint, left out to save in time

    # ---- from and to disk -------------------------------------------------------------------------------------

    def start_from(self, found: checkpoints.Checkpoint) -> None:
        """Take another run's generator and critic, nothing else; the EMA begins anew from that generator."""
        self.learner.load_weights(found)
        self.learner.ema.restart()

    def resume(self, found: checkpoints.Checkpoint) -> None:
        """Go on from a checkpoint of this run; one of another run, or of another sharding of the data, is refused."""
        if missing := STATE - found.state.keys():
            raise UserError(
                f"checkpoint {found.folder}: saved by another version of this program (it lacks {sorted(missing)[0]}); "
                "use that version, or take its weights into a new run with --from"
            )
        if found.state["config_digest"] != digest(self.config):
            raise UserError(
                f"checkpoint {found.folder}: of a run with another config "
                f"(digest {found.state['config_digest'][:12]}); remove it, or take its weights into a new run "
                "with --from"
            )
        if found.state["shard_sizes"] != self.plan.sizes.tolist():
            raise UserError(
                f"data {self.dataset.shown}: its train split is cut into other shards than this run began with, which "
                "changes the order of the images; point data.path at the same build, or start a new run with --from"
            )
        self.learner.load_weights(found)
        self.learner.load_optimizers(found)
        self.images = found.images
        self.log_length = found.state["log_bytes"]
        self.means.load(found.state["means"], self.engine.rank, self.engine.world, self.engine.device)
        self.engine.load_scaler_state(found.state["scalers"])
        self.best = checkpoints.best_of(self.run, found.state)
        self._owed = found.state.get("owed", False)

    def _state(self) -> dict[str, Any]:
        """Where training stands, JSON-able; every process has to ask for it."""
        return {
            "images": self.images,
            **self._position(),
            "config_digest": digest(self.config),
            "data_digest": self.dataset.manifest.digest,
            "shard_sizes": self.plan.sizes.tolist(),
            "means": self.means.state(self.engine.gather),
            "scalers": self.engine.scaler_state(),
            "best": self.best,
            "owed": self._owed,
        }

    def _save(self, monitor: Monitor) -> None:
        """Write a checkpoint; every process returns when it stands."""
        state, (modules, optimizers) = self._state(), self.learner.tensors()

        def write() -> None:
            checkpoints.save(self.run, modules, optimizers, state | {"log_bytes": monitor.log_length()})
            checkpoints.prune(self.run, self.config.checkpoint.keep)

        self.engine.on_main("checkpoint", write)

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
        monitor = Monitor(self.run, config, self.dataset, self.reader, log, self.images / 1000, say)
        signal_name = None
        with Interruption() as interruption, closing(monitor), stream:
            batches = iter(stream)
            if self._owed:
                self._look(monitor)
            while self.images < self.stop_images and signal_name is None:
                self.means.add(self._update(batches))
                clock.tick(config.batch, stream.time_waited)
                saving = self._due(config.eval.every_kimg) or self._due(config.checkpoint.every_kimg)
                if saving or clock.check_due() or self._due(config.log.every_kimg):
                    signal_name = self._agree(interruption, clock)
                if self._due(config.log.every_kimg):
                    row = self._row(clock)
                    engine.watch.at("log", patient=True)
                    monitor.report(row)
                    self._note(row)
                with clock.paused():
                    self._owed = signal_name is not None and self.images < self.stop_images
                    if not self._owed:
                        self._look(monitor)
                    if signal_name or saving:
                        self._save(monitor)
        return Outcome(self.images, self.images >= self.stop_images, signal_name)

    def _look(self, monitor: Monitor) -> None:
        """Pictures and validation, where they are due at this moment."""
        if self._due(self.config.images.every_kimg):
            self.engine.on_main("pictures", lambda: monitor.picture(self._model()))
        if self._due(self.config.eval.every_kimg):
            self.engine.on_main("validation", lambda: self._note_score(monitor.validate(self._model())))

    def _update(self, batches: Iterator[Batch]) -> Statistics:
        self._judged = None
        self.engine.watch.at("data", self.images // self.config.batch, patient=True)
        parts = [next(batches).images for _ in range(self.config.accumulation)]
        statistics = self.learner.update(parts, self.images)
        self.images += self.config.batch
        return statistics

    def _due(self, every_kimg: float | None) -> bool:
        """Whether the update that just ended crossed a multiple of the interval, or was the last."""
        if every_kimg is None:
            return False
        every = every_kimg * 1000
        return self.images // every != (self.images - self.config.batch) // every or self.images >= self.stop_images

    def _agree(self, interruption: Interruption, clock: Clock) -> str | None:
        """Let all processes know of a signal or a failed update that one of them saw, and when to ask again."""
        failed = [update + 1 for update in self.learner.failed_updates()]
        signals = [int(interruption.signal_name == name) for name in Interruption.NAMES]
        taken = self.lease.taken_by if self.lease is not None else None
        stride, lost, *agreed = self.engine.agree([clock.stride(), int(taken is not None), *signals, *failed])
        clock.next_check(stride)
        if lost:
            raise UserError(
                f"run {self.run}: {taken or 'another process'} has taken it over, since this one had been silent for "
                "too long; leave it to that one, or say --run DIR"
            )
        for phase, update in zip(PHASES, agreed[len(signals) :], strict=True):
            if update:
                self._refuse_failed(phase, update - 1)
        return next((name for name, flag in zip(Interruption.NAMES, agreed, strict=False) if flag), None)

    def _refuse_failed(self, phase: str, update: int) -> None:
        batch = self.config.batch
        indices = self.plan.indices(update * batch, batch).tolist()
        dump = self.run / "nonfinite.json"
        if self.engine.is_main:
            places = [self.dataset.place("train", index) for index in indices]
            atomic.write_json(dump, {"phase": phase, "update": update, "indices": indices, "images": places})
        where = f"update {update} ({update * batch / 1000:g} kimg), {phase} phase"
        remedy = f"try a lower optimizer.{phase}.lr, or precision=fp32, in a new run with --run DIR"
        if self.config.precision == "fp16":
            raise UserError(
                f"{where}: it was the last of {MOST_SKIPPED} in a row whose gradients were not finite at any loss "
                f"scale, and none was applied; its images are listed in {dump}; {remedy}"
            )
        raise UserError(
            f"{where}: its gradients were not finite, so it was not applied; its images are listed in {dump}; {remedy}"
        )

    def finish(self, say: Callable[[str], None]) -> None:
        """Make the final pictures, curves and exported model of the checkpoint that training ended with."""
        say("drawing the final pictures and curves, exporting the model")
        self.engine.on_main(
            "export", lambda: final_products(self.run, self._model(checkpoints.find(self.run, "latest").digest))
        )

    # ---- at intervals -----------------------------------------------------------------------------------------

    def _row(self, clock: Clock) -> dict[str, Any]:
        """One row of the log: where training stands, and the means since the last row."""
        row: dict[str, Any] = self._position()
        row["epoch"] = self.images / self.plan.samples
        row["lambda_share"] = self.config.objective.lambda_share(self.images - self.config.batch)
        means = self.means.take(self.engine.mean)
        for name, value in means.items():
            row[name] = value
            code = self.config.codes.get(name.removeprefix("mi/")) if name.startswith("mi/") else None
            if code is not None:
                row[f"{name}/ceiling"] = code.ceiling
            if isinstance(code, ContinuousCode):
                row[f"{name}/best_std"] = bound_at_best_std(means[name.replace("mi/", "mse/", 1)])
        return row | clock.take()

    def _note(self, row: Mapping[str, Any]) -> None:
        """Let the heartbeat know how far the run is."""
        if self.lease is not None:
            mi = {name: row[f"mi/{name}"] for name in self.config.codes}
            self.lease.note(images=self.images, images_per_s=row["time/images_per_s"], mi=mi)

    def _position(self) -> dict[str, Any]:
        return {"kimg": self.images / 1000, "update": self.images // self.config.batch}

    def _model(self, checkpoint_digest: str = "") -> Model:
        """The EMA generator and the critic as they stand, ready to be judged; made once between two updates."""
        origin = origin_of(self.run, checkpoint_digest, {"images": self.images, **self._position()}, self.dataset)
        if self._judged is None:
            learner = self.learner
            self._judged = snapshot(
                self.config, learner.ema.module, learner.critic, self.reader, origin, self.engine.device
            )
        return replace(self._judged, origin=origin)

    def _note_score(self, score: Score) -> None:
        # numbers of two metrics cannot be held against each other: the one that there is now goes on
        if self.best is None or self.best["metric"] != score.metric or score.better_than(self.best["value"]):
            folder = checkpoints.folder_name(self.images)
            self.best = {"folder": folder, "metric": score.metric, "value": score.value}
