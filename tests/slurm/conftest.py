"""A real SLURM cluster, sweeps of tiny runs on it or on this machine, and what such runs come to undisturbed; for what
needs none of that, programs of SLURM's names, and a command that sends nothing."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from shards.errors import UserError
from slurm import local
from slurm.order import Order
from slurm.sweep import Run, Sweep
from slurm.verbs import sweep_group

HERE = Path(__file__).resolve().parent
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "unshare")


def _promises() -> Any:
    """Real processes that train, as tests/promises/ starts and reads them."""
    spec = importlib.util.spec_from_file_location("promises_of_slurm", HERE.parent / "promises" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


promises = _promises()
_server, infogan_in, left_by = promises._server, promises.infogan_in, promises.left_by

PLUGIN_END = """

import os, time
from infogan.learner import Learner
from infogan.networks import NETWORKS

NETWORKS.register("tiny")(TinyNetwork)
# A run of the tiny preset takes a fraction of a second; a pause in every update lets things happen in it.
pause = float(os.environ.get("TINY_PAUSE", "0"))
update = Learner.update
Learner.update = lambda self, parts, images: (time.sleep(pause), update(self, parts, images))[1]
"""


# The process that all commands are forked from knows the tiny network; a sweep's jobs get it by the plugin alone.
FORGET = """
from infogan.networks import NETWORKS
from shards import plugins
del NETWORKS._entries["tiny"]
plugins._known.clear()
"""


@dataclass
class Lab:
    """A folder in which sweeps of tiny runs are made, and the commands for it."""

    infogan: Any
    folder: Path
    plugin: Path
    base: Path
    environment: dict[str, str] = field(default_factory=dict)

    def sweep(self, name: str, **spec: Any) -> Path:
        """A sweep file; its folder will be sweeps/NAME."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"base": str(self.base), **spec}))
        return path

    def cluster(self, name: str, **more: Any) -> Path:
        """A cluster file of CPU processes, one CPU each."""
        path = self.folder / f"cluster-{name}.yaml"
        path.write_text(yaml.safe_dump({"gpus_per_process": 0, "cpus_per_process": 1, **more}))
        return path

    def __call__(self, *words: object, code: int = 0) -> str:
        """Run `infogan WORDS` to its end; what it printed."""
        ended = self.infogan(f"--plugin={self.plugin}", *map(str, words), before=FORGET, **self.environment)
        said: str = ended.output
        assert ended.code == code, said
        assert "Traceback" not in said
        return said

    def sbatch(self, *words: str) -> None:
        """Send a job that is none of ours."""
        environment = promises.clean_environment(**self.environment)
        subprocess.run(["sbatch", "--output=/dev/null", *words], env=environment, check=True, cwd=self.folder)

    def status(self, sweep: Path) -> dict[str, dict[str, Any]]:
        """`sweep status --json` by run."""
        return {run["id"]: run for run in json.loads(self("sweep", "status", sweep, "--json"))["runs"]}

    def states(self, sweep: Path) -> dict[str, str]:
        return {name: run["state"] for name, run in self.status(sweep).items()}

    def wait(self, sweep: Path, condition: Callable[[dict[str, dict[str, Any]]], bool], seconds: float = 240) -> None:
        """Until what `status` says of the runs fulfils a condition; with the logs where it never does."""
        until = time.monotonic() + seconds
        while not condition(found := self.status(sweep)):
            assert time.monotonic() < until, self.story(found)
            time.sleep(1)

    def story(self, runs: dict[str, dict[str, Any]]) -> str:
        logs = [Path(run["log"]).read_text()[-3000:] for run in runs.values() if run["log"]]
        return "\n\n".join([json.dumps(runs, indent=1), *logs])

    def run(self, sweep: Path, name: str) -> Path:
        return self.folder / "sweeps" / sweep.stem / "runs" / name

    def attempts(self, sweep: Path, name: str) -> list[dict[str, Any]]:
        """The ends of a run's attempts."""
        path = self.folder / "sweeps" / sweep.stem / "attempts" / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["event"] == "end"]


@pytest.fixture
def lab(tmp_path: Path, tiny_data: Path, infogan_in: Callable[[Path], Any]) -> Lab:
    """Tiny runs of 40 updates on this machine."""
    plugin = tmp_path / "tiny_plugin.py"
    plugin.write_text((HERE.parent / "tiny.py").read_text() + PLUGIN_END)
    base = tmp_path / "tiny.yaml"
    base.write_text(
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
        "check_interval: 0.5\n"
        "log: {every_kimg: 0.04}\n"
        "checkpoint: {every_kimg: 0.08}\n"
        "eval: {every_kimg: null}\n"
    )
    return Lab(infogan_in(tmp_path), tmp_path, plugin, base)


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[Path]:
    """The configuration of a three-node cluster that runs while tests do."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no SLURM here: {', '.join(missing)} not found (tests/slurm/cluster.sh names the packages)")
    if os.geteuid() != 0:
        pytest.skip("a cluster on one machine needs root, for the names of its nodes")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
    script = str(HERE / "cluster.sh")
    environment = promises.clean_environment()
    try:
        subprocess.run([script, "up", str(folder)], check=True, timeout=240, env=environment)
        yield folder / "etc" / "slurm.conf"
    finally:
        subprocess.run([script, "down", str(folder)], check=True, timeout=120, env=environment)


@pytest.fixture
def cluster_lab(lab: Lab, slurm_conf: Path) -> Lab:
    """Tiny runs on the real cluster."""
    lab.environment["SLURM_CONF"] = str(slurm_conf)
    return lab


@pytest.fixture
def undisturbed(
    infogan_in: Callable[[Path], Any], left_by: Callable[[Path], Any]
) -> Callable[[Lab, Path, str, int], Any]:
    """What a run of a sweep leaves behind when it is trained in so many processes of one machine without a break."""

    def train(lab: Lab, sweep: Path, name: str, processes: int) -> Any:
        infogan = infogan_in(lab.folder)
        (config,) = (lab.folder / "sweeps" / sweep.stem / "configs").glob(f"{name}-*.yaml")
        words = ("train", str(config), "--run", f"undisturbed-{name}", "threads=1")
        if processes == 1:
            infogan.good(*words)
        else:
            port = str(20000 + os.getpid() % 10000)
            many = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
            started = [
                infogan.start(*words, MASTER_PORT=port, RANK=str(rank), LOCAL_RANK=str(rank), **many)
                for rank in range(processes)
            ]
            for process in started:
                ended = process.wait()
                assert ended.code == 0, ended.output
        return left_by(lab.folder / f"undisturbed-{name}")

    return train


# ---- SLURM's programs --------------------------------------------------------------------------------------------


class Slurm:
    """Programs of SLURM's names that say what a test wants, and write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for program in ("squeue", "sacct", "scancel"):
            self.says(program)

    def says(self, program: str, *lines: str, code: int = 0, error: str = "", wait: float = 0) -> None:
        path = self.folder / program
        text = "\n".join(("JOBID|STATE|REASON", *lines) if program == "squeue" and not code else lines)
        path.write_text(
            f'#!/bin/sh\necho "$@" >> {path}.calls\n[ {wait} = 0 ] || exec sleep {wait}\n'
            f"cat <<'END'\n{text}\nEND\necho '{error}' >&2\nexit {code}\n"
        )
        path.chmod(0o755)

    def gone(self, program: str) -> None:
        (self.folder / program).unlink()

    def absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither is a real one found."""
        monkeypatch.setenv("PATH", str(self.folder))
        for program in ("squeue", "sacct", "scancel"):
            self.gone(program)

    def calls(self, program: str) -> list[str]:
        path = self.folder / f"{program}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    found = Slurm(tmp_path / "bin")
    for program in ("squeue", "sacct", "scancel"):  # also where the real ones are installed
        assert subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.startswith(
            str(tmp_path)
        )
    return found


# ---- the command -----------------------------------------------------------------------------------------------


class Desk:
    """`infogan sweep submit` of a sweep of two seeds, with what it would run here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.orders = folder, dict[str, Order]()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(local, "run_all", self._run_all)
        self.spec(stop="40 updates")

    def _run_all(self, sweep: Sweep, runs: Sequence[Run], where: Any, order: Any, say: Any, turn: Any) -> bool:
        self.orders = {run.id: order(run) for run in runs}
        turn.note({run.id: "local-1" for run in runs})
        turn.end()
        return True

    def spec(self, *, stop: str, more: str = "") -> None:
        text = f"base: paper/mnist\nfixed: {{stop: {stop}}}\nseeds: 2\nstop_if: ['mi/digit < 1 after 1 kimg']\n{more}"
        (self.folder / "mine.yaml").write_text(text)

    def __call__(self, *words: str, code: int = 0) -> str:
        where = ["--cluster", "local"] if "--cluster" not in words else []
        ended = CliRunner().invoke(sweep_group, ["submit", "mine.yaml", *where, *words])
        if isinstance(ended.exception, UserError):
            assert code == 2
            return str(ended.exception)
        assert ended.exit_code == code, (ended.output, ended.exception)
        return ended.output

    def ends(self, run: str, outcome: str) -> None:
        """Let a run's last job have ended so."""
        path = self.folder / "sweeps" / "mine" / "attempts" / f"{run}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [{"event": "begin", "job": "local-1"}, {"event": "end", "job": "local-1", "outcome": outcome}]
        path.write_text("".join(json.dumps({"time": n, **line}) + "\n" for n, line in enumerate(lines)))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)
