"""A sweep on this machine, without SLURM."""

import csv
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from infogan import settings
from shards.torchvision_ops import ensure_importable
from slurm import local
from slurm.attempts import Record
from slurm.cluster import Cluster
from slurm.metric_names import REPORTED, is_among, of_log, of_report
from slurm.order import Order
from slurm.shape import Shape
from slurm.spec import Evaluation
from slurm.sweep import Run, Sweep


@pytest.fixture
def sweep(lab: Any) -> Path:
    found: Path = lab.sweep(
        "here",
        fixed={"stop": "10 updates"},
        grid={"optimizer.critic.lr": [1e-4, 2e-4]},
        stop_if=["mi/kind < 100 after 0.3 kimg"],
        best={"metric": "mi/kind"},
    )
    return found


@pytest.mark.timeout(600)
def test_a_sweep_runs_here_is_sent_once_and_ends_in_a_table(lab: Any, sweep: Path) -> None:
    here = lab.cluster("here", kind="local", parallel=2)
    said = lab("sweep", "submit", sweep, "--cluster", here)
    assert said.count(": finished") == 2
    found = lab.status(sweep)
    assert [(run["state"], run["images"], run["progress"]) for run in found.values()] == [("finished", 80, 1.0)] * 2
    assert "nothing to submit" in lab("sweep", "submit", sweep, "--cluster", here)
    text = lab("sweep", "collect", sweep)
    assert "Best by log/mi/kind (higher): run " in text
    assert "| optimizer.critic.lr=0.0001 | 1 of 1 |" in text
    table = lab.folder / "sweeps" / "here" / "table"
    rows = {row["run"]: row for row in csv.DictReader((table / "sweep.csv").open())}
    for name, row in rows.items():
        log = (lab.run(sweep, name) / "metrics.jsonl").read_text().splitlines()
        assert float(row["log/mi/kind"]) == json.loads(log[-1])["mi/kind"]
        assert float(row["CPU_hours_wasted"]) == 0
        environment = json.loads((lab.run(sweep, name) / "environment.json").read_text())
        assert len(environment["starts"]) == 1
    page = (table / "sweep.html").read_text()
    assert "<script" not in page
    assert page.count("<polyline") >= 4
    files = [path for path in lab.run(sweep, next(iter(rows))).rglob("*") if path.is_file()]
    assert "0 runs in " in lab("sweep", "submit", sweep, "--cluster", here, "--dry-run")
    dry = lab("sweep", "submit", sweep, "--cluster", here, "--dry-run", "--out", "elsewhere")
    most = int(dry.partition("at most ")[2].split()[0])
    assert len([path for path in files if "tensorboard" not in path.parts]) <= most

    code = lab.plugin.read_text()
    lab.plugin.write_text(code + "\n# an edit\n")
    later = lab.sweep("here", fixed={"stop": "15 updates"}, grid={"optimizer.critic.lr": [2e-4]})
    said = lab("sweep", "submit", later, "--cluster", here, code=2)
    assert "the code has changed since 1 of these runs began (plugins/0/tiny_plugin.py)" in said
    assert "--code kept goes on" in said
    said = lab("sweep", "submit", later, "--cluster", here, "--code", "kept")
    assert said.count(": finished") == 1
    assert [run["images"] for run in lab.status(later).values()] == [120]


def test_what_went_wrong_is_told_and_a_repaired_run_is_sent_again(lab: Any, tiny_data: Path) -> None:
    sweep = lab.sweep("broken", fixed={"stop": "10 updates", "data.path": "nowhere"})
    here = lab.cluster("here", kind="local")
    lab("sweep", "submit", sweep, "--cluster", here, code=1)
    (run,) = lab.status(sweep).values()
    assert run["state"] == "failed"
    assert "nowhere" in run["message"]
    told = lab("sweep", "why", sweep, run["id"])
    assert told.startswith(f"run {run['id']} (seed=0): failed: error: ")
    said = lab("prepare", sweep, code=2)
    assert "nowhere: not there; build it" in said
    assert "no run has an id that begins so" in lab("sweep", "why", sweep, "zzz", code=2)
    (lab.folder / "nowhere").symlink_to(tiny_data)
    assert "1 runs fit their data" in lab("prepare", sweep)
    assert f"run {run['id']}: finished" in lab("sweep", "submit", sweep, "--cluster", here)
    (run,) = lab.status(sweep).values()
    assert (run["state"], run["images"], run["attempts"]) == ("finished", 80, 2)


def test_prepared_data_of_a_url_is_all_that_a_run_without_a_network_needs(
    lab: Any, tiny_data: Path, serve: Callable[[Path], Any]
) -> None:
    server = serve(tiny_data)
    there = {"data.path": server.url, "data.cache.path": str(lab.folder / "cache")}
    sweep = lab.sweep("far", fixed={"stop": "5 updates", **there})
    here = lab.cluster("here", kind="local")
    lab("sweep", "submit", sweep, "--cluster", here, code=1)
    (run,) = lab.status(sweep).values()
    assert "INFOGAN_OFFLINE is set" in run["message"]
    assert "all of it in" not in lab("prepare", sweep, "--cluster", lab.cluster("linked", offline=False))
    assert f"all of it in {lab.folder / 'cache'}" in lab("prepare", sweep)
    server.plan = lambda path, number: "drop"
    assert ": finished" in lab("sweep", "submit", sweep, "--cluster", here)


@pytest.mark.slow
def test_a_hopeless_run_is_ended_and_stays_so(lab: Any) -> None:
    sweep = lab.sweep("hopeless", fixed={"stop": "400 updates"}, stop_if=["mi/kind < 100 after 0.04 kimg"])
    here = lab.cluster("here", kind="local", environment={"TINY_PAUSE": "0.3"})
    said = lab("sweep", "submit", sweep, "--cluster", here)
    assert ": hopeless: mi/kind was " in said
    (run,) = lab.status(sweep).values()
    assert run["state"] == "hopeless"
    assert 40 <= run["images"] < 3200
    said = lab("sweep", "submit", sweep, "--cluster", here)
    assert f"1 runs are hopeless and stay so ({run['id']}); --rerun hopeless sends them again" in said


@pytest.mark.slow
def test_a_run_is_evaluated_by_the_job_that_trained_it_or_by_one_of_its_own(lab: Any) -> None:
    options = {"samples": 16, "only": ["information"]}
    sweep = lab.sweep("judged", fixed={"stop": "10 updates"}, evaluate={"when": "run", **options})
    here = lab.cluster("here", kind="local")
    assert "runs fit their data" in lab("prepare", sweep)
    lab("sweep", "submit", sweep, "--cluster", here)
    (name,) = lab.states(sweep)
    assert (lab.run(sweep, name) / "report" / "report.json").is_file()
    assert "mi/kind" in lab("sweep", "collect", sweep)
    other = lab.sweep("array", fixed={"stop": "10 updates"}, evaluate={"when": "array", **options})
    lab("sweep", "submit", other, "--cluster", here)
    assert not (lab.run(other, name) / "report" / "report.json").exists()
    lab("sweep", "evaluate", other, "--cluster", here)
    assert (lab.run(other, name) / "report" / "report.json").is_file()
    assert "no finished run is without a report" in lab("sweep", "evaluate", other, "--cluster", here)


@pytest.mark.timeout(600)
def test_every_number_that_a_run_leaves_is_among_those_that_it_was_said_to_have(lab: Any) -> None:
    said = ("eval.every_kimg=0.08", "objective={name: non_saturating, r1: 1.0}")
    lab("train", lab.base, "--run", "run", *said)
    lab("evaluate", "run", "--samples", "200")
    plain = yaml.safe_load((lab.folder / "run" / "config.yaml").read_text())
    config = settings.from_plain(plain | {"network": {"name": "mnist"}})  # tiny is not known here
    rows = [json.loads(line) for line in (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {name for row in rows for name in row}
    assert {"penalty/r1", "validation/accuracy/kind", "mi/c1/best_std"} <= logged
    assert [name for name in logged if not is_among(name, of_log(config))] == []
    report = json.loads((lab.folder / "run" / "report" / "report.json").read_text())
    assert report["options"] == {"weights": None, "only": []}
    names = [metric["name"] for metric in report["metrics"]]
    assert {"accuracy_test/kind", "mi/c1", "variation/c1"} <= set(names)
    assert [name for name in names if not is_among(name, of_report(config, "test"))] == []
    ensure_importable()
    from infogan.evaluation.families import FAMILIES

    assert set(REPORTED) == set(FAMILIES)


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> bool:
    """`run_all` of one run whose trainer is this Python."""
    (folder / "config.yaml").write_text("batch: 8\nthreads: 3\n")
    order = Order(
        run_id="abc", sweep=str(folder), folder=str(folder), config=str(folder / "config.yaml"),
        run=str(folder / "run"), code="c0de", plugins=(), nodes=1, processes=1, cpus=0, gpus=0, time_s=3600, notice_s=0,
        requeue="none", timeouts=100, stop_if=(), evaluate=(), train=True, environment={}, scratch=None,
    )  # fmt: skip
    monkeypatch.setattr(Order, "training", lambda order, launcher: [sys.executable, "-c", code])
    monkeypatch.setattr(Order, "evaluation", lambda order: [sys.executable, "-c", code])
    run = Run("abc", {}, Shape(), "", "40 updates")
    sweep = Sweep(folder, "here", (run,), Evaluation())
    turn = SimpleNamespace(note=lambda jobs: None, end=lambda: None)
    return local.run_all(sweep, [run], Cluster(kind="local"), lambda run: order, print, cast(Any, turn))


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_its_terminal_reaches_the_runs_unless_it_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    """The runs are in sessions of their own: nobody else would tell them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    saves = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "os.kill(os.getppid(), signal.SIGHUP)\n"
        f"time.sleep({0.2 if ignored else 60})\n"
    )
    try:
        assert run_here(tmp_path, monkeypatch, saves) == ignored
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
    (attempt,) = Record(tmp_path, "abc").attempts()
    assert attempt.outcome == ("finished" if ignored else "stopped")


def test_trainings_and_evaluations_here_keep_to_their_part_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_here(tmp_path, monkeypatch, "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert (tmp_path / "logs" / "abc.log").read_text() == "3\n3\n"
