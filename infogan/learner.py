"""What learns: generator, critic, their optimizers and the EMA, and one update of them all. No data, log or disk."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from infogan import checkpoint as checkpoints
from infogan.augment import Augmentation
from infogan.batchnorm import synchronise
from infogan.codes import Latents
from infogan.config import RunConfig
from infogan.ema import EmaGenerator
from infogan.engine import PHASES, Engine
from infogan.networks import Critic, to_network_range
from infogan.networks.spectral_norm import follow_weights
from infogan.phases import LossFunction, Players, Statistics, build_phases
from infogan.randomness import generator as draws

MOST_SKIPPED = 50  # updates in a row that fp16 may skip before the run counts as failed


class Learner:
    """The players of a run at their first weights, and how they are updated.

    Attributes: `generator` and `critic`, bare modules in the run's dtype; `ema`; `codes`.
    """

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        self.config, self.engine = config, engine
        self.codes = config.latent_codes()
        critic = config.network.critic(self.codes.q_width)
        critic.detach_q = config.objective.mi_gradient == "head"
        self.modules: dict[str, nn.Module] = {
            "critic": critic,
            "generator": config.network.generator(self.codes.input_width),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, module in self.modules.items():
            config.network.initialise(module, draws(config.seed, f"init/{name}"))
            module.to(engine.device, engine.dtype).train()
            if config.sync_batchnorm and engine.world > 1:
                synchronise(module)
            lr = getattr(config.optimizer, name).lr
            self.optimizers[name] = torch.optim.Adam(module.parameters(), lr, config.optimizer.betas, fused=True)
        self.ema = EmaGenerator(self.generator, config.ema.half_life_kimg, config.ema.rampup)
        called = {name: engine.prepare(name, module, self.optimizers[name]) for name, module in self.modules.items()}
        players = Players(self.generator, critic, called["generator"], called["critic"])
        self._phases = build_phases(players, self.codes, config.objective)
        self._failed_at = torch.full((len(PHASES),), -1, dtype=torch.int64, device=engine.device)
        self._failures = torch.zeros_like(self._failed_at)

    @property
    def generator(self) -> nn.Module:
        return self.modules["generator"]

    @property
    def critic(self) -> Critic:
        return cast(Critic, self.modules["critic"])

    def update(self, parts: Sequence[Tensor], images: int) -> Statistics:
        """One update at `images` seen: every phase once, each with fresh latents.

        `parts`: this rank's real images, one uint8 [n, C, H, W] per micro-batch. Returns scalars on the device.
        """
        engine, config = self.engine, self.config
        image_range = config.network.image_range
        real = [to_network_range(part.to(engine.device), image_range, engine.dtype) for part in parts]
        statistics: Statistics = {}
        flags = []
        for phase in self._phases:
            drawn = zip(real, self._latents(phase.name, images), self._augmentations(phase.name, images), strict=True)
            losses = [_bind(phase.loss, *inputs, config.objective.lambda_share(images)) for inputs in drawn]
            found, failed = engine.update(phase.name, phase.module, self.optimizers[phase.name], losses)
            follow_weights(self.modules[phase.name])
            statistics |= found
            flags.append(failed)
        self.ema.update(images + config.batch, config.batch)
        self._note_failures(torch.stack(flags), images, statistics)
        return statistics

    def failed_updates(self) -> list[int]:
        """Per phase, the first update whose gradients were not finite, or -1. Waits for the device."""
        return [int(update) for update in self._failed_at.tolist()]

    def tensors(self) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
        """What a checkpoint holds: modules by name, and the optimizers' state by `<phase>/<parameter>/<what>`.

        Every process has to ask for it.
        """
        optimizers: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            optimizers |= self.engine.optimizer_tensors(name, module, self.optimizers[name])
        return {**self.modules, "ema": self.ema.module}, optimizers

    def load_weights(self, found: checkpoints.Checkpoint) -> None:
        """Take the weights of a checkpoint, the EMA's among them."""
        for name, module in {**self.modules, "ema": self.ema.module}.items():
            found.load_into(name, module)
        for name in self.modules:
            self.engine.weights_loaded(name)

    def load_optimizers(self, found: checkpoints.Checkpoint) -> None:
        """Take the optimizers' state of a checkpoint."""
        tensors = found.tensors("optimizer")
        for name, module in self.modules.items():
            self.engine.load_optimizer(name, module, self.optimizers[name], tensors)

    def _latents(self, phase: str, images: int) -> list[Latents]:
        """This rank's latents of a phase, one part per micro-batch, cut from the global batch's as images are."""
        config = self.config
        whole = self.codes.sample(config.batch, draws(config.seed, f"latents/{phase}", images))
        return [whole[rows].to(self.engine.device, self.engine.dtype) for rows in self._own_rows()]

    def _augmentations(self, phase: str, images: int) -> Sequence[Augmentation | None]:
        """How this rank's images of a phase are augmented, cut as its latents are; None for each where none are."""
        config = self.config
        if not config.augment:
            return [None] * config.accumulation
        drawing = draws(config.seed, f"augment/{phase}", images)
        whole = config.augment.draw(config.batch, config.network.image_range, drawing)
        return [whole[rows].to(self.engine.device, self.engine.dtype) for rows in self._own_rows()]

    def _own_rows(self) -> Iterator[slice]:
        """This rank's rows of the global batch, one slice per micro-batch."""
        world, accumulation = self.engine.world, self.config.accumulation
        size = self.config.batch // (world * accumulation)
        for micro in range(accumulation):
            part = micro * world + self.engine.rank
            yield slice(part * size, (part + 1) * size)

    def _note_failures(self, flags: Tensor, images: int, statistics: Statistics) -> None:
        """Remember on the device the update at which each phase failed: the first whose gradients were not finite, or
        in fp16, which skips such updates while it looks for a loss scale, the last of too many in a row."""
        fp16 = self.config.precision == "fp16"
        if fp16:
            statistics["skipped"] = flags.sum()
        self._failures = torch.where(flags > 0, self._failures + 1, 0)
        first = (self._failures >= (MOST_SKIPPED if fp16 else 1)) & (self._failed_at < 0)
        self._failed_at = torch.where(first, images // self.config.batch, self._failed_at)


def _bind(
    loss: LossFunction, real: Tensor, latents: Latents, augmentation: Augmentation | None, lambda_share: float
) -> Callable[[], tuple[Tensor, Statistics]]:
    return lambda: loss(real, latents, augmentation, lambda_share)
