"""DeepSpeed's engine: ZeRO 1 and 2, which divide the optimizers' state, and for 2 the gradients, among the processes.

Generator and critic each get a DeepSpeed engine of their own; phases, checkpoints and everything else are those of
`Engine`. What a JSON file of DeepSpeed's says of ZeRO is its own; batch sizes, accumulation, precision, optimizer and
clipping are the config's, and a file that says something else of them is refused.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from infogan import deepspeed_file, launched
from infogan.config import RunConfig
from infogan.engine import Engine, add_shares
from shards.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroEngine(Engine):
    """The engine of a run that trains by DeepSpeed's ZeRO."""

    def __init__(self, config: RunConfig) -> None:
        self._where, self._settings = _settings(config)
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # accelerate is here for the processes only
        super().__init__(config, told_precision=deepspeed_file.precision(self._settings))
        self.name = f"DeepSpeed ZeRO {self._settings['zero_optimization']['stage']}"
        if _offloads(self._settings):
            self.name += ", optimizer on the CPU"
        self._trained: dict[str, Any] = {}  # DeepSpeed's engines, by phase
        if not dist.is_initialized():  # a single process that no launcher started
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    def _settle(self, config: RunConfig, precision: str) -> None:
        super()._settle(config, precision)
        self.meeting.same(f"deepspeed: {self._where}", self._settings)
        deepspeed_file.check(self._where, self._settings, self.config, self.world)
        self._deepspeed = _imported(self.device)
        _valid(self._where, self._settings)

    def prepare(self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        """DeepSpeed's engine over `module`, whose parameters it moves into one flat tensor of its own."""
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()  # its flat tensor holds them so, and it sends no others
        with _device_as_local_rank(self.device):
            trained, zero, *_ = self._deepspeed.initialize(
                model=module, optimizer=optimizer, config=_full(self._settings, self)
            )
        for partition in zero.single_partition_of_fp32_groups:
            moments = {what: torch.zeros_like(partition) for what in MOMENTS}
            zero.state[partition] = {"step": torch.zeros((), device=partition.device), **moments}
        zero._lazy_init_hp_params_optimizer_state()  # as after a first step: parts have names from now on
        self._trained[phase] = trained
        return trained

    def update(
        self,
        phase: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        losses: Sequence[Callable[[], tuple[Tensor, Mapping[str, Tensor]]]],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """As the other engine's. DeepSpeed itself skips an update whose gradients are not finite, and waits for the
        device to know."""
        self.watch.at(phase)
        trained = self._trained[phase]
        statistics: dict[str, Tensor] = {}
        for loss in losses:
            with self.autocast():
                value, found = loss()
            self.watch.at(phase)
            trained.backward(value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of names that it still uses of torch
                trained.step()
            add_shares(statistics, found, len(losses))
        return statistics, torch.tensor(float(trained.optimizer.overflow), device=self.device)

    def optimizer_tensors(self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The state gathered from all processes, under the names that it has without DeepSpeed."""
        from deepspeed.utils import safe_get_full_optimizer_state

        zero = self._trained[phase].optimizer
        step = zero.state[zero.single_partition_of_fp32_groups[0]]["step"]
        tensors = {}
        for name, parameter in module.named_parameters():
            tensors[f"{phase}/{name}/step"] = step.clone()
            for what in MOMENTS:
                tensors[f"{phase}/{name}/{what}"] = safe_get_full_optimizer_state(parameter, what)
        return tensors

    def load_optimizer(
        self, phase: str, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
    ) -> None:
        """Each process takes its part of the state."""
        from deepspeed.utils import safe_set_full_optimizer_state

        zero = self._trained[phase].optimizer
        for name, parameter in module.named_parameters():
            for what in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[f"{phase}/{name}/{what}"], what)
            zero.state[zero.single_partition_of_fp32_groups[0]]["step"].copy_(tensors[f"{phase}/{name}/step"])

    def weights_loaded(self, phase: str) -> None:
        self._trained[phase].optimizer.refresh_fp32_params()


def _settings(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """Where DeepSpeed's settings are from, and what they are."""
    ours = None if config.deepspeed is None else deepspeed_file.read(config.deepspeed)
    if not launched.asks_for_deepspeed():
        assert ours is not None
        return ours
    said = launched.deepspeed_settings()
    theirs = deepspeed_file.read(said) if isinstance(said, str) else ("its own YAML", said)
    if ours is not None and ours[1] != theirs[1]:
        raise UserError(
            f"deepspeed: the config says {ours[0]}, accelerate launch was told {theirs[0]}, which is another; "
            "leave one of them away"
        )
    return theirs


def _valid(where: str, settings: Mapping[str, Any]) -> None:
    """Let DeepSpeed look at its own section."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    try:
        DeepSpeedZeroConfig(**settings["zero_optimization"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["zero_optimization", *map(str, first["loc"])])
        raise UserError(
            f"deepspeed: {where}: {place} is {first['input']!r}: DeepSpeed says: {first['msg']}; correct it, or leave "
            "it away"
        ) from None


def _full(settings: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Settings as DeepSpeed is given them."""
    precision = ("fp16", "bf16", "bfloat16", "torch_autocast", "optimizer", "scheduler")
    kept = {key: value for key, value in settings.items() if key not in precision}
    # Weights stay float32 and autocast chooses what runs in bfloat16, as without DeepSpeed: its own `bf16` would round
    # the weights themselves, BatchNorm's too. With no modules named, gradients are summed in float32.
    autocast = {"enabled": engine.config.precision == "bf16", "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {
        **kept,
        **deepspeed_file.sizes(engine.config, engine.world),
        "torch_autocast": autocast,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused Adam runs on a CPU too, and nothing has to be compiled
    }


def _imported(device: torch.device) -> Any:
    """DeepSpeed, on the device of the run."""
    os.environ["DS_ACCELERATOR"] = device.type
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"deepspeed: DeepSpeed cannot be imported ({error}); pip install 'infogan-harness[deepspeed]'"
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # what it warns of, skipped updates, the log says
    # Otherwise it compiles an extension for a collective on the CPU that no training uses, for half a minute.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


@contextmanager
def _device_as_local_rank(device: torch.device) -> Iterator[None]:
    """DeepSpeed takes the GPU of its process's number; one that sees a single GPU has that as the first."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    try:
        yield
    finally:
        del os.environ["LOCAL_RANK"]
        if before is not None:
            os.environ["LOCAL_RANK"] = before


def _offloads(settings: Mapping[str, Any]) -> bool:
    return bool(
        deepspeed_file.section(settings["zero_optimization"], "offload_optimizer").get("device", "none") == "cpu"
    )
