"""What a run is sent with: what its cluster file, its shape and its own config say of it."""

from pathlib import Path
from typing import Literal

import pytest

from slurm import job as jobs
from slurm.cluster import Cluster
from slurm.order import Order, order_for, share
from slurm.shape import Shape
from slurm.snapshot import Snapshot
from slurm.spec import Evaluation
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
