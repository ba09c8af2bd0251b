"""A run that is stopped anywhere and goes on is the run that was never stopped, to the bit."""

import platform
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A run of the tiny preset takes a fraction of a second; a pause in every update lets a signal arrive in one.
SLOWLY = """
import time
from infogan.learner import Learner
update = Learner.update
Learner.update = lambda self, parts, images: (time.sleep({pause}), update(self, parts, images))[1]
"""

# Kills the process at the n-th of the calls that make files appear and vanish; a file being written is then half there.
KILL_AT = """
import os, pathlib, signal
from infogan import checkpoint
from shards import atomic
reached = 0
def counting(call):
    def counted(*arguments, **named):
        global reached
        reached += 1
        if reached == {n}:
            if call is write_bytes:
                write_bytes(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return counted
write_bytes = pathlib.Path.write_bytes
pathlib.Path.write_bytes = counting(write_bytes)
os.fsync, os.rename, os.replace = counting(os.fsync), counting(os.rename), counting(os.replace)
atomic._exchange = counting(atomic._exchange)
atomic.shutil.rmtree = counting(atomic.shutil.rmtree)
"""


@pytest.fixture(scope="session")
def never_stopped(tiny_run: Path, left_by: Callable[[Path], Any]) -> Any:
    """What a run of the tiny preset leaves behind that was never stopped."""
    return left_by(tiny_run)


def stamps(run: Path) -> dict[Path, tuple[int, int]]:
    """Every file of a run, and what changes when it is written; but for the lease by which a process holds it."""
    files = (path for path in run.rglob("*") if path.is_file() and ".lease" not in path.parts)
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def rows(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def assert_equal(found: Any, expected: Any, how: str) -> None:
    assert found.tensors.keys() == expected.tensors.keys(), how
    differing = [name for name, data in found.tensors.items() if data != expected.tensors[name]]
    assert not differing, f"{how}: {differing}"
    assert found.rows == expected.rows, how
    assert found.state == expected.state, how


def test_two_runs_of_one_config_are_equal_to_the_bit(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    infogan.good("train", str(tiny_preset), "--run", "again")
    assert_equal(left_by(infogan.folder / "again"), never_stopped, "second run")
    assert len(never_stopped.rows) == 8
    assert sum("optimizer" in name for name in never_stopped.tensors) > 60
    assert any(name.startswith("export/critic") for name in never_stopped.tensors)


def test_a_stopped_run_saves_before_all_else_and_makes_up_for_it(
    infogan: Any, tiny_preset: Path, left_by: Callable[[Path], Any]
) -> None:
    """The signal comes in an update after which pictures and a validation are due."""
    told = (
        "import os, signal, infogan.trainer as t\nupdate = t.Trainer._update\n"
        "def told(self, batches):\n"
        "    if self.images == 72: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return update(self, batches)\n"
        "t.Trainer._update = told"
    )
    arguments = ("train", str(tiny_preset), "stop=20 updates", "eval.every_kimg=0.08", "images.every_kimg=0.08")
    infogan.good(*arguments, "--run", "whole")
    whole, parts = infogan.folder / "whole", infogan.folder / "parts"
    assert infogan(*arguments, "--run", "parts", before=told).code == 143
    assert not list((parts / "images").glob("*kimg-000000.080*"))
    infogan.good(*arguments, "--run", "parts")
    assert_equal(left_by(parts), left_by(whole), "made up for")
    assert {path.name for path in (parts / "images").iterdir()} == {path.name for path in (whole / "images").iterdir()}


def killed_and_resumed(infogan: Any, preset: Path, kills: int, draw: random.Random, run: str) -> str:
    """Train `run` with so many kills at random moments, then to its end; how it was killed."""
    moments = []
    for _ in range(kills):
        started = infogan.start("train", str(preset), "--run", run, before=SLOWLY.format(pause=0.01))
        wanted = rows(infogan.folder / run) + draw.randint(0, 3)
        started.wait_for(lambda wanted=wanted: rows(infogan.folder / run) >= min(wanted, 7))
        pause = draw.uniform(0, 0.1)
        time.sleep(pause)
        started.signal(signal.SIGKILL)
        ended = started.wait()
        assert ended.code in (-signal.SIGKILL, 0), ended.output
        moments.append(f"{wanted} rows + {pause:.3f} s")
    infogan.good("train", str(preset), "--run", run)
    return f"killed at {', '.join(moments)}"


def test_resume_is_bit_exact_after_sigkill(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    how = killed_and_resumed(infogan, tiny_preset, 2, random.Random(), "killed")
    assert_equal(left_by(infogan.folder / "killed"), never_stopped, how)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_resume_is_bit_exact_after_many_sigkills(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    for attempt in range(15):
        how = killed_and_resumed(infogan, tiny_preset, 3, random.Random(), f"killed-{attempt}")
        assert_equal(left_by(infogan.folder / f"killed-{attempt}"), never_stopped, how)


# A child that outlives the run: with every file open that the run has.
LEAVES_A_CHILD = """
import os, time
from infogan import learner
made = learner.Learner.__init__
def forking(self, *arguments, **named):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    made(self, *arguments, **named)
learner.Learner.__init__ = forking
"""


def test_a_second_process_leaves_a_run_to_the_first(infogan: Any, tiny_preset: Path) -> None:
    command = ("train", str(tiny_preset), "--run", "shared")
    first = infogan.start(*command, before=SLOWLY.format(pause=0.5))
    first.wait_for(lambda: rows(infogan.folder / "shared") > 0)
    second = infogan(*command)
    assert second.code == 2
    assert second.output == (
        f"error: run shared: another process is training it (process {first.pid} on {platform.node()}); wait for it, "
        "or say --run DIR\n"
    )
    first.signal(signal.SIGKILL)
    first.wait()


def test_a_child_that_outlives_a_killed_run_keeps_nobody_from_resuming(infogan: Any, tiny_preset: Path) -> None:
    command = ("train", str(tiny_preset), "--run", "orphan")
    killed = infogan.start(*command, before=LEAVES_A_CHILD + SLOWLY.format(pause=0.5))
    killed.wait_for(lambda: rows(infogan.folder / "orphan") > 0)
    killed.signal(signal.SIGKILL)
    killed.wait()
    infogan.good(*command)


def kill_while_saving(infogan: Any, n: int, *command: str) -> bool:
    """Kill at the n-th call that writes something durable, then train to the end; False where there is no n-th."""
    ended = infogan(*command, before=KILL_AT.format(n=n))
    assert ended.code in (-signal.SIGKILL, 0), ended.output
    infogan.good(*command)
    return bool(ended.code)


@pytest.mark.parametrize("n", [4, 9, 21, 46])
def test_a_kill_while_something_is_being_written_loses_nothing(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any], n: int
) -> None:
    assert kill_while_saving(infogan, n, "train", str(tiny_preset), "--run", "torn")
    assert_equal(left_by(infogan.folder / "torn"), never_stopped, f"killed at call {n}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kill_at_any_moment_of_writing_loses_nothing(
    infogan: Any, tiny_preset: Path, left_by: Callable[[Path], Any]
) -> None:
    """Every call of a run with three checkpoints, of which the first is thrown away, and an export."""
    command = ("train", str(tiny_preset), "stop=12 updates", "checkpoint.every_kimg=0.032", "--run")
    infogan.good(*command, "straight")
    expected = left_by(infogan.folder / "straight")
    n = 1
    while kill_while_saving(infogan, n, *command, f"torn-{n}"):
        assert_equal(left_by(infogan.folder / f"torn-{n}"), expected, f"killed at call {n}")
        n += 1
    assert n > 60


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_stops_after_saving_and_the_same_command_goes_on(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any],
    checkpoints_of: Callable[[Path], list[str]], name: str, code: int,
) -> None:  # fmt: skip
    command = ("train", str(tiny_preset), "--run", "signalled", "check_interval=0.001")
    run = infogan.folder / "signalled"
    started = infogan.start(*command, before=SLOWLY.format(pause=0.03))
    started.wait_for(lambda: rows(run) > 0)
    started.signal(getattr(signal, name))
    ended = started.wait()
    assert ended.code == code, ended.output
    (stopped,) = [line for line in ended.output.splitlines() if line.startswith("stopped by")]
    kimg = checkpoints_of(run)[-1].removeprefix("kimg-")
    assert stopped == f"stopped by {name} at {float(kimg):g} kimg after saving; the same command resumes"
    assert 0.04 <= float(kimg) < 0.32
    assert "resuming from" in infogan.good(*command)
    found = left_by(run)
    assert_equal(found, never_stopped, stopped)


def test_a_second_ctrl_c_interrupts_at_once(infogan: Any, tiny_preset: Path) -> None:
    started = infogan.start("train", str(tiny_preset), "--run", "hurried", before=SLOWLY.format(pause=30))
    started.wait_for(lambda: "run hurried" in started.output())
    time.sleep(1)
    begun = time.monotonic()
    started.signal(signal.SIGINT)
    time.sleep(0.2)
    started.signal(signal.SIGINT)
    ended = started.wait()
    assert ended.code == 130
    assert ended.output.splitlines()[-1] == "interrupted"
    assert time.monotonic() - begun < 15


def test_a_finished_run_says_so_and_changes_nothing(infogan: Any, tiny_preset: Path) -> None:
    run = infogan.folder / "done"
    infogan.good("train", str(tiny_preset), "--run", "done")
    before = stamps(run)
    said = infogan.good("train", str(tiny_preset), "--run", "done")
    assert (
        "already finished: done/checkpoints/kimg-000000.320 is at 0.32 kimg; to train longer, say a later stop" in said
    )
    assert stamps(run) == before


def test_a_run_killed_while_it_finishes_is_finished_by_the_same_command(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    """The last checkpoint stands, the export does not: that is no finished run."""
    die = "import os, infogan.monitor as m\nm.export = lambda *arguments: os.kill(os.getpid(), 9)"
    assert infogan("train", str(tiny_preset), "--run", "late", before=die).code == -9
    run = infogan.folder / "late"
    assert not (run / "export").exists()
    infogan.good("train", str(tiny_preset), "--run", "late")
    assert_equal(left_by(run), never_stopped, "killed before the export")


def test_training_longer_is_having_trained_so_long_from_the_start(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    infogan.good("train", str(tiny_preset), "--run", "longer", "stop=20 updates")
    assert "resuming" in infogan.good("train", str(tiny_preset), "--run", "longer", "stop=5 epochs")
    assert_equal(left_by(infogan.folder / "longer"), never_stopped, "20 updates, then 40")


def test_a_run_goes_on_by_its_folder_alone(
    infogan: Any, tiny_preset: Path, never_stopped: Any, left_by: Callable[[Path], Any]
) -> None:
    infogan.good("train", str(tiny_preset), "--run", "alone", "stop=20 updates")
    infogan.good("train", "--run", "alone", "stop=40 updates")
    assert_equal(left_by(infogan.folder / "alone"), never_stopped, "by --run alone")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimizer.critic.lr=1e-4", "optimizer.critic.lr was 0.0002, is 0.0001"),
        ("seed=1", "seed was 0, is 1"),
        ("batch=16", "batch was 8, is 16"),
        ("codes.kind.ways=4", "codes.kind.ways was 3, is 4"),
        ("codes.c1=null", "codes.c1.kind was continuous, is absent"),
        ("precision=bf16", "precision was fp32, is bf16"),
    ],
)
def test_a_run_under_another_identity_is_refused_and_the_field_named(
    infogan: Any, tiny_preset: Path, tiny_run: Path, override: str, named: str
) -> None:
    before = stamps(tiny_run)
    ended = infogan("train", str(tiny_preset), "--run", str(tiny_run), "stop=80 updates", override)
    assert ended.code == 2
    assert named in ended.error
    assert "change it back, or start another run with --run DIR" in ended.error
    assert stamps(tiny_run) == before


def test_a_run_that_has_learned_nothing_yet_may_still_change(infogan: Any, tiny_preset: Path) -> None:
    """What an out-of-memory message or a typo asks for must not be refused for the sake of an empty folder."""
    die = "import os, infogan.trainer as t\nt.Trainer._update = lambda *arguments: os.kill(os.getpid(), 9)"
    assert infogan("train", str(tiny_preset), "--run", "young", before=die).code == -9
    assert (infogan.folder / "young" / "config.yaml").exists()
    infogan.good("train", str(tiny_preset), "--run", "young", "batch=16", "stop=2 updates")


def test_another_runs_weights_begin_a_new_run(
    infogan: Any, tiny_preset: Path, tiny_run: Path, read_tensors_of: Callable[[Path], dict[str, bytes]]
) -> None:
    """A new run keeps the weights it is given, and nothing else: at rates of almost nothing it still has them."""
    still = ("optimizer.critic.lr=1e-30", "optimizer.generator.lr=1e-30", "stop=1 updates")
    for source, folder in ((str(tiny_run), "kimg-000000.320"), (f"{tiny_run}@0.24", "kimg-000000.240")):
        name = f"from-{folder}"
        infogan.good("train", str(tiny_preset), "--run", name, "--from", source, *still)
        given = read_tensors_of(tiny_run / "checkpoints" / folder)
        taken = read_tensors_of(infogan.folder / name / "checkpoints" / "kimg-000000.008")
        weights = [key for key in given if not key.startswith("optimizer")]
        assert [key for key in weights if key.startswith(("generator", "critic")) and taken[key] != given[key]] == []
        steps = [value for key, value in taken.items() if key.startswith("optimizer") and key.endswith("/step")]
        assert set(steps) == {b"\x00\x00\x80\x3f"}  # float32 1: the optimizers began anew


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "--from nowhere: nowhere holds no run with checkpoints"),
        ("{run}@7", "no checkpoint '7'; say latest, best or one of these kimg: 0.24, 0.32"),
    ],
)
def test_weights_that_are_not_there_are_refused_and_leave_no_run(
    infogan: Any, tiny_preset: Path, tiny_run: Path, source: str, said: str
) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "new", "--from", source.format(run=tiny_run))
    assert ended.code == 2
    assert said in ended.error
    assert not (infogan.folder / "new" / "config.yaml").exists()


def test_a_run_begun_with_anothers_weights_goes_on_by_the_same_command(
    infogan: Any, tiny_preset: Path, tiny_run: Path, left_by: Callable[[Path], Any]
) -> None:
    command = ("train", str(tiny_preset), "--from", f"{tiny_run}@0.24", "stop=10 updates", "checkpoint.every_kimg=0.04")
    infogan.good(*command, "--run", "straight")
    die = "import os, infogan.trainer as t\nt.Trainer.finish = lambda *arguments: os.kill(os.getpid(), 9)"
    assert infogan(*command, "--run", "killed", before=die).code == -9
    assert "resuming from" in infogan.good(*command, "--run", "killed")
    assert_equal(left_by(infogan.folder / "killed"), left_by(infogan.folder / "straight"), "killed with --from")


def test_weights_are_not_taken_over_a_runs_own(infogan: Any, tiny_preset: Path, tiny_run: Path) -> None:
    ended = infogan("train", str(tiny_preset), "--run", str(tiny_run), "--from", "elsewhere", "stop=80 updates")
    assert ended.code == 2
    assert "has checkpoints of its own; give a new run another folder with --run DIR" in ended.error
