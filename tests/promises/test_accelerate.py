"""`accelerate launch` as its users know it: our ready files, and settings of its own that are not ours."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from infogan import deepspeed_file
from infogan.settings import presets_folder

BIN = Path(sys.executable).parent
FILES = presets_folder() / "accelerate"


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_one_that_accelerate_takes(path: Path) -> None:
    loaded = load_config_from_file(str(path))
    command = ["--config_file", str(path), "-m", "launch.train", "--config", "configs/paper/mnist.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert arguments.num_processes == loaded.num_processes
    assert arguments.multi_gpu == (path.stem in ("ddp", "bf16", "fp16", "nodes"))
    assert arguments.use_deepspeed == path.stem.startswith("deepspeed")
    assert arguments.mixed_precision == (path.stem if path.stem in ("bf16", "fp16") else "no")
    if arguments.use_deepspeed:
        assert arguments.deepspeed_config_file == f"configs/deepspeed/{path.stem.removeprefix('deepspeed_')}.json"
        assert deepspeed_file.read(arguments.deepspeed_config_file)


@pytest.mark.parametrize(
    ("environment_of_accelerate", "overrides", "said"),
    [
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"}, ["precision=fp32"],
            "precision: the config says fp32, accelerate's settings say bf16",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "no"}, ["precision=bf16"],
            "precision: the config says bf16, accelerate's settings say no",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "fp8"}, ["precision=auto"],
            "precision: accelerate's settings say fp8, which this trainer does not have",
        ),
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, ["accumulation=2"],
            "accumulation: the config says 2, accelerate's settings say 4",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, [],
            "processes: accelerate launch was asked for several processes but started one",
        ),
        (
            {"ACCELERATE_USE_CPU": "True"}, ["device=cuda"],
            "device: the config says cuda, accelerate's settings say cpu",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, ["deepspeed=zero2"],
            "zero2.json, accelerate launch was told its own YAML, which is another",
        ),
        ({"ACCELERATE_USE_FSDP": "true"}, [], "processes: accelerate's settings say FSDP, which this trainer does not"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, [], "processes: accelerate's settings say Megatron-LM, which"),
        (
            {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}, [],
            "still stand; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun",
        ),
        ({}, ["precision=fp16"], "precision: fp16 needs a GPU, and this run is on the CPU"),
    ],
)  # fmt: skip
def test_settings_of_accelerate_that_disagree_are_refused(
    infogan: Any, tiny_preset: Path, environment_of_accelerate: dict[str, str], overrides: list[str], said: str
) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "refused", *overrides, **environment_of_accelerate)
    assert ended.code == 2
    assert said in ended.error
    assert not (infogan.folder / "refused").exists()


def accelerate_launch(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "accelerate"), "launch", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_accelerate_launches_a_run(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]]
) -> None:
    """With the settings file in the home folder that accelerate reads without a word; then with one of ours."""
    data = make_data(32, colour=True, images=40)
    home = tmp_path / "home"
    (home / "accelerate").mkdir(parents=True)
    settings = home / "accelerate" / "default_config.yaml"
    settings.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nnum_processes: 1\n"
    )
    arguments = [
        "-m", "launch.train", "--config", "configs/own.yaml", "--run", "launched", f"data.path={data}", "batch=8",
        "stop=1 updates", "device=cpu", "threads=1", "precision=fp32", "eval.every_kimg=null",
    ]  # fmt: skip
    ended = accelerate_launch(tmp_path, environment(HF_HOME=str(home)), *arguments)
    assert ended.returncode != 0
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "the config says fp32, accelerate's settings say bf16" in error
    assert f"(read silently from {settings}: mixed_precision: bf16, num_processes: 1)" in error
    assert not (tmp_path / "launched").exists()
    ended = accelerate_launch(
        tmp_path, environment(HF_HOME=str(home)), "--config_file", str(FILES / "cpu.yaml"), *arguments
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "launched" / "export" / "generator.safetensors").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "ddp",
        pytest.param("bf16", marks=pytest.mark.slow),
        pytest.param("deepspeed_zero1", marks=pytest.mark.slow),
        pytest.param("deepspeed_zero2", marks=pytest.mark.slow),
        pytest.param("deepspeed_zero2_offload", marks=pytest.mark.slow),
    ],
)
def test_a_file_for_several_gpus_starts_as_many_processes_on_a_cpu(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]], name: str
) -> None:
    if name.startswith("deepspeed"):
        pytest.importorskip("deepspeed", reason="the extra deepspeed is not installed")
    ended = accelerate_launch(
        tmp_path, environment(), "--config_file", str(FILES / f"{name}.yaml"), "-m", "launch.train", "--config",
        "configs/own.yaml", "--run", "launched", f"data.path={make_data(32, colour=True, images=40)}", "batch=8",
        "stop=1 updates", "threads=1", "precision=auto", "eval.every_kimg=null",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (start,) = json.loads((tmp_path / "launched" / "environment.json").read_text())["starts"]
    assert start["processes"] == 2
    assert start["precision"] == "bf16" or name != "bf16"
    engines = {
        "deepspeed_zero1": "DeepSpeed ZeRO 1", "deepspeed_zero2": "DeepSpeed ZeRO 2",
        "deepspeed_zero2_offload": "DeepSpeed ZeRO 2, optimizer on the CPU",
    }  # fmt: skip
    assert start["engine"] == engines.get(name, "accelerate")
