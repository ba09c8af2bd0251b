"""Real processes that train, and the means to compare what they leave behind."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# What would make a test depend on the shell that it was started from.
FOREIGN = ("ACCELERATE_", "INFOGAN_", "MASTER_", "WORLD_SIZE", "RANK", "LOCAL_", "SLURM_", "TORCHELASTIC_")


def clean_environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": "/nonexistent"} | more


@dataclass
class Ended:
    """How a process ended: its exit code (minus the signal's number where one killed it), and all that it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """The only line that begins with `error:` or `error (rank n):`; no traceback may stand beside it."""
        assert "Traceback" not in self.output, self.output
        lines = [line for line in self.output.splitlines() if line.startswith(("error: ", "error (rank "))]
        assert len(lines) == 1, self.output
        return lines[0]


@dataclass
class Started:
    """A process that is under way."""

    pid: int
    log: Path
    _wait: Callable[[int], int]

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        return Ended(self._wait(self.pid), self.output())

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Until `condition` holds; fails where it never does."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.output()
            time.sleep(0.002)


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


@dataclass
class Infogan:
    """The command `infogan`, run by tests/promises/server.py in the folder `folder`."""

    server: subprocess.Popen[str]
    folder: Path
    started: int = field(default=0)

    def start(self, *arguments: str, before: str = "", **environment: str) -> Started:
        """Begin; `before` is Python that runs in the process first."""
        self.started += 1
        log = self.folder / f"output-{self.started}.txt"
        request = {
            "arguments": arguments, "before": before, "environment": environment,
            "folder": str(self.folder), "output": str(log),
        }  # fmt: skip
        return Started(self._ask(request), log, lambda pid: self._ask({"wait": pid}))

    def __call__(self, *arguments: str, before: str = "", **environment: str) -> Ended:
        """Run to the end."""
        return self.start(*arguments, before=before, **environment).wait()

    def start_ranks(
        self, processes: int, *arguments: str, nodes: int = 1, before: str = "", **environment: str
    ) -> list[Started]:
        """Begin one run in so many processes, each started by itself as torchrun starts them on so many machines."""
        here = processes // nodes
        shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(here)}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | environment
        return [
            self.start(*arguments, before=before, RANK=str(rank), LOCAL_RANK=str(rank % here), **shared)
            for rank in range(processes)
        ]

    def ranks(
        self, processes: int, *arguments: str, nodes: int = 1, before: str = "", **environment: str
    ) -> list[Ended]:
        """Run so many processes to the end."""
        return [
            started.wait()
            for started in self.start_ranks(processes, *arguments, nodes=nodes, before=before, **environment)
        ]

    def good(self, *arguments: str, before: str = "", **environment: str) -> str:
        """Run to an end without error; what was printed."""
        ended = self(*arguments, before=before, **environment)
        assert ended.code == 0, ended.output
        return ended.output

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@contextmanager
def serving(*modules: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The server, with `modules` imported too."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "server.py"), *modules], env=clean_environment(**environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as server:  # fmt: skip
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(scope="session")
def _server() -> Iterator[subprocess.Popen[str]]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def deepspeed_in() -> Iterator[Callable[[Path], Infogan]]:
    """The command in a folder of one's choice, in processes that have DeepSpeed imported."""
    # the second is what it imports late, and with it torch's compiler
    with serving("deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", DS_ACCELERATOR="cpu") as server:
        yield lambda folder: Infogan(server, folder)


@pytest.fixture
def infogan(_server: subprocess.Popen[str], tmp_path: Path) -> Infogan:
    return Infogan(_server, tmp_path)


@pytest.fixture(scope="session")
def infogan_in(_server: subprocess.Popen[str]) -> Callable[[Path], Infogan]:
    """The command in a folder of one's choice."""
    return lambda folder: Infogan(_server, folder)


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """The environment for a process that a test starts by itself."""
    return clean_environment


@pytest.fixture(scope="session")
def tiny_preset(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a run of seconds: 40 updates of 8 with one row per 5 and one checkpoint per 10."""
    path = tmp_path_factory.mktemp("presets") / "tiny.yaml"
    path.write_text(
        f"data: {{path: {tiny_data}}}\n"
        "codes:\n"
        "  kind: {kind: categorical, ways: 3}\n"
        "  c1: {kind: continuous, std: learned}\n"
        "noise: {size: 6}\n"
        "network: {name: tiny}\n"
        "batch: 8\n"
        "stop: 40 updates\n"
        "precision: fp32\n"
        "device: cpu\n"
        "threads: 1\n"
        "log: {every_kimg: 0.04}\n"
        "checkpoint: {every_kimg: 0.08}\n"
        "eval: {every_kimg: null}\n"
    )
    return path


@pytest.fixture(scope="session")
def tiny_run(_server: subprocess.Popen[str], tiny_preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny preset. Not to be changed: copy it to break it."""
    folder = tmp_path_factory.mktemp("finished")
    Infogan(_server, folder).good("train", str(tiny_preset), "--run", "tiny")
    return folder / "tiny"


@dataclass
class Left:
    """What a run left behind that has to be equal to the bit: tensors, logged numbers, and where it stands."""

    tensors: dict[str, bytes]
    rows: list[dict[str, Any]]
    state: dict[str, Any]


def read_tensors(folder: Path) -> dict[str, bytes]:
    return {
        f"{path.name}/{name}": value.tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def checkpoint_names(run: Path) -> list[str]:
    parent = run / "checkpoints"
    return sorted(path.name for path in parent.iterdir() if not path.name.startswith(".")) if parent.is_dir() else []


@pytest.fixture(scope="session")
def read_tensors_of() -> Callable[[Path], dict[str, bytes]]:
    """Every tensor of a folder of safetensors files: `<file>/<tensor>` -> its bytes."""
    return read_tensors


@pytest.fixture(scope="session")
def checkpoints_of() -> Callable[[Path], list[str]]:
    """The names of a run's checkpoints, oldest first."""
    return checkpoint_names


@pytest.fixture(scope="session")
def left_by() -> Callable[[Path], Left]:
    """Reads a finished run. The bytes of its log depend on how its times happen to be written: left out."""

    def read(run: Path) -> Left:
        last = run / "checkpoints" / checkpoint_names(run)[-1]
        tensors = {f"checkpoint/{name}": value for name, value in read_tensors(last).items()}
        tensors |= {f"export/{name}": value for name, value in read_tensors(run / "export").items()}
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
        state = json.loads((last / "state.json").read_text())
        del state["log_bytes"], state["format"]
        return Left(tensors, rows, state)

    return read
