"""The engine: devices, processes and precision through accelerate, and how an update is applied.

Nothing else asks how many processes there are in order to reduce a gradient, or in which precision a network runs.
DeepSpeed's engine, in zero.py, has the same interface.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from infogan import launched, ranks
from infogan.checkpoint import load_optimizer, optimizer_tensors
from infogan.config import RunConfig, flatten, to_plain
from infogan.devices import keep_freed_memory, resolve_device
from infogan.launched import AUTOCAST
from infogan.meeting import LONG_WORK, MEETING, Meeting, explained, wait_for_main
from infogan.watch import Watch
from shards.errors import UserError
from shards.workers import available_cores

# DDP sees two layouts in the weights of a convolution from one channel, whose strides are the same to anyone else
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")

OWN = ("data.path", "data.reader", "data.cache", "device", "threads")  # what each process may have of its own
PHASES = ("critic", "generator")
"""The optimizers of a run, in the order in which their phases are played."""


class Engine:
    """Processes, device and precision of a run.

    Attributes: `device`; `rank` and `world`; `dtype`, that of weights and images (float32, or float64 for `fp64`);
    `config`, with `auto` values replaced by what they turned out to be; `watch`, by which processes notice that one of
    them failed.
    """

    name = "accelerate"

    def __init__(self, config: RunConfig, *, told_precision: str | None = None) -> None:
        ranks.told()  # refused before anyone is waited for
        device = resolve_device(launched.agreed_device(config))
        self._told_precision = told_precision
        precision = launched.agreed_precision(config, device, told_precision)  # refused before the others wait for it
        launched.check_launcher(config)
        with explained():
            self._meet(device)
        self.threads = config.threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        torch.set_num_threads(self.threads)
        self.tune_memory()
        self.watch = Watch(self.rank, self.world, config.patience)
        try:
            self._check_world(config)
            self._settle(config, precision)
        except UserError:
            self.close()
            raise

    def _meet(self, device: torch.device) -> None:
        """Find the other processes of this run, if the environment says that there are some."""
        wait_for_main(MEETING)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="no",  # which precision it is, is settled later, and by us
            kwargs_handlers=[InitProcessGroupKwargs(timeout=MEETING)],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.meeting = Meeting(self.rank, self.world if dist.is_initialized() else 1)
        self.meeting.exchange(patience=MEETING)  # all are there before one of them leaves with an error
        self.meeting.refuse_shared_gpus(self.device)
        if self.meeting.world > 1:
            self.mean(torch.zeros(1, device=self.device))  # the network of GPUs is made by the first who uses it
            dist.distributed_c10d._set_pg_timeout(LONG_WORK)  # from now on the watch knows better who hangs

    def _settle(self, config: RunConfig, precision: str) -> None:
        """Become the engine of a config; with `precision: auto`, in one that every process has."""
        if "fp32" in self.meeting.exchange(precision) and config.precision == "auto":
            precision = "fp32"
        self.config = replace(config, precision=precision)
        self.meeting.same("config", {"engine": type(self).__name__, **_shared(self.config)})
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        # accelerate has one scaler for every optimizer; a generator and a critic overflow at different scales
        self._scalers = {phase: torch.amp.GradScaler(self.device.type, enabled=precision == "fp16") for phase in PHASES}

    def follow(self, config: RunConfig) -> None:
        """Go on by another config, that of a run which was begun earlier."""
        self._settle(config, launched.agreed_precision(config, self.device, self._told_precision))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def tune_memory(self) -> None:
        """Have the memory of one update kept for the next; on a GPU torch does so by itself."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def alone(self) -> "Engine":
        """This engine as that of a single process, which reaches no other."""
        alone = object.__new__(Engine)
        alone.__dict__ |= self.__dict__ | {
            "world": 1,
            "rank": 0,
            "watch": Watch(0, 1, self.watch.patience),
            "meeting": Meeting(0, 1),
        }
        return alone

    # ---- one update -------------------------------------------------------------------------------------------

    def prepare(self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        """`module` as it is called in the phase that trains it: with several processes, gradients are averaged."""
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def autocast(self) -> Any:
        """Context in which networks run in the run's precision."""
        dtype = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def update(
        self,
        phase: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        losses: Sequence[Callable[[], tuple[Tensor, Mapping[str, Tensor]]]],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One optimizer step on the mean of the micro-batches' losses.

        `module` is the wrapped module that is trained. Returns the mean statistics, and a flag on the device, 1.0 where
        the reduced gradients were not finite; such an update leaves weights and optimizer as they were.
        """
        self.watch.at(phase)
        scaler = self._scalers[phase]
        statistics: dict[str, Tensor] = {}
        for position, loss in enumerate(losses):
            last = position == len(losses) - 1
            several = isinstance(module, DistributedDataParallel)
            with module.no_sync() if several and not last else nullcontext():  # type: ignore[operator]
                with self.autocast():
                    value, found = loss()
                self.watch.at(phase)  # again: who waits in the backward pass is further than who hangs before it
                scaler.scale(value / len(losses)).backward()
            add_shares(statistics, found, len(losses))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        failed = 1.0 - torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()).float()
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.found_inf = failed  # type: ignore[attr-defined]  # fused Adam then does nothing
            optimizer.step()
        optimizer.zero_grad()
        return statistics, failed

    # ---- from and to disk -------------------------------------------------------------------------------------

    def optimizer_tensors(self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The optimizer's state as a checkpoint holds it, whichever engine it is of. Every process has to ask."""
        return optimizer_tensors(optimizer, module, phase)

    def load_optimizer(
        self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
    ) -> None:
        """Put back what `optimizer_tensors` gave."""
        load_optimizer(optimizer, module, phase, tensors)

    def weights_loaded(self, phase: str) -> None:
        """Told after the weights of a phase's module were replaced."""

    def scaler_state(self) -> dict[str, dict[str, Any]]:
        """Loss scales of fp16, JSON-able; empty in other precisions."""
        return {phase: scaler.state_dict() for phase, scaler in self._scalers.items() if scaler.is_enabled()}

    def load_scaler_state(self, state: Mapping[str, dict[str, Any]]) -> None:
        for phase, values in state.items():
            self._scalers[phase].load_state_dict(values)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over all processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def gather(self, values: Tensor) -> Tensor:
        """The `values` [n] of every process, in the order of ranks: [processes, n]."""
        if self.world == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(parts, values)
        return torch.stack(parts)

    def agree(self, values: Sequence[int]) -> list[int]:
        """Element-wise maximum over all processes of a few integers: what one rank knows, all know."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [int(value) for value in tensor.tolist()]

    def barrier(self) -> None:
        """Wait until every process is here, for as long as the work of one may take."""
        self.watch.at(self.watch.place.phase)  # not patient any more: who is the last here waits for nobody
        self.meeting.exchange()

    def on_main(self, what: str, work: Callable[[], object]) -> None:
        """Let rank 0 do `work`, which may take long, while the others wait for it; `what` names it."""
        self.watch.at(what, patient=True)
        if self.is_main:
            work()
        self.barrier()

    def close(self) -> None:
        """Leave the process group; without this a process can end in SIGABRT."""
        self.watch.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _check_world(self, config: RunConfig) -> None:
        check_divides(config, self.world)
        if self.world > 1 and not dist.is_initialized():
            raise UserError(
                f"{self.world} processes were started but none can reach the others; use infogan train --processes N"
            )


def check_divides(config: RunConfig, world: int) -> None:
    """Refuse, with the nearest that fit, a global batch that `world` processes cannot divide among themselves."""
    parts = world * config.accumulation
    if config.batch // parts >= 2 and config.batch % parts == 0:
        return
    most = config.batch // config.accumulation // 2
    fitting = [n for n in range(1, most + 1) if config.batch % (n * config.accumulation) == 0]
    near = [b for b in (config.batch // parts * parts, (config.batch // parts + 1) * parts) if b >= 2 * parts]
    rule = "must be a multiple of processes x accumulation"
    if config.batch // parts < 2:
        rule, near = "must have 2 images, which BatchNorm needs, for processes x accumulation", [2 * parts]
    raise UserError(
        f"batch: {config.batch}: {rule} = {world} x {config.accumulation}; the nearest "
        f"{'are' if len(near) > 1 else 'is'} {' and '.join(map(str, near))}, or keep it with "
        f"{_listed(fitting)} processes"
    )


def open_engine(config: RunConfig) -> Engine:
    """The engine that the config or `accelerate launch` asks for."""
    if config.deepspeed is None and not launched.asks_for_deepspeed():
        return Engine(config)
    from infogan.zero import ZeroEngine

    return ZeroEngine(config)


def _shared(config: RunConfig) -> dict[str, object]:
    """What has to be the same for all processes of a run: all but how each gets at its data and its device."""
    return {path: value for path, value in flatten(to_plain(config)).items() if not path.startswith(OWN)}


def add_shares(sums: dict[str, Tensor], found: Mapping[str, Tensor], parts: int) -> None:
    """Add one micro-batch's share of each statistic's mean over `parts` of them."""
    for name, statistic in found.items():
        share = statistic.detach() / parts
        sums[name] = sums[name] + share if name in sums else share


def _listed(numbers: Sequence[int]) -> str:
    """`1, 2, 4 or 8`; of many only the largest."""
    words = [str(number) for number in numbers[-6:]]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
