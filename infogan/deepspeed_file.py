"""What a JSON file of DeepSpeed's may say. Knows no torch.

Batch sizes, accumulation, precision, optimizer and clipping are the config's, and a file that says something else of
them is refused; so is a word that DeepSpeed does not know.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infogan.sections import presets_folder
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.config import RunConfig

Plain = Mapping[str, Any]

LEARNED_OTHERWISE: dict[str, Any] = {  # where they are not as DeepSpeed has them by default
    "communication_data_type": None,
    "data_types": {},
    "prescale_gradients": False,
    "gradient_predivide_factor": 1.0,
}

KNOWN = (
    "zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
    "gradient_clipping", "optimizer", "scheduler", "fp16", "bf16", "bfloat16", "torch_autocast", "amp",
    *LEARNED_OTHERWISE, "seq_parallel_communication_data_type", "gradient_allreduce_op", "sparse_gradients",
    "managed_gradient_accumulation", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "steps_per_print",
    "wall_clock_breakdown", "dump_state", "memory_breakdown", "log_level", "flops_profiler", "comms_logger",
    "tensorboard", "wandb", "csv_monitor", "comet", "aio", "activation_checkpointing", "checkpoint", "nebula",
    "datastates_ckpt", "dataloader_drop_last", "disable_allgather", "disable_python_gc", "data_efficiency",
    "curriculum_learning", "compression_training", "progressive_layer_drop", "eigenvalue", "elasticity", "autotuning",
    "compile", "pipeline", "hybrid_engine", "sparse_attention", "use_data_before_expert_parallelism",
    "tensor_parallel", "weight_quantization", "graph_harvesting", "timers", "vocabulary_size", "expert_parallel",
)  # fmt: skip
"""The sections and settings of a whole file; DeepSpeed itself ignores others without a word."""

KNOWN_OF_ZERO = (
    "stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce",
    "allgather_partitions", "allgather_bucket_size", "overlap_comm", "compute_grad_norm", "load_from_fp32_weights",
    "elastic_checkpoint", "offload_param", "offload_optimizer", "zenflow", "sub_group_size", "cpu_offload_param",
    "cpu_offload_use_pin_memory", "cpu_offload", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold",
    "stage3_model_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance",
    "stage3_gather_16bit_weights_on_model_save", "stage3_module_granularity_threshold",
    "stage3_use_all_reduce_for_fetch_params", "stage3_allgather_sequential",
    "stage3_gather_fp16_weights_on_model_save", "ignore_unused_parameters", "legacy_stage1", "round_robin_gradients",
    "parameter_alignment", "zero_hpz_partition_size", "zero_quantized_weights",
    "zero_quantized_nontrainable_weights", "zero_quantized_gradients", "memory_efficient_linear",
    "pipeline_loading_checkpoint", "override_module_apply", "log_trace_cache_warnings", "enable_sanity_checks",
    "save_muon_momentum_buffer_in_memory", "leaf_module",
)  # fmt: skip
"""Those of its section `zero_optimization`, which DeepSpeed checks itself, but in every process of a job."""


def read(name: str) -> tuple[str, dict[str, Any]]:
    """A JSON file as named, or one of ours (`zero2`, `configs/deepspeed/zero2.json`): where it lies, what it says."""
    ours = presets_folder() / "deepspeed"
    stem = name.removeprefix("configs/deepspeed/").removesuffix(".json")
    path = Path(name) if Path(name).is_file() else ours / f"{stem}.json"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in ours.glob("*.json")))
        raise UserError(f"deepspeed: {name!r}: no such file, and none of ours, which are {names}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"deepspeed: {path}: cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise UserError(f"deepspeed: {path}: has no section zero_optimization; see {ours / 'zero2.json'}")
    return str(path), settings


def precision(settings: Plain) -> str | None:
    """The precision that the settings speak of; None where they leave it open."""
    for name, said in (("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16")):
        if section(settings, name).get("enabled") is True:
            return said
    autocast = section(settings, "torch_autocast")
    if autocast.get("enabled") is True:
        return {"float16": "fp16"}.get(str(autocast.get("dtype")).removeprefix("torch."), "bf16")
    return None


def section(settings: Plain, name: str) -> Plain:
    """One of the settings that is a mapping; an empty one where it is absent, or none."""
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}


def check(where: str, settings: Plain, config: "RunConfig", world: int | None = None) -> None:
    """Refuse settings that DeepSpeed does not know, this trainer does not have, or the config says otherwise.

    `world`: the number of processes, once it is known; one of the sizes depends on it.
    """
    _check_known(where, settings)
    if config.precision not in ("auto", "fp32", "bf16"):
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
    _check_sizes(where, settings, config, world)
    if settings["zero_optimization"].get("compute_grad_norm", True) is not True:
        raise UserError(
            f"deepspeed: {where}: zero_optimization.compute_grad_norm is false, and an update that is not finite "
            "would be applied without a word; leave it away"
        )
    _check_what_is_learned(where, settings)


def _check_known(where: str, settings: Plain) -> None:
    known = [("", key, KNOWN) for key in settings]
    known += [("zero_optimization.", key, KNOWN_OF_ZERO) for key in settings["zero_optimization"]]
    for place, key, there_are in known:
        if key not in there_are:
            close = get_close_matches(key, there_are, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "leave it away"
            raise UserError(f"deepspeed: {where}: {place}{key}: DeepSpeed has no such setting; {hint}")


def _check_what_is_learned(where: str, settings: Plain) -> None:
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


def sizes(config: "RunConfig", world: int | None = None) -> dict[str, Any]:
    """What of DeepSpeed's settings the config decides; one of them only with the number of processes."""
    known = {
        "train_batch_size": config.batch,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": 0.0,
    }
    if world is not None:
        known["train_micro_batch_size_per_gpu"] = config.batch // config.accumulation // world
    return known


def _check_sizes(where: str, settings: Plain, config: "RunConfig", world: int | None) -> None:
    """Refuse sizes that are not those that the config makes them, with so many processes."""
    processes = "" if world is None else f"{world} processes, "
    for key, ours in sizes(config, world).items():
        said = settings.get(key, "auto")
        if said not in ("auto", ours):
            raise UserError(
                f"deepspeed: {where}: {key} is {said}, the config makes it {ours} (batch {config.batch}, "
                f"{processes}accumulation {config.accumulation}); leave it away, or say auto"
            )
