"""Sweeps on a real SLURM cluster of three nodes: interrupted in every way, they end as if nothing had happened."""

import csv
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

HERE = Path(__file__).resolve().parent
TAKES_ALL_NODES = ("--partition=high", "--nodes=3", "--exclusive", "--time=1", "--wrap=true")


def finished(runs: dict[str, dict[str, Any]]) -> bool:
    return {run["state"] for run in runs.values()} == {"finished"}


def assert_equal(found: Any, expected: Any, how: str) -> None:
    differing = [name for name, data in found.tensors.items() if data != expected.tensors[name]]
    assert found.tensors.keys() == expected.tensors.keys()
    assert not differing, f"{how}: {differing}"
    assert found.rows == expected.rows, how


def trains(runs: dict[str, dict[str, Any]]) -> bool:
    """Whether every run is under way and has something to lose."""
    return all(run["state"] == "running" and run["images"] > 0 for run in runs.values())


def trainer(run: Path, rank: int) -> psutil.Process:
    """The process that trains one rank of a run on this machine."""
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if "launch.train" in words and str(run) in words and environment.get("RANK") == str(rank):
            return process
    raise AssertionError(f"nobody trains rank {rank} of {run}")


def kill_node(run: Path, rank: int) -> str:
    """Kill all processes of the node that trains a rank, as a loss of power does: they share the name of a machine, as
    a namespace; that name."""
    training = trainer(run, rank)
    node: str = training.environ()["SLURMD_NODENAME"]
    space = os.readlink(f"/proc/{training.pid}/ns/uts")
    assert space != os.readlink("/proc/self/ns/uts")
    theirs = []
    for pid in psutil.pids():
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/uts") == space:
                theirs.append(pid)
    for pid in theirs:  # parents first, and with nothing between: none has the time to tell of another's end
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return node


def test_a_sweep_is_sent_watched_and_collected(cluster_lab: Any, undisturbed: Callable[..., Any], left_by: Any) -> None:
    lab = cluster_lab
    sweep = lab.sweep("quick", fixed={"stop": "10 updates"})
    cluster = lab.cluster("quick")
    assert "1 runs sent" in lab("sweep", "submit", sweep, "--cluster", cluster)
    lab.wait(sweep, finished)
    (name,) = lab.states(sweep)
    assert_equal(left_by(lab.run(sweep, name)), undisturbed(lab, sweep, name, 1), "on the cluster")
    assert "nothing to submit" in lab("sweep", "submit", sweep, "--cluster", cluster)
    table = lab("sweep", "collect", sweep)
    assert "| all | 1 of 1 |" in table
    assert (lab.folder / "sweeps" / "quick" / "table" / "sweep.html").is_file()
    told = lab("sweep", "why", sweep, name)
    assert f"run {name} (seed=0): finished" in told
    assert "CPUs " in told


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_preemption_time_limits_a_kill_and_a_cancellation_change_no_bit(
    cluster_lab: Any, undisturbed: Callable[..., Any], left_by: Any
) -> None:
    """2 values x 4 seeds on 2 tasks each; every run meets a preemption or worse, and time limits after that."""
    lab = cluster_lab
    sweep = lab.sweep(
        "interrupted",
        fixed={"stop": "80 updates"},
        grid={"optimizer.critic.lr": [1e-4, 2e-4]},
        seeds=4,
        shape={"processes": 2, "time": 3},
    )
    cluster = lab.cluster("low", partition="low", environment={"TINY_PAUSE": "1.5"}, preemption={"notice_s": 60})
    said = lab("sweep", "submit", sweep, "--cluster", cluster)
    assert "6 runs on 1 x 2 processes" in said  # the cluster's MaxArraySize
    assert "2 runs on 1 x 2 processes" in said
    lab.wait(sweep, trains)
    killed, cancelled, *others = lab.states(sweep)
    trainer(lab.run(sweep, killed), rank=1).kill()
    assert f"1 runs cancelled: {cancelled}" in lab("sweep", "cancel", sweep, cancelled)
    lab.sbatch(*TAKES_ALL_NODES)

    lab.wait(sweep, lambda runs: [runs[name]["state"] for name in (killed, cancelled)] == ["killed", "cancelled"])
    assert "rank 1: the training process was ended by SIGKILL" in lab.status(sweep)[killed]["message"]
    said = lab("sweep", "submit", sweep, "--cluster", cluster)
    assert f"1 runs are cancelled and stay so ({cancelled})" in said
    assert "1 runs sent" in said
    assert "1 runs sent" in lab("sweep", "submit", sweep, "--cluster", cluster, "--rerun", "cancelled")
    lab.wait(sweep, finished, seconds=800)
    assert "nothing to submit" in lab("sweep", "submit", sweep, "--cluster", cluster)

    ways = {name: Counter(attempt["outcome"] for attempt in lab.attempts(sweep, name)) for name in lab.states(sweep)}
    assert all(ways[name]["preempted"] for name in others), ways
    assert sum(way["timed out"] for way in ways.values()) >= 2, ways
    for name in ways:
        how = f"run {name}: {dict(ways[name])}"
        assert_equal(left_by(lab.run(sweep, name)), undisturbed(lab, sweep, name, 2), how)

    table = lab("sweep", "collect", sweep, "--by", "mi/kind")
    assert "| optimizer.critic.lr=0.0002 | 4 of 4 |" in table
    rows = list(csv.DictReader((lab.folder / "sweeps" / "interrupted" / "table" / "sweep.csv").open()))
    assert [row["state"] for row in rows] == ["finished"] * 8
    assert all(float(row["CPU_hours"]) > float(row["CPU_hours_wasted"]) >= 0 for row in rows)
    assert any(float(row["CPU_hours_wasted"]) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [1, 0])
def test_a_node_that_fails_costs_no_bit(
    cluster_lab: Any, undisturbed: Callable[..., Any], left_by: Any, rank: int
) -> None:
    """All that runs on one of two nodes is killed at once, its slurmd too: the run goes on, on others. Rank 0's node is
    where the batch script and srun are."""
    lab = cluster_lab
    sweep = lab.sweep("gone", fixed={"stop": "60 updates", "patience": 5}, shape={"nodes": 2})
    lab("sweep", "submit", sweep, "--cluster", lab.cluster("gone", environment={"TINY_PAUSE": "1"}))
    lab.wait(sweep, lambda runs: trains(runs) and all(run["images"] > 80 for run in runs.values()))
    (name,) = lab.states(sweep)
    node = kill_node(lab.run(sweep, name), rank)
    try:
        lab.wait(sweep, finished, seconds=300)
    finally:
        folder = Path(lab.environment["SLURM_CONF"]).parent.parent
        subprocess.run([str(HERE / "cluster.sh"), "node", str(folder), node], check=True, timeout=90)
    ends = lab.attempts(sweep, name)
    assert [(end["outcome"], end["requeued"]) for end in ends] == [("node failure", True), ("finished", False)]
    assert f"rank {rank} " in ends[0]["message"]
    assert ends[0]["images_after"] > 0
    assert_equal(left_by(lab.run(sweep, name)), undisturbed(lab, sweep, name, 2), "a node failed")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_on_each_of_two_nodes_are_four_on_one(
    cluster_lab: Any, undisturbed: Callable[..., Any], left_by: Any
) -> None:
    lab = cluster_lab
    sweep = lab.sweep("nodes", fixed={"stop": "20 updates"}, shape={"nodes": 2, "processes": 2})
    lab("sweep", "submit", sweep, "--cluster", lab.cluster("nodes"))
    lab.wait(sweep, finished)
    (name,) = lab.states(sweep)
    logs = sorted((lab.folder / "sweeps" / "nodes" / "jobs").glob("*_log.out"))
    hosts = {
        line.split(" on ")[1].split(",")[0] for log in logs for line in log.read_text().splitlines() if "rank " in line
    }
    assert len(hosts) == 2, hosts
    assert_equal(left_by(lab.run(sweep, name)), undisturbed(lab, sweep, name, 4), "2 nodes x 2 processes")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_gives_no_notice_and_has_no_scontrol_on_its_nodes_loses_nothing(
    cluster_lab: Any, undisturbed: Callable[..., Any], left_by: Any
) -> None:
    """No user signal, no grace time: SIGTERM, and 5 seconds later SIGKILL. SLURM requeues."""
    lab = cluster_lab
    tools = lab.folder / "tools"
    tools.mkdir()
    for name in ("srun", "bash", "nice"):
        (tools / name).symlink_to(Path(subprocess.check_output(["which", name], text=True).strip()))
    sweep = lab.sweep("abrupt", fixed={"stop": "30 updates"})
    cluster = lab.cluster(
        "abrupt", partition="abrupt", environment={"TINY_PAUSE": "1", "PATH": str(tools)}, preemption={"signal": "none"}
    )
    lab("sweep", "submit", sweep, "--cluster", cluster)
    lab.wait(sweep, trains)
    lab.sbatch(*TAKES_ALL_NODES)
    lab.wait(sweep, finished)
    (name,) = lab.states(sweep)
    assert [attempt["outcome"] for attempt in lab.attempts(sweep, name)][-1] == "finished"
    assert "restart 1" in lab("sweep", "why", sweep, name)
    assert_equal(left_by(lab.run(sweep, name)), undisturbed(lab, sweep, name, 1), "preempted without notice")


def test_fewer_cpus_than_asked_for_are_refused(cluster_lab: Any) -> None:
    """The nodes claim eight CPUs each; where the machine has fewer, a job that asks for eight does not train."""
    lab = cluster_lab
    if len(os.sched_getaffinity(0)) >= 8:
        pytest.skip("this machine has all the CPUs that the nodes claim")
    sweep = lab.sweep("narrow", shape={"cpus_per_process": 8})
    lab("sweep", "submit", sweep, "--cluster", lab.cluster("narrow"))
    lab.wait(sweep, lambda runs: all(run["state"] == "failed" for run in runs.values()))
    (run,) = lab.status(sweep).values()
    assert f"8 CPUs per process were asked for and this one may use {len(os.sched_getaffinity(0))}" in run["message"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_submission_killed_between_sbatch_and_its_note_sends_nothing_twice(cluster_lab: Any) -> None:
    lab = cluster_lab
    tools = lab.folder / "tools"
    tools.mkdir()
    real = subprocess.check_output(["which", "sbatch"], text=True).strip()
    (tools / "sbatch").write_text(f'#!/bin/sh\n{real} "$@" && kill -KILL $PPID\n')
    (tools / "sbatch").chmod(0o755)
    sweep, cluster = lab.sweep("cut", fixed={"stop": "10 updates"}, seeds=3), lab.cluster("cut")
    lab.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    lab("sweep", "submit", sweep, "--cluster", cluster, code=-signal.SIGKILL)
    lab.environment["PATH"] = os.environ["PATH"]
    said = lab("sweep", "submit", sweep, "--cluster", cluster)
    assert "3 runs, sent by a submission that was cut off, are known now" in said
    assert "nothing to submit" in said
    lab.wait(sweep, finished)
    assert [len(lab.attempts(sweep, name)) for name in lab.states(sweep)] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_of_a_folder_that_was_removed_are_found_in_the_queue(cluster_lab: Any) -> None:
    lab = cluster_lab
    sweep, cluster = (
        lab.sweep("lost", fixed={"stop": "10 updates"}, seeds=2),
        lab.cluster("lost", sbatch={"hold": True}),
    )
    assert "2 runs sent" in lab("sweep", "submit", sweep, "--cluster", cluster)
    shutil.rmtree(lab.folder / "sweeps" / "lost")
    said = lab("sweep", "submit", sweep, "--cluster", cluster, code=2)
    number = said.partition("nothing was sent; scancel ")[2].split()[0]
    environment = {**os.environ, **lab.environment}
    subprocess.run(["scancel", number], env=environment, check=True)
    assert "2 runs sent" in lab("sweep", "submit", sweep, "--cluster", cluster)
    assert "2 runs cancelled" in lab("sweep", "cancel", sweep)
