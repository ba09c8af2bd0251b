"""A process that dies, stops, hangs or fails ends the run soon, with one message; and the run goes on where it was."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 4

# A run of a second becomes one of many, so that something can happen to it.
SLOWLY = """
import time
from infogan.learner import Learner
update = Learner.update
Learner.update = lambda self, parts, images: (time.sleep(0.05), update(self, parts, images))[1]
"""

# Something happens to rank 1, in the critic phase of update 7.
IN_UPDATE_7 = """
import os, time
from infogan import phases
loss = phases.critic_loss
calls = 0
def spoiled(*arguments):
    global calls
    calls += 1
    if calls == 8 and os.environ["RANK"] == "1":
        {what}
    return loss(*arguments)
phases.critic_loss = spoiled
"""


def told(ended: list[Any]) -> str:
    """The one line that all processes together print of an error."""
    output = "".join(end.output for end in ended)
    assert "Traceback" not in output, output
    lines = [line for line in output.splitlines() if line.startswith("error")]
    assert len(lines) == 1, output
    return lines[0]


@pytest.fixture
def port() -> str:
    """At which nobody listens."""
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return str(any_socket.getsockname()[1])


@pytest.fixture
def arguments(tiny_preset: Path) -> tuple[str, ...]:
    return ("train", str(tiny_preset), "--run", "run", f"patience={PATIENCE}")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_process_that_is_gone_or_stopped_ends_all(
    infogan: Any, arguments: tuple[str, ...], checkpoints_of: Callable[[Path], list[str]], name: str, rank: int
) -> None:
    started = infogan.start_ranks(2, *arguments, "stop=1000 updates", before=SLOWLY)
    started[0].wait_for(lambda: bool(checkpoints_of(infogan.folder / "run")))
    started[rank].signal(getattr(signal, name))
    began = time.monotonic()
    ended = [process.wait() for process in started]
    assert time.monotonic() - began < 60
    assert ended[rank].code == -signal.SIGKILL  # a stopped one is ended by the other
    assert ended[1 - rank].code == 75
    who = f"rank {rank} (process {started[rank].pid} on {os.uname().nodename})"
    line = told(ended)
    assert f"{who} is gone or stopped: nothing was heard of it for " in line
    assert re.search(r"it was in the \w+ phase of update \d+; all processes end here, and the same command resum", line)
    if (name, rank) == ("SIGKILL", 1):
        again = infogan.ranks(2, *arguments)
        assert [end.code for end in again] == [0, 0]
        assert "resuming from" in again[0].output


def test_a_process_that_hangs_ends_all(infogan: Any, arguments: tuple[str, ...]) -> None:
    ended = infogan.ranks(2, *arguments, before=IN_UPDATE_7.format(what="time.sleep(1000)"))
    assert {end.code for end in ended} <= {75, -signal.SIGKILL}
    assert re.search(
        r"rank 1 \(process \d+ on .*\) hangs: for \d+ s it has been in the critic phase of update 7, and others wait",
        told(ended),
    )


def test_a_process_that_hangs_while_it_resumes_ends_all(infogan: Any, arguments: tuple[str, ...]) -> None:
    infogan.ranks(2, *arguments, "stop=5 updates")
    hangs = (
        "import os, time, infogan.trainer, infogan.watch\n"
        "infogan.watch.FIRST_UPDATE_S = 4\n"
        "if os.environ['RANK'] == '1': infogan.trainer.Trainer.resume = lambda self, found: time.sleep(1000)\n"
    )
    ended = infogan.ranks(2, *arguments, "stop=10 updates", before=hangs)
    assert {end.code for end in ended} <= {75, -signal.SIGKILL}
    assert re.search(r"rank 1 \(process \d+ on .*\) hangs: for \d+ s it has been in the start phase", told(ended))


@pytest.mark.parametrize("what", ["ValueError", "RuntimeError"])
def test_a_process_that_fails_ends_all_and_tells_why(infogan: Any, arguments: tuple[str, ...], what: str) -> None:
    ended = infogan.ranks(2, *arguments, before=IN_UPDATE_7.format(what=f"raise {what}('no such luck')"))
    assert [end.code for end in ended] == [1, 1]
    assert re.match(
        r"error \(rank 1\): rank 1 \(process \d+ on .*\) failed in the critic phase of update 7: "
        f"{what}: no such luck; INFOGAN_TRACEBACK=1 shows where; ",
        told(ended),
    )


def test_what_takes_long_ends_nothing(infogan: Any, arguments: tuple[str, ...]) -> None:
    """Rank 0 draws pictures while the others wait for it, and the data of rank 1 come late while rank 0 waits."""
    slow = (
        "import os, time, infogan.monitor as m, shards.loader as l\n"
        "picture, take = m.Monitor.picture, l.BatchStream.__next__\n"
        f"m.Monitor.picture = lambda self, model: (time.sleep({PATIENCE + 3}), picture(self, model))[1]\n"
        "taken = 0\n"
        "def late(self):\n"
        "    global taken\n"
        "    taken += 1\n"
        f"    if taken == 9 and os.environ['RANK'] == '1': time.sleep({PATIENCE + 3})\n"
        "    return take(self)\n"
        "l.BatchStream.__next__ = late\n"
    )
    ended = infogan.ranks(2, *arguments, "stop=12 updates", "images.every_kimg=0.04", before=slow)
    assert [end.code for end in ended] == [0, 0], ended


@pytest.mark.parametrize(("rank", "reason"), [("0", "Timed out after"), ("1", "for 2 s nobody answered there")])
def test_processes_that_never_meet_say_whom_they_wait_for_and_end(
    infogan: Any, arguments: tuple[str, ...], port: str, rank: str, reason: str
) -> None:
    alone = (
        "import infogan.engine as e, infogan.meeting as m, datetime\n"
        "e.MEETING, m.SILENT_S = datetime.timedelta(seconds=2), 0.5"
    )
    where = {"LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ended = infogan(*arguments, before=alone, RANK=rank, **where)
    assert ended.code == 2
    assert f"processes: rank {rank} of 2 could not meet the others at 127.0.0.1:{port}: {reason}" in told([ended])
    whom = "the other 1" if rank == "0" else "rank 0"
    assert [line for line in ended.output.splitlines() if line.startswith("rank")] == [
        f"rank {rank}: waiting for {whom} at 127.0.0.1:{port}"
    ]


def test_an_error_is_told_where_the_machine_of_rank_0_is_frozen(infogan: Any, tiny_preset: Path) -> None:
    """The store that all speak through is there, and does not answer."""
    freeze = "[os.kill(int(open('rank0').read()), 19), time.sleep(1), (_ for _ in ()).throw(ValueError('no luck'))]"
    note = "import os\nif os.environ['RANK'] == '0': open('rank0', 'w').write(str(os.getpid()))\n"
    arguments = ("train", str(tiny_preset), "--run", "run", "patience=60")
    started = infogan.start_ranks(2, *arguments, before=note + IN_UPDATE_7.format(what=freeze))
    began = time.monotonic()
    ended = started[1].wait()
    started[0].signal(signal.SIGKILL)
    started[0].wait()
    assert time.monotonic() - began < 40
    assert ended.code == 1
    assert "ValueError: no luck" in told([ended])


def test_sigterm_ends_a_process_that_waits_for_another_outside_of_training(
    infogan: Any, arguments: tuple[str, ...]
) -> None:
    """Python calls no handler there."""
    late = "import infogan.run as r, time\nr.begin = lambda *a, **k: (open('begun', 'w'), time.sleep(1000))"
    started = infogan.start_ranks(2, *arguments, before=late)
    started[0].wait_for((infogan.folder / "begun").exists)
    began = time.monotonic()
    started[1].signal(signal.SIGTERM)
    ended = [process.wait() for process in started]
    assert time.monotonic() - began < 40
    assert [end.code for end in ended] == [143, 143]


def test_a_network_that_leads_nowhere_is_one_line(infogan: Any, arguments: tuple[str, ...]) -> None:
    ended = infogan.ranks(2, *arguments, GLOO_SOCKET_IFNAME="nosuch")
    assert [end.code for end in ended] == [2, 2]
    for end in ended:
        assert "could not meet the others at 127.0.0.1:" in end.error
        assert "GLOO_SOCKET_IFNAME" in end.error


@pytest.mark.slow
def test_torchrun_starts_all_again_where_one_was_killed(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]],
    checkpoints_of: Callable[[Path], list[str]],
) -> None:  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=1", "-m",
        "launch.train", "--", "own", "--run", "run", f"data.path={make_data(32, colour=True, images=40)}", "batch=8",
        "stop=40 updates", "device=cpu", "threads=1", "precision=fp32", "eval.every_kimg=null",
        "checkpoint.every_kimg=0.008",
    ]  # fmt: skip
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        told = environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
        launcher = subprocess.Popen(command, cwd=tmp_path, env=told, stdout=output, stderr=output)
    until = time.monotonic() + 120
    while not checkpoints_of(tmp_path / "run"):
        assert launcher.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    trainers = [p for p in psutil.Process(launcher.pid).children() if "launch.train" in p.cmdline()]
    next(process for process in trainers if process.environ()["RANK"] == "1").kill()
    assert launcher.wait(200) == 0, log.read_text()
    assert "resuming from run/checkpoints/" in log.read_text()
    assert checkpoints_of(tmp_path / "run")[-1] == "kimg-000000.320"
