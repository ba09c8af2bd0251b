"""DeepSpeed's ZeRO trains the run that plain processes train, and either goes on where the other stopped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("deepspeed", reason="the extra deepspeed is not installed")

# Without BatchNorm, in float32: what is left is the order in which sums are added up.
PLAIN = ("network.norm=none", "checkpoint.every_kimg=1000")

# A weight's gradient that is not finite, in one process and one phase of update 3.
SPOILED = """
from infogan import phases
loss = phases.generator_loss
def spoiled(players, codes, objective, latents, augmentation, share):
    value, found = loss(players, codes, objective, latents, augmentation, share)
    spoiled.calls += 1
    return value * (float("inf") if spoiled.calls == 4 and os.environ["RANK"] == "1" else 1), found
spoiled.calls = 0
import os
phases.generator_loss = spoiled
"""


def tensors(run: Path, name: str) -> dict[str, Any]:
    """The newest checkpoint's."""
    newest = max((run / "checkpoints").iterdir())
    return load_file(newest / f"{name}.safetensors")  # type: ignore[no-any-return]


def furthest(run: Path, other: Path) -> dict[str, float]:
    """The largest difference between two runs' tensors, relative to the largest number of each tensor, by file.

    A bias that has barely left 0 has no scale of its own: for weights, one of 1e-3 at least.
    """
    worst = {}
    for name in ("generator", "critic", "ema", "optimizer"):
        ours, theirs = tensors(run, name), tensors(other, name)
        assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
        worst[name] = max(
            float(np.abs(value - theirs[key]).max() / max(np.abs(value).max(), 1e-30 if "/" in key else 1e-3))
            for key, value in ours.items()
        )
    return worst


def assert_equal(run: Path, other: Path) -> None:
    far = furthest(run, other)
    assert max(far.values()) < 1e-5, far


@pytest.fixture
def train(deepspeed_in: Callable[[Path], Any], tmp_path: Path, tiny_preset: Path) -> Callable[..., list[Any]]:
    """Trains a run of the test's folder in two processes to its `stop`; how each ended."""

    def run_to(run: Path, updates: int, *more: str, before: str = "") -> list[Any]:
        arguments = ("train", str(tiny_preset), "--run", str(run), *PLAIN, f"stop={updates} updates", *more)
        return deepspeed_in(tmp_path).ranks(2, *arguments, before=before)  # type: ignore[no-any-return]

    return run_to


def test_zero_and_plain_processes_train_the_same_run_and_resume_each_other(
    train: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def good(run: str, updates: int, *more: str) -> Path:
        for ended in train(tmp_path / run, updates, *more):
            assert ended.code == 0, ended.output
        return tmp_path / run

    plain, by_zero = good("plain", 20), good("zero", 20, "deepspeed=zero2")
    assert_equal(by_zero, plain)
    assert_equal(good("offload", 20, "deepspeed=zero2_offload"), plain)
    engines = [json.loads((run / "environment.json").read_text())["starts"][0]["engine"] for run in (plain, by_zero)]
    assert engines == ["accelerate", "DeepSpeed ZeRO 2"]
    # stopped half way under ZeRO 2: on without, on with ZeRO 1, and on with the same
    half = good("half", 10, "deepspeed=zero2")
    for name in ("without", "zero1", "same"):
        shutil.copytree(half, tmp_path / f"from-zero2-{name}")
    assert_equal(good("from-zero2-without", 20, "deepspeed=null"), plain)
    assert_equal(good("from-zero2-zero1", 20, "deepspeed=zero1"), plain)
    same = good("from-zero2-same", 20, "deepspeed=zero2")
    assert set(furthest(same, by_zero).values()) == {0.0}
    # and stopped half way without it
    good("half-plain", 10)
    assert_equal(good("half-plain", 20, "deepspeed=zero1"), plain)


def test_zero_1_with_micro_batches_trains_the_run_that_plain_processes_train_and_goes_on_in_another_number(
    train: Callable[..., list[Any]], deepspeed_in: Callable[[Path], Any], tmp_path: Path, tiny_preset: Path
) -> None:
    """From the first update on; half way in two processes, then in one and in four."""

    def good(run: str, updates: int, *more: str, processes: int = 2) -> Path:
        arguments = ("train", str(tiny_preset), "--run", str(tmp_path / run), *PLAIN, f"stop={updates} updates", *more)
        for ended in deepspeed_in(tmp_path).ranks(processes, *arguments, "batch=16"):
            assert ended.code == 0, ended.output
        return tmp_path / run

    plain = good("plain", 12, "accumulation=2")
    assert_equal(good("zero", 12, "accumulation=2", "deepspeed=zero1"), plain)
    half = good("half", 6, "accumulation=2", "deepspeed=zero2")
    for processes in (1, 4):
        shutil.copytree(half, tmp_path / f"on{processes}")
        far = furthest(good(f"on{processes}", 12, "accumulation=2", "deepspeed=zero2", processes=processes), plain)
        del far["optimizer"]  # of D's bias, where real and fake cancel, parts of another size leave other last bits
        assert max(far.values()) < 1e-4, far


def test_an_update_that_is_not_finite_is_left_out_and_told(train: Callable[..., list[Any]], tmp_path: Path) -> None:
    ended = train(tmp_path / "spoiled", 20, "deepspeed=zero2", "check_interval=1e-6", before=SPOILED)
    assert [end.code for end in ended] == [2, 2]
    assert "update 3 (0.024 kimg), generator phase: its gradients were not finite, so it was not applied" in (
        "".join(end.output for end in ended)
    )
