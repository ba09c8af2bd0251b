"""What is refused once, before any process of a run is started."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infogan import beforehand
from shards.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def machine(monkeypatch: pytest.MonkeyPatch, cores: int = 2, free: float = 16e9, gpus: int = 0) -> None:
    monkeypatch.setattr(beforehand, "available_cores", lambda: cores)
    monkeypatch.setattr(beforehand, "free_host_memory", lambda: int(free))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_a_cpu_takes_a_few_processes_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    beforehand.refuse_too_many(8, CPU)
    with pytest.raises(
        UserError, match=r"^--processes 1000: at most 8 .*, 4 per core on 2 cores; .*: say --processes 2"
    ):
        beforehand.refuse_too_many(1000, CPU)


def test_memory_has_to_suffice_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cores=64, free=1e9)
    beforehand.refuse_too_many(2, CPU)
    with pytest.raises(UserError, match=r"at most 2 .*, 1.0 GB of memory are free and each takes 0.4 GB; .* 2$"):
        beforehand.refuse_too_many(3, CPU)


def test_each_process_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=2)
    beforehand.refuse_too_many(2, GPU)
    with pytest.raises(UserError, match=r"^--processes 3: each needs a GPU of its own; GPUs here: 2; say 2$"):
        beforehand.refuse_too_many(3, GPU)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--processes", "100000"), "--processes 100000: at most "),
        (("--processes", "3"), "batch: 8: must be a multiple of processes x accumulation = 3 x 1"),
        (("--processes", "2", "data.path=nowhere"), "nowhere is no finished data set"),
        (("--processes", "2", "network.name=mnist"), "but network mnist takes 28x28x1"),
        (("--processes", "2", "precision=fp16"), "fp16 needs a GPU"),
        (("--processes", "2", "seed=-1"), "seed: -1: must be at least 0"),
        (("--processes", "2", "deepspeed={}"), "train_micro_batch_size_per_gpu is 8, the config makes it 4"),
    ],
)
def test_the_command_refuses_it_in_one_line_and_starts_nothing(
    tiny_data: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    program = (
        "import sys, launch.train, launch.cli\n"
        "launch.train.start_processes = lambda *a: sys.exit('started')\n"
        "try:\n    launch.cli.run(launch.train.command)\n"
        "finally:\n    assert 'infogan.trainer' not in sys.modules"
    )
    zero = tmp_path / "zero.json"
    zero.write_text('{"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 8}')
    preset = tmp_path / "tiny.yaml"
    preset.write_text(
        f"data: {{path: {tiny_data}}}\ncodes: {{k: {{kind: categorical, ways: 3}}}}\nnetwork: {{name: mnist}}\n"
        "batch: 8\ndevice: cpu\nprecision: fp32\n"
    )
    command = [sys.executable, "-c", program, str(preset), *(word.format(zero) for word in words)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), text=True, capture_output=True, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert sorted(tmp_path.iterdir()) == [preset, zero]


def environment() -> dict[str, Any]:
    import os

    root = str(Path(__file__).parents[2])
    kept = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    return kept | {"PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "", "HF_HOME": "/nonexistent"}
