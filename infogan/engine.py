"""The one file that knows the engine: devices, processes and precision through accelerate, and how to apply an update.

Nothing else asks how many processes there are in order to reduce a gradient, or in which precision a network runs.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_config_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from infogan.config import RunConfig
from infogan.devices import auto_precision, keep_freed_memory, resolve_device
from shards.errors import UserError
from shards.workers import available_cores

# DDP sees two layouts in the weights of a convolution from one channel, whose strides are the same to anyone else
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PHASES = ("critic", "generator")
"""The optimizers of a run, in the order in which their phases are played."""


class Engine:
    """Processes, device and precision of a run.

    Attributes: `device`; `rank` and `world`; `dtype`, that of weights and images (float32, or float64 for `fp64`);
    `config`, with `auto` values replaced by what they turned out to be.
    """

    def __init__(self, config: RunConfig) -> None:
        device = resolve_device(config.device)
        precision = _agreed_precision(config, device)
        _check_launcher(config)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=precision if precision in AUTOCAST else "no",
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.barrier()  # all have found each other before one of them leaves with an error
        self._check_world(config)
        self.config = replace(config, precision=precision)
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self.threads = config.threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        torch.set_num_threads(self.threads)
        self.tune_memory()
        # accelerate has one scaler for every optimizer; a generator and a critic overflow at different scales
        self._scalers = {phase: torch.amp.GradScaler(self.device.type, enabled=precision == "fp16") for phase in PHASES}

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def tune_memory(self) -> None:
        """Have the memory of one update kept for the next; on a GPU torch does so by itself."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def wrap(self, module: nn.Module) -> nn.Module:
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
        scaler = self._scalers[phase]
        statistics: dict[str, Tensor] = {}
        for position, loss in enumerate(losses):
            last = position == len(losses) - 1
            several = isinstance(module, DistributedDataParallel)
            with module.no_sync() if several and not last else nullcontext():  # type: ignore[operator]
                with self.autocast():
                    value, found = loss()
                scaler.scale(value / len(losses)).backward()
            for name, statistic in found.items():
                share = statistic.detach() / len(losses)
                statistics[name] = statistics[name] + share if name in statistics else share
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
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def on_main(self, work: Callable[[], object]) -> None:
        """Let rank 0 do `work` while the others wait for it."""
        try:
            if self.is_main:
                work()
        finally:
            self.barrier()

    def close(self) -> None:
        """Leave the process group; without this a process can end in SIGABRT."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _check_world(self, config: RunConfig) -> None:
        parts = self.world * config.accumulation
        if config.batch // parts < 2:
            raise UserError(
                f"batch: {config.batch}: leaves each of {self.world} processes fewer than 2 images at a time, and "
                f"BatchNorm needs 2; the least is {2 * parts}"
            )
        if config.batch % parts:
            near = [b for b in (config.batch // parts * parts, (config.batch // parts + 1) * parts) if b >= 2]
            raise UserError(
                f"batch: {config.batch}: must be a multiple of processes x accumulation = "
                f"{self.world} x {config.accumulation}; the nearest are {' and '.join(map(str, near))}"
            )
        if self.world > 1 and not dist.is_initialized():
            raise UserError(
                f"{self.world} processes were started but none can reach the others; use infogan train --processes N"
            )


def _agreed_precision(config: RunConfig, device: torch.device) -> str:
    """Our precision where it agrees with what accelerate was told; `auto` follows accelerate, then the device."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    told = told if told != "no" else None  # type: ignore[assignment]  # `no` is also what accelerate says when told nothing
    if config.precision == "auto":
        precision = told or auto_precision(device)
    else:
        precision = config.precision
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ
        if (told and told != precision) or (launched and not told and precision in AUTOCAST):
            raise UserError(
                f"precision: the config says {precision}, accelerate's settings say {told or 'no'}"
                f"{_default_file_note()}; make them agree, or say precision=auto, which follows accelerate"
            )
    if precision not in (*AUTOCAST, "fp32", "fp64"):
        raise UserError(
            f"precision: accelerate's settings say {precision}, which this trainer does not have; use bf16, fp16 or no"
        )
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a GPU, and this run is on the CPU; use precision=bf16 or precision=fp32")
    return precision


def _check_launcher(config: RunConfig) -> None:
    """Refuse settings of accelerate's that would silently not be ours."""
    told = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if told not in ("1", "auto", str(config.accumulation)):
        raise UserError(
            f"accumulation: the config says {config.accumulation}, accelerate's settings say {told}"
            f"{_default_file_note()}; make them agree, for instance with accumulation={told}"
        )
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and "WORLD_SIZE" not in os.environ and "MASTER_PORT" in os.environ:
        raise UserError(
            "processes: accelerate launch was asked for several processes but started one, as it does where there is "
            f"no GPU{_default_file_note()}; use infogan train --processes N instead"
        )


def _default_file_note() -> str:
    """Names accelerate's settings file of the home folder, which it reads without saying so."""
    path = Path(default_config_file)
    if not path.is_file():
        return ""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = ("mixed_precision", "gradient_accumulation_steps", "num_processes")
    found = [f"{key}: {settings[key]}" for key in keys if isinstance(settings, dict) and key in settings]
    return f" (read silently from {path}: {', '.join(found)})" if found else ""
