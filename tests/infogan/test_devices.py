"""Nobody trains on a CPU by accident, and nobody in an emulated precision."""

import errno
import os
from pathlib import Path

import pytest
import torch

from infogan import devices
from shards.errors import UserError


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_gpu_is_there", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert devices.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device=cuda: this machine has no NVIDIA GPU"):
        devices.resolve_device("cuda")


def test_a_gpu_that_cannot_be_used_is_an_error_unless_the_cpu_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update it.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_gpu_is_there", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", too_old)
    for name in ("auto", "cuda", "cuda:0"):
        with pytest.raises(UserError, match=r"too old \(found version 11040\) .*update the driver.*device=cpu"):
            devices.resolve_device(name)
    assert devices.resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="is a CPU build"):
        devices.resolve_device("auto")


def test_a_gpu_that_works_is_chosen_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("auto") == torch.device("cuda")
    assert devices.resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="cuda:0 to cuda:1"):
        devices.resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(UserError, match="must be auto, cpu, cuda or cuda:N"):
        devices.resolve_device(name)


@pytest.mark.parametrize(
    ("number", "there"), [(None, True), (errno.EIO, True), (errno.EACCES, True), (errno.EPERM, False)]
)
def test_a_gpu_withheld_by_a_control_group_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int | None, there: bool
) -> None:
    node = tmp_path / "nvidia0"
    node.touch()
    opened = os.open

    def refuse(path: Path, flags: int) -> int:
        if number is not None:
            raise OSError(number, "refused")
        return opened(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        seen = devices._may_open(node)
    assert seen is there


def test_a_hidden_gpu_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_may_open", lambda node: True)
    for value in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert not devices._gpu_is_there()


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx2"}, "fp32"),
        ({"avx512_bf16"}, "bf16"),
        ({"amx_bf16"}, "bf16"),
        ({"bf16", "asimd"}, "bf16"),
        (set(), "fp32"),
    ],
)
def test_auto_precision_follows_the_cpus_flags(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    assert devices.auto_precision(torch.device("cpu")) == precision


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_precision_follows_the_gpus_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.auto_precision(torch.device("cuda")) == precision


def test_the_flags_agree_with_torchs_own_query() -> None:
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if asked is None or not devices.cpu_flags():
        pytest.skip("this torch or this system does not tell")
    assert ("avx512_bf16" in devices.cpu_flags()) == asked()
