"""All that a job has to know of its run. It travels with the job, so that nothing edited later reaches it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slurm.cluster import Cluster, minutes
from slurm.runfolder import newest_checkpoint
from slurm.snapshot import Snapshot
from slurm.sweep import Run, Sweep


@dataclass(frozen=True)
class Order:
    """One run as it was sent. `sweep`: the sweep's folder; `folder`: where the command was given; `time_s`: the limit.

    `evaluate`: the options of `infogan evaluate`, or None where another job does that.
    """

    run_id: str
    sweep: str
    folder: str
    config: str
    run: str
    code: str
    plugins: tuple[str, ...]
    nodes: int
    processes: int
    cpus: int
    gpus: int
    time_s: int
    notice_s: int
    requeue: str
    timeouts: int
    stop_if: tuple[str, ...]
    evaluate: tuple[str, ...] | None
    train: bool
    environment: Mapping[str, str]
    scratch: str | None

    @property
    def world(self) -> int:
        return self.nodes * self.processes

    def training(self, *, launcher: bool) -> list[str]:
        """The command that trains the run; `launcher`: it starts its processes itself."""
        words = [sys.executable, "-m", "launch.train", "--config", self.config, "--run", self.run]
        words += [f"--plugin={plugin}" for plugin in self.plugins]
        words += [f"threads={self.cpus}"] if self.cpus else []
        return words + (["--processes", str(self.processes)] if launcher and self.processes > 1 else [])

    def evaluation(self) -> list[str]:
        """The command that evaluates the run."""
        words = [sys.executable, "-m", "launch.evaluate", self.run, *(self.evaluate or ())]
        return words + [f"--plugin={plugin}" for plugin in self.plugins]

    def progress(self) -> tuple[int, float]:
        """Images at the newest checkpoint, and when that was written."""
        return newest_checkpoint(Path(self.run))


def order_for(sweep: Sweep, run: Run, cluster: Cluster, snapshot: Snapshot, *, train: bool = True) -> Order:
    """The order for one run; with `train` unset, one that only evaluates."""
    shape = run.shape
    evaluating = not train or sweep.evaluate.when == "run"
    local = cluster.kind == "local"
    gpus = cluster.gpus_per_process if shape.gpus_per_process is None else shape.gpus_per_process
    return Order(
        run_id=run.id,
        sweep=str(sweep.folder.absolute()),
        folder=sweep.launched_from,
        config=str(sweep.config_file(run).absolute()),
        run=str(sweep.run_folder(run).absolute()),
        code=snapshot.digest,
        plugins=snapshot.plugins,
        nodes=shape.nodes,
        processes=shape.processes,
        cpus=0 if local else shape.cpus_per_process or cluster.cpus_per_process,
        gpus=0 if local else gpus,
        time_s=60 * minutes(shape.time or cluster.time),
        notice_s=cluster.preemption.notice_s if cluster.preemption.signal == "USR2" else 0,
        requeue="none" if local else cluster.preemption.requeue,
        timeouts=cluster.preemption.timeouts,
        stop_if=sweep.stop_if,
        evaluate=tuple(sweep.evaluate.words()) if evaluating else None,
        train=train,
        environment=environment(cluster, snapshot),
        scratch=cluster.scratch,
    )


def environment(cluster: Cluster, snapshot: Snapshot) -> dict[str, str]:
    """What every process of a job finds in its environment: the code first of all, whatever folder it starts in."""
    offline = {"INFOGAN_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if cluster.offline else {}
    return {**cluster.environment, **offline, "PYTHONPATH": str(snapshot.folder), "PYTHONSAFEPATH": "1"}
