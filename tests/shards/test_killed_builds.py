"""A build may be killed at any moment: what stands is whole, and the same command continues to the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from shards.verify import verify
from shards.writer import build

Tree = Callable[[Path], dict[str, bytes]]

_CHILD = """
import sys
from conftest_source import Pattern, PatternOptions
from shards.writer import build
class Slow(Pattern):
    def sample(self, split, i):
        import time
        time.sleep(0.002)
        return super().sample(split, i)
build(Slow(PatternOptions(train=300)), sys.argv[1], name="set", shard_size=16, workers=2, progress=False)
"""


def start_build(out: Path, helpers: Path) -> subprocess.Popen[bytes]:
    shutil.copy(Path(__file__).with_name("conftest.py"), helpers / "conftest_source.py")
    here = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(helpers)])}
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(out)], env=environment, stderr=subprocess.PIPE)


def whole_or_absent(out: Path, reference: dict[str, bytes]) -> None:
    """Whatever stands under a final name is already what it will be."""
    for name in reference:
        if name != "manifest.json" and (out / name).exists():
            assert (out / name).read_bytes() == reference[name], f"{name} stood there torn"


def killed_and_resumed(pattern: Any, tmp_path: Path, tree: Tree, kills: int, seed: int) -> None:
    build(pattern(train=300), tmp_path / "reference", name="set", shard_size=16, progress=False)
    reference = tree(tmp_path / "reference")
    dice = random.Random(seed)
    out = tmp_path / "out"
    for _ in range(kills):
        child = start_build(out, tmp_path)
        while not (out / ".build" / "plan.json").exists() and child.poll() is None:
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 0.35))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        whole_or_absent(out, reference)
        if (out / "manifest.json").exists():
            assert {k: v for k, v in tree(out).items() if not k.startswith(".build")} == reference
            shutil.rmtree(out)
    child = start_build(out, tmp_path)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors.decode()
    assert tree(out) == reference
    assert verify(out, progress=False) == []


def test_a_killed_build_continues_to_the_same_bytes(pattern: Any, tmp_path: Path, tree: Tree) -> None:
    killed_and_resumed(pattern, tmp_path, tree, kills=2, seed=0)


@pytest.mark.slow
def test_a_build_killed_at_many_moments_continues_to_the_same_bytes(pattern: Any, tmp_path: Path, tree: Tree) -> None:
    for seed in range(1, 6):
        (tmp_path / str(seed)).mkdir()
        killed_and_resumed(pattern, tmp_path / str(seed), tree, kills=5, seed=seed)


def test_no_worker_outlives_a_killed_build(pattern: Any, tmp_path: Path) -> None:
    child = start_build(tmp_path / "out", tmp_path)
    while not list((tmp_path / "out" / "train").glob("*.tar")) and child.poll() is None:
        time.sleep(0.01)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    if not workers.exists():
        pytest.skip("the kernel does not list a process's children")
    pids = [int(pid) for pid in workers.read_text().split()]
    assert len(pids) == 2
    child.send_signal(signal.SIGKILL)
    child.communicate()
    deadline = time.monotonic() + 5
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_build_at_the_same_time_is_refused(pattern: Any, tmp_path: Path, tree: Tree) -> None:
    child = start_build(tmp_path / "out", tmp_path)
    while not (tmp_path / "out" / ".build" / "plan.json").exists():
        time.sleep(0.005)
    with pytest.raises(UserError, match=f"being built by process {child.pid}"):
        build(pattern(train=300), tmp_path / "out", name="set", shard_size=16, progress=False)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors.decode()
    assert verify(tmp_path / "out", progress=False) == []
