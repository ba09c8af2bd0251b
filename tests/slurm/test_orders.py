"""What a run is sent with: what its cluster file, its shape and its own config say of it."""

import os
from pathlib import Path
from typing import Any, Literal

import pytest

from slurm import job as jobs
from slurm.cluster import Cluster
from slurm.order import Order, order_for, share
from slurm.shape import Shape
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation
from slurm.supervisor import with_caches
from slurm.sweep import Run, Sweep


def sent(folder: Path, cluster: Cluster, shape: Shape) -> Order:
    run = Run("abc", {"seed": 0}, shape, "", "40 updates", "abc.yaml")
    return order_for(
        Sweep(folder, "mine", (run,), Evaluation()), run, cluster, Snapshot("c0de", folder / "code" / "c0de", ())
    )


def test_nodes_of_a_shape_are_processes_on_this_machine(tmp_path: Path) -> None:
    shape = Shape(nodes=2, processes=2)
    here = sent(tmp_path, Cluster(kind="local"), shape)
    assert (here.nodes, here.processes, here.world) == (1, 4, 4)
    Path(here.config).parent.mkdir(parents=True)
    Path(here.config).write_text("batch: 8\nthreads: null\n")
    assert share(here, 0, 1).training(launcher=True)[-2:] == ["--processes", "4"]
    there = sent(tmp_path, Cluster(), shape)
    assert (there.nodes, there.processes, there.world) == (2, 2, 4)


@pytest.mark.parametrize("kind", ["slurm", "local"])
def test_the_threads_that_a_config_says_are_the_runs_own_wherever_it_is_sent(
    tmp_path: Path, kind: Literal["slurm", "local"]
) -> None:
    order = sent(tmp_path, Cluster(kind=kind, cpus_per_process=6), Shape())
    Path(order.config).parent.mkdir(parents=True)
    for threads, said in ((None, True), (2, False)):
        Path(order.config).write_text(f"batch: 8\nthreads: {threads or 'null'}\n")
        dealt = share(order, 0, 1) if kind == "local" else order
        assert (f"threads={dealt.cpus}" in dealt.training(launcher=True)) == said
        assert any(word.startswith("threads=") for word in dealt.training(launcher=True)) == said


def test_no_start_of_a_job_meets_at_a_port_of_the_jobs_beside_it() -> None:
    starts = [(job, restart) for job in range(70990, 71060) for restart in range(jobs.STARTS)]
    ports = [jobs.port_of(*start) for start in starts]
    assert len(set(ports)) == len(starts)
    assert all(jobs.PORTS[0] <= port < jobs.PORTS[1] for port in ports)
    assert jobs.port_of(70990, 100) != jobs.port_of(70990, 101)


def order_of(folder: Path, **more: Any) -> Order:
    facts: dict[str, Any] = {
        "run_id": "abc", "sweep": str(folder), "folder": str(folder), "config": "", "run": str(folder / "run"),
        "code": "c0de", "plugins": (), "nodes": 1, "processes": 1, "cpus": 0, "gpus": 0,
        "time_s": 3600, "notice_s": 60, "requeue": "none", "timeouts": 100, "stop_if": (), "evaluate": None,
        "train": True, "environment": {}, "scratch": None,
    }  # fmt: skip
    return Order(**(facts | more))


# ---- on this machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "said", "processes", "devices"),
    [
        ("0,1,2,3", {}, 1, ["0", "1", "2"]),
        ("4,5,6,7", {}, 2, ["4,5", "6,7", "4,5"]),  # three runs of two share four
        ("0", {}, 2, [None] * 3),
        ("", {}, 1, [None] * 3),
        ("0,1,2,3", {"CUDA_VISIBLE_DEVICES": "3"}, 1, ["3"] * 3),
    ],
)
def test_runs_side_by_side_get_devices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    visible: str, said: dict[str, str], processes: int, devices: list[str | None],
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "config.yaml").write_text("batch: 8\nthreads: null\n")
    order = order_of(tmp_path, processes=processes, environment=said, config=str(tmp_path / "config.yaml"))
    found = [share(order, place, 3).environment.get("CUDA_VISIBLE_DEVICES") for place in range(3)]
    assert found == devices


def test_runs_side_by_side_share_the_cores_unless_their_config_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    config = tmp_path / "config.yaml"
    order = order_of(tmp_path, processes=2, config=str(config))
    config.write_text("batch: 8\nthreads: null\n")
    assert "threads=2" in share(order, 1, 4).training(launcher=True)
    assert "threads=1" in share(order, 1, 64).training(launcher=True)
    config.write_text("batch: 8\nthreads: 5\n")
    assert share(order, 1, 4).cpus == 5


def test_variables_in_an_environment_are_those_of_the_job(tmp_path: Path) -> None:
    order = order_of(
        tmp_path, environment={"X": "$TMPDIR/x", "Y": "${X}/y$NOWHERE", "PYTHONPATH": "/mine"}, code="c0de"
    )
    found = order.within({"TMPDIR": "/scratch", "PYTHONPATH": "/module"})
    assert (found["X"], found["Y"]) == ("/scratch/x", "/scratch/x/y")
    assert found["PYTHONPATH"] == f"{tmp_path}/code/c0de:/mine"
    assert order_of(tmp_path, code="c0de").within({"PYTHONPATH": "/module"})["PYTHONPATH"].endswith(":/module")


def test_what_an_environment_says_of_caches_holds() -> None:
    found = with_caches({"TRITON_CACHE_DIR": "/mine", "FAST": "/fast"}, "$FAST/caches")
    assert found["TRITON_CACHE_DIR"] == "/mine"
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith("/fast/caches/infogan-caches-")
