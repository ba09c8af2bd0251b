"""What the launcher of this process was told, and where that disagrees with the config.

accelerate hands its settings to the processes that it starts in the environment, some of them read silently from a
file in the home folder. Where one of them and a setting of ours speak of the same thing they have to agree.
"""

import os
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.commands.config.config_args import default_config_file

from infogan.config import RunConfig
from infogan.devices import auto_precision
from shards.errors import UserError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def asks_for_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def deepspeed_settings() -> str | dict[str, Any]:
    """What `accelerate launch` was told of DeepSpeed: the name of a JSON file, or the same settings from its YAML."""
    given = os.environ
    if file := given.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        return file
    said = given.get("ACCELERATE_CONFIG_DS_FIELDS", "").split(",")  # the others are accelerate's own defaults
    zero: dict[str, Any] = {"stage": int(given.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))}
    if (device := given.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none")) != "none":
        zero["offload_optimizer"] = {"device": device}
    settings: dict[str, Any] = {"zero_optimization": zero}
    if "gradient_clipping" in said:
        settings["gradient_clipping"] = float(given["ACCELERATE_GRADIENT_CLIPPING"])
    return settings


def agreed_device(config: RunConfig) -> str:
    """Our device where it agrees with what accelerate was told; `auto` follows accelerate."""
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true":
        return config.device
    if config.device not in ("auto", "cpu"):
        raise UserError(
            f"device: the config says {config.device}, accelerate's settings say cpu{default_file_note()}; "
            "make them agree, or say device=auto, which follows accelerate"
        )
    return "cpu"


def agreed_precision(config: RunConfig, device: torch.device, deepspeed: str | None = None) -> str:
    """Our precision where it agrees with what accelerate was told; `auto` follows accelerate, then the device.

    `deepspeed`: the precision that DeepSpeed's settings speak of, if they do.
    """
    said = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    told = deepspeed or (None if said == "no" else said)  # `no` is also what accelerate says when told nothing
    who = "DeepSpeed's settings" if deepspeed else "accelerate's settings"
    if config.precision == "auto":
        precision = told or auto_precision(device)
    else:
        precision = config.precision
        by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
        if (told and told != precision) or (by_accelerate and not told and precision in AUTOCAST):
            raise UserError(
                f"precision: the config says {precision}, {who} say {told or 'no'}"
                f"{default_file_note()}; make them agree, or say precision=auto, which follows accelerate"
            )
    if precision not in (*AUTOCAST, "fp32", "fp64"):
        raise UserError(f"precision: {who} say {precision}, which this trainer does not have; use bf16, fp16 or no")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a GPU, and this run is on the CPU; use precision=bf16 or precision=fp32")
    return precision


def check_launcher(config: RunConfig) -> None:
    """Refuse settings of accelerate's that would silently not be ours."""
    for what, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("Megatron-LM", "ACCELERATE_USE_MEGATRON_LM")):
        if os.environ.get(variable, "false").lower() == "true":
            raise UserError(
                f"processes: accelerate's settings say {what}{default_file_note()}, which this trainer does not have; "
                "use --config_file configs/accelerate/ddp.yaml, or deepspeed_zero2.yaml, which divides gradients too"
            )
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            "processes: torchrun has started all again with the store of the first start, where the addresses of those "
            "processes still stand; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun, then each has its own"
        )
    told = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if told not in ("1", "auto", str(config.accumulation)):
        raise UserError(
            f"accumulation: the config says {config.accumulation}, accelerate's settings say {told}"
            f"{default_file_note()}; make them agree, for instance with accumulation={told}"
        )
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    if by_accelerate and "WORLD_SIZE" not in os.environ and "MASTER_PORT" in os.environ:
        raise UserError(
            "processes: accelerate launch was asked for several processes but started one, as it does with use_cpu "
            f"and where there is no GPU{default_file_note()}; use infogan train --processes N instead, or "
            "--config_file configs/accelerate/ddp.yaml, which starts them on a CPU too"
        )


def default_file_note() -> str:
    """Names accelerate's settings file of the home folder, which it reads without saying so."""
    path = Path(default_config_file)
    if not path.is_file():
        return ""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = ("mixed_precision", "gradient_accumulation_steps", "num_processes")
    found = [f"{key}: {settings[key]}" for key in keys if isinstance(settings, dict) and key in settings]
    return f" (read silently from {path}: {', '.join(found)})" if found else ""
