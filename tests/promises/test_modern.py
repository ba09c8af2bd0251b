"""Spectral normalisation, R1 and augmentation keep the promises of exact resume and of any number of processes."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import infogan as package

ADVICE = "training images are few, and a critic may learn them by heart"

# No BatchNorm and float64: what is left between processes is the order in which sums are added up.
EXACT = ("network.norm=none", "precision=fp64")


@pytest.fixture(scope="module")
def preset(make_data: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small residual network with everything switched on: 12 updates of 8, two checkpoints."""
    data = make_data(28, images=40)
    path = tmp_path_factory.mktemp("presets") / "modern.yaml"
    path.write_text(
        f"data: {{path: {data}}}\n"
        "codes: {kind: {kind: categorical, ways: 3}, c1: {kind: continuous}}\n"
        "noise: {size: 6}\n"
        "network: {name: residual, height: 28, width: 28, base: 4, features: 16}\n"
        "objective: {name: hinge, r1: 0.5, ramp_kimg: 0.06}\n"
        "augment: {mirror: true, diffaugment: [color, translation, cutout]}\n"
        "batch: 8\n"
        "stop: 12 updates\n"
        "precision: fp32\n"
        "device: cpu\n"
        "threads: 1\n"
        "log: {every_kimg: 0.016}\n"
        "checkpoint: {every_kimg: 0.048}\n"
        "eval: {every_kimg: null}\n"
    )
    return path


@pytest.fixture(scope="module")
def never_stopped(
    preset: Path, tmp_path_factory: pytest.TempPathFactory, infogan_in: Callable[[Path], Any]
) -> tuple[Path, str]:
    """A finished run, and what it said."""
    folder = tmp_path_factory.mktemp("straight")
    said = infogan_in(folder).good("train", str(preset), "--run", "run")
    return folder / "run", said


def test_a_killed_run_is_resumed_to_the_bit(
    infogan: Any, preset: Path, never_stopped: tuple[Path, str], left_by: Callable[[Path], Any]
) -> None:
    die = (
        "import os, infogan.trainer as t\nupdate = t.Trainer._update\n"
        "def killed(self, batches):\n"
        f"    if self.images == 72: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "    return update(self, batches)\n"
        "t.Trainer._update = killed"
    )
    assert infogan("train", str(preset), "--run", "killed", before=die).code == -signal.SIGKILL
    assert "resuming from" in infogan.good("train", str(preset), "--run", "killed")
    found, expected = left_by(infogan.folder / "killed"), left_by(never_stopped[0])
    assert any(name.endswith(".u") for name in found.tensors)
    assert found == expected
    assert all(row["penalty/r1"] > 0 for row in found.rows)
    assert [row["lambda_share"] for row in found.rows] == pytest.approx([8 / 60, 24 / 60, 40 / 60, 56 / 60, 1, 1])


def train_in(infogan: Any, processes: int, *arguments: str) -> None:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        port = str(any_socket.getsockname()[1])
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        infogan.start("train", *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(processes)
    ]
    for process in started:
        ended = process.wait()
        assert ended.code == 0, ended.output


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (2, 2)])
def test_processes_and_accumulation_change_nothing(
    infogan: Any, preset: Path, processes: int, accumulation: int
) -> None:
    infogan.good("train", str(preset), "--run", "one", *EXACT)
    train_in(infogan, processes, str(preset), "--run", "many", *EXACT, f"accumulation={accumulation}")
    one, many = (infogan.folder / name for name in ("one", "many"))
    for name in ("generator", "critic", "ema", "optimizer"):
        file = f"checkpoints/kimg-000000.096/{name}.safetensors"
        ours, theirs = load_file(many / file), load_file(one / file)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert np.abs(value - theirs[key]).max() <= 1e-8 * np.abs(theirs[key]).max(), key
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (many, one)]
    for found, expected in zip(*rows, strict=True):
        for key in ("loss/critic", "loss/generator", "penalty/r1", "mi/kind", "mse/c1"):
            assert found[key] == pytest.approx(expected[key], rel=1e-8), key


def test_an_exported_model_divides_by_the_singular_values_of_its_weights(never_stopped: tuple[Path, str]) -> None:
    run, _ = never_stopped
    model = package.load(run / "export", device="cpu")
    saved = load_file(run / "checkpoints" / "kimg-000000.096" / "critic.safetensors")
    for name, part in model.critic.named_modules():
        if f"{name}.u" in saved:
            assert part.u.numpy().tobytes() == saved[f"{name}.u"].tobytes()
            largest = torch.linalg.svdvals(part.weight.flatten(1))[0].item()
            assert part.sigma().item() == pytest.approx(largest, rel=0.02)
    posteriors = model.encode(model.sample(5, kind=1))
    assert posteriors["c1"].mean.isfinite().all()  # type: ignore[union-attr]


def test_few_images_without_augmentation_are_remarked_once(
    infogan: Any, preset: Path, never_stopped: tuple[Path, str]
) -> None:
    assert ADVICE not in never_stopped[1]
    plain = ("train", str(preset), "--run", "plain", "augment.mirror=false", "augment.diffaugment=[]")
    said = infogan.good(*plain, "stop=1 updates")
    (advice,) = [line for line in said.splitlines() if ADVICE in line]
    assert advice.startswith("32 training images")
    for remedy in ("augment.diffaugment=[color,translation,cutout]", "augment.mirror=true", "fewer updates"):
        assert remedy in advice
    assert ADVICE not in infogan.good(*plain, "stop=2 updates")
