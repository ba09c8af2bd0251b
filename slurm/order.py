"""All that a job has to know of its run. It travels with the job, so that nothing edited later reaches it."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slurm.cluster import Cluster, megabytes, minutes
from slurm.runfolder import newest_checkpoint
from slurm.shape import Shape
from slurm.sweep import Run, Sweep

if TYPE_CHECKING:
    from slurm.snapshot import Snapshot

_THREADS = re.compile(r"^threads: (\d+)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


@dataclass(frozen=True)
class Needs:
    """What a run takes of a cluster: `processes` on each of `nodes`; CPUs, GPUs and memory are per process."""

    nodes: int
    processes: int
    cpus: int
    gpus: int
    memory_mb: int | None
    minutes: int


def needs(shape: Shape, cluster: Cluster) -> Needs:
    """What a shape says, and the cluster file where that says nothing."""
    memory = shape.memory_per_process or cluster.memory_per_process
    return Needs(
        nodes=shape.nodes,
        processes=shape.processes,
        cpus=shape.cpus_per_process or cluster.cpus_per_process,
        gpus=cluster.gpus_per_process if shape.gpus_per_process is None else shape.gpus_per_process,
        memory_mb=megabytes(memory) if memory else None,
        minutes=minutes(shape.time or cluster.time),
    )


@dataclass(frozen=True)
class Order:
    """One run as it was sent. `sweep`: the sweep's folder; `folder`: where the command was given; `config`: a file that
    never changes; `code`: the digest of a snapshot; `time_s`: the limit.

    `evaluate`: the options of `infogan evaluate`, or None where another job does that. `cpus`, `gpus`: per process; 0
    on this machine, where they are dealt out.
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
        words += [f"threads={self.cpus}"] if self.cpus and threads_of(self.config) is None else []
        return words + (["--processes", str(self.processes)] if launcher and self.processes > 1 else [])

    def evaluation(self) -> list[str]:
        """The command that evaluates the run."""
        words = [sys.executable, "-m", "launch.evaluate", self.run, *(self.evaluate or ())]
        return words + [f"--plugin={plugin}" for plugin in self.plugins]

    def within(self, outside: Mapping[str, str]) -> dict[str, str]:
        """The environment of the run's processes on a machine whose own is `outside`, as a batch script makes it: the
        code first of all, whatever folder a process starts in."""
        found = dict(outside)
        for key, value in self.environment.items():
            found[key] = expanded(value, found)
        code = str(Path(self.sweep) / "code" / self.code)
        return {**found, "PYTHONPATH": os.pathsep.join(filter(None, (code, found.get("PYTHONPATH"))))}

    def progress(self) -> tuple[int, float]:
        """Images at the newest checkpoint, and when that was written."""
        return newest_checkpoint(Path(self.run))


def order_for(sweep: Sweep, run: Run, cluster: Cluster, snapshot: "Snapshot", *, train: bool = True) -> Order:
    """The order for one run; with `train` unset, one that only evaluates."""
    taken = needs(run.shape, cluster)
    evaluating = not train or sweep.evaluate.when == "run"
    local = cluster.kind == "local"
    # one machine, whatever the shape says of nodes
    nodes, processes = (1, taken.nodes * taken.processes) if local else (taken.nodes, taken.processes)
    return Order(
        run_id=run.id,
        sweep=str(sweep.folder.absolute()),
        folder=sweep.launched_from,
        config=str(sweep.config_file(run).absolute()),
        run=str(sweep.run_folder(run).absolute()),
        code=snapshot.digest,
        plugins=snapshot.plugins,
        nodes=nodes,
        processes=processes,
        cpus=0 if local else taken.cpus,
        gpus=0 if local else taken.gpus,
        time_s=60 * taken.minutes,
        notice_s=0 if local or cluster.preemption.signal == "none" else cluster.preemption.notice_s,
        requeue="none" if local else cluster.preemption.requeue,
        timeouts=cluster.preemption.timeouts,
        stop_if=sweep.stop_if,
        evaluate=tuple(sweep.evaluate.words()) if evaluating else None,
        train=train,
        environment=environment(cluster),
        scratch=cluster.scratch,
    )


def share(order: Order, place: int, places: int) -> Order:
    """The order of a run on this machine with what it gets of it, where `places` runs go at once: a GPU for each of its
    processes, and its part of the cores, unless the cluster file deals out GPUs, or the run's config says threads."""
    shown = order.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    there = [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
    devices = [device for device in shown.split(",") if device] if shown is not None else there
    given = {}
    if "CUDA_VISIBLE_DEVICES" not in order.environment and len(devices) >= order.processes:
        own = range(place * order.processes, (place + 1) * order.processes)
        given["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number % len(devices)] for number in own)
    says = threads_of(order.config) if order.train else None
    cores = len(os.sched_getaffinity(0)) // (places * order.processes)
    return replace(
        order,
        cpus=says or max(cores, 1),
        gpus=1 if devices else 0,
        environment={**order.environment, **given},
    )


def threads_of(config: str) -> int | None:
    """What a config says of threads; None where it leaves them open."""
    says = _THREADS.search(Path(config).read_text(encoding="utf-8"))
    return int(says[1]) if says else None


def environment(cluster: Cluster) -> dict[str, str]:
    """What every process of a job finds in its environment, beside the code."""
    offline = {"INFOGAN_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if cluster.offline else {}
    return {**cluster.environment, **offline, "PYTHONSAFEPATH": "1"}


def expanded(value: str, outside: Mapping[str, str]) -> str:
    """A value with `$NAME` and `${NAME}` replaced as a shell does it: by nothing where there is no such variable."""
    return _VARIABLE.sub(lambda match: outside.get(match[1].strip("{}"), ""), value)
