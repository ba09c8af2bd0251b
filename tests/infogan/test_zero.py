"""What a DeepSpeed file may say, and what is the config's to say."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infogan import deepspeed_file, zero
from infogan.config import RunConfig
from infogan.settings import presets_folder
from shards.errors import UserError

OURS = sorted((presets_folder() / "deepspeed").glob("*.json"))


def check(config: RunConfig, settings: dict[str, Any], world: int = 2) -> None:
    deepspeed_file.check("some.json", settings, config, world)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_files_are_found_by_name_and_agree_with_every_config(
    path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    for name in (path.stem, f"configs/deepspeed/{path.name}", str(path)):
        assert deepspeed_file.read(name)[1] == json.loads(path.read_text())
    check(tiny_config(), json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"train_batch_size": 64}, r"some.json: train_batch_size is 64, the config makes it 8 \(batch 8, 2 processes"),
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu is 8, the config makes it 4"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is 2, the config makes it 1"),
        ({"gradient_clipping": 1.0}, "gradient_clipping is 1.0, the config makes it 0.0"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer is {'type': 'AdamW'}, the config says Adam"),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage is 3, and must be 1 or 2; take 2, which"),
        ({"zero_optimization": {"stage": 2, "compute_grad_norm": False}}, "compute_grad_norm is false, and an update"),
        ({"communication_data_type": "fp16"}, "communication_data_type is fp16, which changes what is learned"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "data_types is .*, which changes what is learned"),
        ({"prescale_gradients": True}, "prescale_gradients is True, which changes what is learned"),
    ],
)
def test_what_disagrees_is_refused_and_both_sides_are_named(
    tiny_config: Callable[..., RunConfig], said: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(tiny_config(), {"zero_optimization": {"stage": 2}} | said)


def test_what_agrees_or_is_left_open_is_taken(tiny_config: Callable[..., RunConfig]) -> None:
    sizes = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": 2}
    check(tiny_config(accumulation=2), {"zero_optimization": {"stage": 2}, "optimizer": "auto", **sizes})
    check(tiny_config(), {"zero_optimization": {"stage": 2}, "prescale_gradients": False})


def test_deepspeed_takes_the_gpu_of_the_run_and_the_process_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third process of a machine that sees one GPU only, as tasks of SLURM do."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    with zero._device_as_local_rank(torch.device("cuda", 0)):
        assert os.environ["LOCAL_RANK"] == "0"
    assert os.environ["LOCAL_RANK"] == "3"
    monkeypatch.delenv("LOCAL_RANK")
    with zero._device_as_local_rank(torch.device("cpu")):
        assert os.environ["LOCAL_RANK"] == "0"
    assert "LOCAL_RANK" not in os.environ


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({}, None),
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"bf16": {"enabled": "auto"}}, None),
        ({"fp16": {"enabled": True}}, "fp16"),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, "bf16"),
    ],
)
def test_the_precision_that_a_file_speaks_of_is_seen(settings: dict[str, Any], precision: str | None) -> None:
    assert deepspeed_file.precision(settings) == precision


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "has no section zero_optimization"),
        (None, "none of ours, which are zero1"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        deepspeed_file.read(str(path))


def test_what_deepspeed_knows_of_zero_is_known_here() -> None:
    config = pytest.importorskip("deepspeed.runtime.zero.config", reason="the extra deepspeed is not installed")
    theirs = {field.alias or name for name, field in config.DeepSpeedZeroConfig.model_fields.items()}
    assert theirs <= set(deepspeed_file.KNOWN_OF_ZERO)


def test_what_deepspeed_refuses_in_its_section_is_one_line() -> None:
    pytest.importorskip("deepspeed", reason="the extra deepspeed is not installed")
    with pytest.raises(UserError, match=r"mine.json: zero_optimization.reduce_bucket_size is 'x': DeepSpeed says: "):
        zero._valid("mine.json", {"zero_optimization": {"stage": 2, "reduce_bucket_size": "x"}})
