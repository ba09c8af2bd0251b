"""Where the data lies changes nothing about what is learned."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.adopt import adopt

HASTY = """
from shards import transport
transport.PATIENCE = transport.Patience(first=0.01, longest=0.05)
"""
SLOWLY = """
import time
from infogan.learner import Learner
update = Learner.update
Learner.update = lambda self, parts, images: (time.sleep(0.02), update(self, parts, images))[1]
"""


@pytest.fixture
def server(tiny_data: Path, serve: Callable[[Path], Any]) -> Any:
    started = serve(tiny_data)
    started.fail_at_random(0.2)
    return started


def test_a_run_from_a_url_is_the_run_from_a_folder_also_when_it_is_killed(
    infogan: Any, tiny_preset: Path, tiny_run: Path, server: Any, left_by: Callable[[Path], Any]
) -> None:
    words = ("train", str(tiny_preset), f"data.path={server.url}", f"data.cache.path={infogan.folder / 'cache'}")
    killed = infogan.start(*words, "--run", "far", before=HASTY + SLOWLY)
    killed.wait_for(lambda: len(list((infogan.folder / "far" / "checkpoints").glob("*"))) >= 2)
    killed.signal(signal.SIGKILL)
    killed.wait()
    infogan.good(*words, "--run", "far", before=HASTY)
    far, near = left_by(infogan.folder / "far"), left_by(tiny_run)
    assert far.tensors == near.tensors
    assert far.rows == near.rows
    assert far.state == near.state


def test_a_smaller_window_is_another_order_and_the_same_one_everywhere(
    infogan: Any, tiny_preset: Path, tiny_run: Path, server: Any, left_by: Callable[[Path], Any]
) -> None:
    words = ("train", str(tiny_preset), "data.window=1")
    far = (f"data.path={server.url}", f"data.cache.path={infogan.folder / 'cache'}")
    infogan.good(*words, *far, "--run", "far", before=HASTY)
    infogan.good(*words, "--run", "near")
    assert left_by(infogan.folder / "far").tensors == left_by(infogan.folder / "near").tensors
    assert left_by(infogan.folder / "far").tensors != left_by(tiny_run).tensors
    assert "data.window was absent, is 1" in infogan(*words, "--run", str(tiny_run)).error


def test_a_run_on_adopted_tars_is_the_run_on_our_own(
    infogan: Any, tiny_preset: Path, tiny_run: Path, tiny_data: Path, left_by: Callable[[Path], Any]
) -> None:
    splits = {split: [f"{split}/*.tar"] for split in ("train", "validation", "test")}
    adopt(tiny_data, infogan.folder / "adopted", splits=splits, count=1, progress=False)
    infogan.good("train", str(tiny_preset), f"data.path={infogan.folder / 'adopted'}", "--run", "run")
    assert left_by(infogan.folder / "run").tensors == left_by(tiny_run).tensors
