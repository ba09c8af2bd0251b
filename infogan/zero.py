"""DeepSpeed's engine: ZeRO 1 and 2, which divide the optimizers' state, and for 2 the gradients, among the processes.

Generator and critic each get a DeepSpeed engine of their own; phases, checkpoints and everything else are those of
`Engine`. What a JSON file of DeepSpeed's says of ZeRO is its own; batch sizes, accumulation, precision, optimizer and
clipping are the config's, and a file that says something else of them is refused.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from infogan import launched
from infogan.config import RunConfig
from infogan.engine import Engine, add_shares
from infogan.settings import presets_folder
from shards.errors import UserError

LEARNED_OTHERWISE: dict[str, Any] = {  # where they are not as DeepSpeed has them by default
    "communication_data_type": None,
    "data_types": {},
    "prescale_gradients": False,
    "gradient_predivide_factor": 1.0,
}
MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroEngine(Engine):
    """The engine of a run that trains by DeepSpeed's ZeRO."""

    def __init__(self, config: RunConfig) -> None:
        self._where, self._settings = _settings(config)
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # accelerate is here for the processes only
        super().__init__(config, told_precision=_precision(self._settings))
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
        _check(self._where, self._settings, self)
        self._deepspeed = _imported(self.device)

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
    ours = None if config.deepspeed is None else _read(config.deepspeed)
    if not launched.asks_for_deepspeed():
        assert ours is not None
        return ours
    said = launched.deepspeed_settings()
    theirs = _read(said) if isinstance(said, str) else ("its own YAML", said)
    if ours is not None and ours[1] != theirs[1]:
        raise UserError(
            f"deepspeed: the config says {ours[0]}, accelerate launch was told {theirs[0]}, which is another; "
            "leave one of them away"
        )
    return theirs


def _read(name: str) -> tuple[str, dict[str, Any]]:
    """A JSON file as named, or one of ours: `zero2`, `configs/deepspeed/zero2.json`."""
    ours = presets_folder() / "deepspeed"
    stem = name.removeprefix("configs/deepspeed/").removesuffix(".json")
    path = Path(name) if Path(name).is_file() else ours / f"{stem}.json"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in ours.glob("*.json")))
        raise UserError(f"deepspeed: {name!r}: no such file, and none of ours, which are {names}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"deepspeed: {path}: cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise UserError(f"deepspeed: {path}: has no section zero_optimization; see {ours / 'zero2.json'}")
    return str(path), settings


def _precision(settings: Mapping[str, Any]) -> str | None:
    """The precision that the settings speak of; None where they leave it open."""
    for section, precision in (("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16")):
        if _section(settings, section).get("enabled") is True:
            return precision
    autocast = _section(settings, "torch_autocast")
    if autocast.get("enabled") is True:
        return {"float16": "fp16"}.get(str(autocast.get("dtype")).removeprefix("torch."), "bf16")
    return None


def _check(where: str, settings: Mapping[str, Any], engine: Engine) -> None:
    """Refuse what DeepSpeed's settings say of things that are the config's, where it says something else."""
    config = engine.config
    if config.precision not in ("fp32", "bf16"):
        raise UserError(f"precision: {config.precision} with DeepSpeed: use bf16 or fp32, or leave deepspeed away")
    if config.objective.r1:
        raise UserError(
            "objective.r1: its inner gradient is more than DeepSpeed's hooks allow for; say objective.r1=0, or leave "
            "deepspeed away"
        )
    stage = settings["zero_optimization"].get("stage")
    if stage not in (1, 2):
        raise UserError(
            f"deepspeed: {where}: zero_optimization.stage is {stage}, and must be 1 or 2; take 2, which also divides "
            "the gradients (zero2_offload keeps the optimizers' state in the memory of the host)"
        )
    for key, ours in _sizes(engine).items():
        said = settings.get(key, "auto")
        if said not in ("auto", ours):
            raise UserError(
                f"deepspeed: {where}: {key} is {said}, the config makes it {ours} (batch {config.batch}, "
                f"{engine.world} processes, accumulation {config.accumulation}); leave it away, or say auto"
            )
    if settings["zero_optimization"].get("compute_grad_norm", True) is not True:
        raise UserError(
            f"deepspeed: {where}: zero_optimization.compute_grad_norm is false, and an update that is not finite "
            "would be applied without a word; leave it away"
        )
    if said := [key for key, usual in LEARNED_OTHERWISE.items() if settings.get(key, usual) != usual]:
        raise UserError(
            f"deepspeed: {where}: {said[0]} is {settings[said[0]]}, which changes what is learned: gradients are "
            "summed in float32, as without DeepSpeed; leave it away"
        )
    if said := [key for key in ("optimizer", "scheduler") if settings.get(key, "auto") != "auto"]:
        raise UserError(
            f"deepspeed: {where}: {said[0]} is {settings[said[0]]}, the config says Adam with learning rates of its "
            "own for generator and critic; leave it away"
        )


def _sizes(engine: Engine) -> dict[str, Any]:
    """What of DeepSpeed's settings the config decides."""
    config = engine.config
    return {
        "train_batch_size": config.batch,
        "train_micro_batch_size_per_gpu": config.batch // config.accumulation // engine.world,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": 0.0,
    }


def _full(settings: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Settings as DeepSpeed is given them."""
    precision = ("fp16", "bf16", "bfloat16", "torch_autocast", "optimizer", "scheduler")
    kept = {key: value for key, value in settings.items() if key not in precision}
    # Weights stay float32 and autocast chooses what runs in bfloat16, as without DeepSpeed: its own `bf16` would round
    # the weights themselves, BatchNorm's too. With no modules named, gradients are summed in float32.
    autocast = {"enabled": engine.config.precision == "bf16", "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {
        **kept,
        **_sizes(engine),
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
    return bool(_section(settings["zero_optimization"], "offload_optimizer").get("device", "none") == "cpu")


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}
