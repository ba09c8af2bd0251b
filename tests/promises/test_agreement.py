"""All processes of a run go on from one checkpoint, and run the same thing; or none of them runs."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ON_RANK_1 = "import os\nif os.environ['RANK'] == '1':\n    "
SLOWLY = """
import time
from infogan.learner import Learner
update = Learner.update
Learner.update = lambda self, parts, images: (time.sleep(0.1), update(self, parts, images))[1]
"""


@pytest.fixture
def arguments(tiny_preset: Path) -> tuple[str, ...]:
    return ("train", str(tiny_preset), "--run", "run")


def error(ended: list[Any]) -> str:
    """The one line that all processes together print of an error, which ends them all."""
    assert [end.code for end in ended] == [2] * len(ended), ended
    output = "".join(end.output for end in ended)
    assert "Traceback" not in output, output
    (line,) = {line.partition(": ")[2] for line in output.splitlines() if line.startswith("error")}
    return str(line)


def test_all_go_on_from_the_checkpoint_that_a_writer_left_while_they_started(
    infogan: Any, arguments: tuple[str, ...], checkpoints_of: Callable[[Path], list[str]]
) -> None:
    """The holder of the run saves once more and leaves when the others have begun to look."""
    holder = infogan.start(*arguments, "stop=1000 updates", before=SLOWLY)
    holder.wait_for(lambda: bool(checkpoints_of(infogan.folder / "run")))
    started = infogan.start_ranks(2, *arguments, "stop=60 updates", before=ON_RANK_1 + "import torch")
    time.sleep(0.7)
    holder.signal(signal.SIGTERM)
    assert holder.wait().code == 143
    ended = [process.wait() for process in started]
    assert [end.code for end in ended] == [0, 0], ended
    assert f"resuming from run/checkpoints/{checkpoints_of(infogan.folder / 'run')[0]}" not in ended[0].output


@pytest.mark.parametrize("seen", ["absent", "another"])
def test_a_process_that_sees_another_checkpoint_is_named(infogan: Any, arguments: tuple[str, ...], seen: str) -> None:
    infogan.good(*arguments, "stop=10 updates")
    (infogan.folder / "other").mkdir()
    shutil.copytree(infogan.folder / "run", infogan.folder / "other" / "run")
    newest = max((infogan.folder / "other" / "run" / "checkpoints").iterdir())
    if seen == "absent":
        newest.rename(newest.with_name("kimg-000000.001"))
    else:
        (newest / "manifest.json").write_text("{}")
    ended = infogan.ranks(2, *arguments, "stop=20 updates", before=ON_RANK_1 + "os.chdir('other')")
    line = error(ended)
    assert line.startswith(f"checkpoint run/checkpoints/{newest.name}: its digest is ")
    assert " on rank 0 and " in line
    assert ("absent on rank 1" if seen == "absent" else "on rank 1") in line


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("sys.argv.append('batch=16')", "config: batch is 8 on rank 0 and 16 on rank 1; start all processes with"),
        ("sys.argv.append('checkpoint.every_kimg=0.04')", "config: checkpoint.every_kimg is 0.08 on rank 0 and 0.04"),
        ("sys.argv.append('precision=bf16')", "config: precision is fp32 on rank 0 and bf16 on rank 1"),
    ],
)
def test_processes_that_were_told_different_things_are_refused(
    infogan: Any, arguments: tuple[str, ...], other: str, said: str
) -> None:
    assert said in error(infogan.ranks(2, *arguments, before=f"{ON_RANK_1}import sys; {other}"))
    assert not (infogan.folder / "run").exists()


def test_processes_with_different_builds_of_the_data_are_refused(
    infogan: Any, arguments: tuple[str, ...], tiny_data: Path, make_data: Callable[..., Path]
) -> None:
    other = make_data(8, images=100)
    ended = infogan.ranks(2, *arguments, before=f"{ON_RANK_1}import sys; sys.argv.append('data.path={other}')")
    assert "config: data.digest is " in error(ended)


def test_auto_precision_is_one_that_every_process_has(infogan: Any, arguments: tuple[str, ...]) -> None:
    mixed = (
        "import os, infogan.launched as l\n"
        "l.auto_precision = lambda device: 'bf16' if os.environ['RANK'] == '0' else 'fp32'"
    )
    ended = infogan.ranks(2, *arguments, "precision=auto", "stop=2 updates", before=mixed)
    assert [end.code for end in ended] == [0, 0], ended
    assert "2 x cpu, fp32" in ended[0].output
