"""The number of processes, of micro-batches and the way a run is started change nothing in what is learned."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

BIN = Path(sys.executable).parent

# Weights of 20 updates without BatchNorm in float64: what is left is the order in which sums are added up.
EXACT = ("network.norm=none", "precision=fp64", "stop=20 updates", "checkpoint.every_kimg=1000")


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
    for ended in infogan.ranks(processes, "train", str(tiny_preset), "--run", "many", *EXACT, *extra):
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


def wait_for(launcher: subprocess.Popen[bytes], log: Path, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert launcher.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)


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


def test_the_signal_of_a_cluster_to_the_launcher_stops_all_after_saving(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]]
) -> None:
    """Started as a module, with a plugin of that name before the preset: what the processes are told is click's."""
    (tmp_path / "train").mkdir()
    plugin = tmp_path / "train" / "more.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom infogan.objectives import OBJECTIVES, NonSaturating\n"
        "@OBJECTIVES.register('more')\n@dataclass(frozen=True)\nclass More(NonSaturating): ...\n"
    )
    command = [
        sys.executable, "-m", "launch.train", "--plugin", str(plugin), "--processes", "2", "own", "--run", "two",
        f"data.path={make_data(32, colour=True, images=40)}", "batch=8", "stop=1000 updates", "device=cpu", "threads=1",
        "precision=fp32", "eval.every_kimg=null", "objective.name=more", "checkpoint.every_kimg=0.008",
    ]  # fmt: skip
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        launcher = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=output)
    wait_for(launcher, log, lambda: bool(list((tmp_path / "two").glob("checkpoints/kimg-*"))))
    trainers = psutil.Process(launcher.pid).children()
    launcher.send_signal(signal.SIGUSR2)
    assert launcher.wait(60) == 140, log.read_text()
    assert "stopped by SIGUSR2 at " in log.read_text()
    assert len(trainers) == 2
    assert psutil.wait_procs(trainers, 1)[1] == []


@pytest.fixture
def launched(
    tmp_path: Path, make_data: Callable[..., Path], environment: Callable[..., dict[str, str]]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A launcher of two processes of a long run in `tmp_path`/two, and what all of them print."""
    command = [
        sys.executable, "-m", "launch.train", "own", "--processes", "2", "--run", "two",
        f"data.path={make_data(32, colour=True, images=40)}", "batch=8", "stop=1000 updates", "device=cpu",
        "threads=1", "precision=fp32", "eval.every_kimg=null", "checkpoint.every_kimg=0.008", "patience=60",
    ]  # fmt: skip
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        launcher = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=output)
    yield launcher, log
    launcher.kill()
    launcher.wait()


def test_a_process_that_is_killed_before_the_others_met_it_is_told_by_the_launcher(
    launched: tuple[subprocess.Popen[bytes], Path],
) -> None:
    launcher, log = launched
    wait_for(launcher, log, lambda: len(psutil.Process(launcher.pid).children()) == 2)
    victim = psutil.Process(launcher.pid).children()[1]
    victim.kill()
    assert launcher.wait(60) == 75
    assert re.fullmatch(
        rf"error: rank [01] \(process {victim.pid}\) was ended by SIGKILL; all processes end here, .* resumes\n",
        log.read_text(),
    )


@pytest.mark.parametrize("who", ["process", "launcher"])
def test_a_kill_in_the_middle_of_training_is_told_once(
    launched: tuple[subprocess.Popen[bytes], Path], tmp_path: Path, who: str
) -> None:
    launcher, log = launched
    wait_for(launcher, log, lambda: bool(list((tmp_path / "two").glob("checkpoints/kimg-*"))))
    trainers = psutil.Process(launcher.pid).children()
    (trainers[1] if who == "process" else launcher).kill()
    assert psutil.wait_procs(trainers, 30)[1] == []
    launcher.wait(30)
    lines = log.read_text().splitlines()
    (error,) = [line for line in lines if line.startswith("error")]
    rule = (
        "gone or stopped: nothing was heard" if who == "process" else f"the launcher (process {launcher.pid}) is gone"
    )
    assert rule in error
    assert not [line for line in lines if "frame #" in line]


def test_a_number_of_processes_that_no_launcher_started_is_refused(infogan: Any, tiny_preset: Path) -> None:
    (started, *_) = infogan.start_ranks(2, "train", str(tiny_preset), "--run", "run", "--processes", "4")
    ended = started.wait()
    assert ended.code == 2
    assert "--processes 4, but a launcher has started 2 (WORLD_SIZE); leave --processes away" in ended.error


def test_a_run_started_on_4_processes_resumes_on_2_and_on_1(infogan: Any, alone: Path, tiny_preset: Path) -> None:
    for processes, updates in ((4, 8), (2, 14), (1, 20)):
        ended = infogan.ranks(processes, "train", str(tiny_preset), "--run", "moved", *EXACT, f"stop={updates} updates")
        assert [end.code for end in ended] == [0] * processes, ended
    assert furthest(infogan.folder / "moved", alone, "generator") < 1e-8
    assert furthest(infogan.folder / "moved", alone, "optimizer") < 1e-8


def test_with_batchnorm_synchronised_the_number_of_processes_changes_nothing(infogan: Any, tiny_preset: Path) -> None:
    exact = [setting for setting in EXACT if not setting.startswith("network.norm")]
    for processes in (1, 2, 4):
        arguments = ("train", str(tiny_preset), "--run", f"run{processes}", *exact, "sync_batchnorm=true")
        for ended in infogan.ranks(processes, *arguments):
            assert ended.code == 0, ended.output
    for processes in (2, 4):
        for name in ("generator", "critic", "ema", "optimizer"):
            assert furthest(infogan.folder / f"run{processes}", infogan.folder / "run1", name) < 1e-8, name


def test_two_machines_train_what_one_trains_to_the_bit(
    infogan: Any, tiny_preset: Path, left_by: Callable[[Path], Any]
) -> None:
    """Four processes, each started by itself, with the ranks that they have on one machine and on two; and as those
    tell each other who they are, so that one of the second machine speaks where the first is lost."""
    apart = (
        "import os, infogan.watch as w\nwho = w._who\n"
        "w._who = lambda: who() | {'machine': str(int(os.environ['RANK']) // int(os.environ['LOCAL_WORLD_SIZE']))}\n"
        "begin = w.Watch._begin\n"
        "w.Watch._begin = lambda self: (begin(self), open(f'deputy-{self.rank}', 'w').write(str(self._deputy)))[0]"
    )
    for nodes in (1, 2):
        arguments = ("train", str(tiny_preset), "--run", f"on{nodes}", "stop=20 updates")
        for ended in infogan.ranks(4, *arguments, nodes=nodes, before=apart):
            assert ended.code == 0, ended.output
        assert {(infogan.folder / f"deputy-{rank}").read_text() for rank in range(4)} == {str(nodes)}
    one, two = (left_by(infogan.folder / f"on{nodes}") for nodes in (1, 2))
    assert one.tensors == two.tensors
    assert one.rows == two.rows


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
    ended = infogan.ranks(2, "train", str(tiny_preset), "--run", "pair", "stop=1000 updates", before=tell)
    assert [end.code for end in ended] == [{"SIGTERM": 143, "SIGINT": 130}[name]] * 2, ended
    assert f"stopped by {name}" in ended[0].output
    assert ended[1].output == ""
    assert checkpoints_of(infogan.folder / "pair")


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest(infogan: Any, tiny_preset: Path) -> None:
    ended = infogan.ranks(2, "train", str(tiny_preset), "--run", "odd", "batch=9")
    assert [end.code for end in ended] == [2, 2]
    said = (
        "batch: 9: must be a multiple of processes x accumulation = 2 x 1; the nearest are 8 and 10, or keep it with "
    )
    assert said + "1 or 3 processes" in ended[0].error
    assert not (infogan.folder / "odd").exists()


def test_a_model_without_codes_trains_in_two_processes(infogan: Any, tiny_preset: Path) -> None:
    """A plain GAN: Q has no parameters, for which two processes would wait in vain for gradients."""
    plain = ("codes.kind=null", "codes.c1=null", "stop=3 updates")
    for ended in infogan.ranks(2, "train", str(tiny_preset), "--run", "plain", *plain):
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
    for run, before in (("whole", ""), ("parts", stopped), ("parts", "")):
        codes = [ended.code for ended in infogan.ranks(2, *arguments, "--run", run, before=before)]
        assert codes == ([143, 143] if before else [0, 0])
    logs = [(infogan.folder / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    whole, parts = (
        [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in log]
        for log in logs
    )
    assert whole == parts
