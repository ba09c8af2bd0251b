"""The number of processes, of micro-batches and the way a run is started change nothing in what is learned."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

BIN = Path(sys.executable).parent

# Weights of 20 updates without BatchNorm in float64: what is left is the order in which sums are added up.
EXACT = ("network.norm=none", "precision=fp64", "stop=20 updates", "checkpoint.every_kimg=1000")


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


def train_in(infogan: Any, processes: int, *arguments: str) -> list[Any]:
    """Start a run in so many processes, as torchrun would; how each ended."""
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        infogan.start("train", *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(processes)
    ]
    return [process.wait() for process in started]


def furthest(run: Path, other: Path, name: str) -> float:
    """The largest difference between two runs' weights, relative to the largest weight of the tensor."""
    last = "checkpoints/kimg-000000.160"
    ours, theirs = load_file(run / last / f"{name}.safetensors"), load_file(other / last / f"{name}.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(value.dtype == np.float64 for key, value in ours.items() if not key.endswith("/step"))
    return max(float(np.abs(ours[key] - theirs[key]).max() / np.abs(ours[key]).max()) for key in ours)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_preset: Path, infogan_in: Callable[[Path], Any]) -> Path:
    """20 updates in one process."""
    folder = tmp_path_factory.mktemp("alone")
    infogan_in(folder).good("train", str(tiny_preset), "--run", "run", *EXACT)
    return folder / "run"


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_processes_and_accumulation_change_nothing(
    infogan: Any, alone: Path, tiny_preset: Path, processes: int, accumulation: int
) -> None:
    extra = () if accumulation == 1 else (f"accumulation={accumulation}",)
    for ended in train_in(infogan, processes, str(tiny_preset), "--run", "many", *EXACT, *extra):
        assert ended.code == 0, ended.output
    many = infogan.folder / "many"
    for name in ("generator", "critic", "ema", "optimizer"):
        assert furthest(many, alone, name) < 1e-8, name
    numbers = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (many, alone)]
    for ours, theirs in zip(*numbers, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            if not key.startswith(("time/", "diversity/")) and ours[key] is not None:
                assert ours[key] == pytest.approx(theirs[key], rel=1e-8, abs=1e-12), key


def test_the_command_starts_two_processes_that_train_one_run(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]]
) -> None:
    data = make_data(32, colour=True, images=40)
    command = [
        str(BIN / "infogan"), "train", "own", "--processes", "2", "--run", "two", f"data.path={data}", "batch=8",
        "stop=2 updates", "device=cpu", "threads=1", "precision=fp32", "eval.every_kimg=null", "log.every_kimg=0.008",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("run two")]
    assert said == [f"run two: 2 updates of 8 = 0.016 kimg = {16 / 32:.1f} epochs on 2 x cpu, fp32, 1 threads"]
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2]
    (start,) = json.loads((tmp_path / "two" / "environment.json").read_text())["starts"]
    assert start["processes"] == 2


def test_a_resumed_run_may_have_another_number_of_processes(infogan: Any, alone: Path, tiny_preset: Path) -> None:
    first = train_in(infogan, 2, str(tiny_preset), "--run", "moved", *EXACT, "stop=10 updates")
    assert [ended.code for ended in first] == [0, 0]
    infogan.good("train", str(tiny_preset), "--run", "moved", *EXACT)
    assert furthest(infogan.folder / "moved", alone, "generator") < 1e-8


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_one_process_stops_them_all_after_saving(
    infogan: Any, tiny_preset: Path, name: str, checkpoints_of: Callable[[Path], list[str]]
) -> None:
    """The process that is told is not the one that writes."""
    tell = (
        "import os, signal, infogan.trainer as t\nupdate = t.Trainer._update\n"
        "def told(self, batches):\n"
        f"    if self.engine.rank == 1 and self.images == 80: os.kill(os.getpid(), signal.{name})\n"
        "    return update(self, batches)\n"
        "t.Trainer._update = told"
    )
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    arguments = ("train", str(tiny_preset), "--run", "pair", "stop=1000 updates")
    started = [infogan.start(*arguments, before=tell, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    ended = [process.wait() for process in started]
    assert [end.code for end in ended] == [{"SIGTERM": 143, "SIGINT": 130}[name]] * 2, ended
    assert f"stopped by {name}" in ended[0].output
    assert ended[1].output == ""
    assert checkpoints_of(infogan.folder / "pair")


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest(infogan: Any, tiny_preset: Path) -> None:
    ended = train_in(infogan, 2, str(tiny_preset), "--run", "odd", "batch=9")
    assert [end.code for end in ended] == [2, 2]
    assert (
        "batch: 9: must be a multiple of processes x accumulation = 2 x 1; the nearest are 8 and 10" in ended[0].error
    )
    assert not (infogan.folder / "odd").exists()


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
    command = [str(BIN / "accelerate"), "launch", "-m", "launch.train", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_accelerate_launches_a_run(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]]
) -> None:
    """With the settings file in the home folder that accelerate reads without a word: first against ours, then away."""
    data = make_data(32, colour=True, images=40)
    home = tmp_path / "home"
    (home / "accelerate").mkdir(parents=True)
    settings = home / "accelerate" / "default_config.yaml"
    settings.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nnum_processes: 1\n"
    )
    arguments = [
        "--config", "configs/own.yaml", "--run", "launched", f"data.path={data}", "batch=8", "stop=1 updates",
        "device=cpu", "threads=1", "precision=fp32", "eval.every_kimg=null",
    ]  # fmt: skip
    ended = accelerate_launch(tmp_path, environment(HF_HOME=str(home)), *arguments)
    assert ended.returncode != 0
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "the config says fp32, accelerate's settings say bf16" in error
    assert f"(read silently from {settings}: mixed_precision: bf16, num_processes: 1)" in error
    assert not (tmp_path / "launched").exists()
    settings.unlink()
    ended = accelerate_launch(tmp_path, environment(HF_HOME=str(home)), *arguments)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "launched" / "export" / "generator.safetensors").is_file()


def test_a_model_without_codes_trains_in_two_processes(infogan: Any, tiny_preset: Path) -> None:
    """A plain GAN: Q has no parameters, for which two processes would wait in vain for gradients."""
    plain = ("codes.kind=null", "codes.c1=null", "stop=3 updates")
    for ended in train_in(infogan, 2, str(tiny_preset), "--run", "plain", *plain):
        assert ended.code == 0, ended.output


def test_the_log_survives_a_stop_within_an_interval_in_every_process(infogan: Any, tiny_preset: Path) -> None:
    """The sums of the interval so far are each process's own."""
    stopped = (
        "import os, signal, infogan.trainer as t\nupdate = t.Trainer._update\n"
        "def told(self, batches):\n"
        "    if self.images == 96: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return update(self, batches)\n"
        "t.Trainer._update = told"
    )
    arguments = ("train", str(tiny_preset), "stop=20 updates", "check_interval=1e-6")
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for run, before in (("whole", ""), ("parts", stopped), ("parts", "")):
        port = str(free_port())
        started = [
            infogan.start(
                *arguments, "--run", run, before=before, RANK=rank, LOCAL_RANK=rank, MASTER_PORT=port, **shared
            )
            for rank in ("0", "1")
        ]
        codes = [process.wait().code for process in started]
        assert codes == ([143, 143] if before else [0, 0])
    logs = [(infogan.folder / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    whole, parts = (
        [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in log]
        for log in logs
    )
    assert whole == parts
