"""What one run takes of a cluster."""

from dataclasses import dataclass

from infogan.checks import at_least
from slurm.cluster import megabytes, minutes


@dataclass(frozen=True)
class Shape:
    """What one run takes: `processes` on each of `nodes`; the rest, where given, instead of the cluster file's."""

    nodes: int = 1
    processes: int = 1
    time: str | None = None
    cpus_per_process: int | None = None
    gpus_per_process: int | None = None
    memory_per_process: str | None = None

    def __post_init__(self) -> None:
        at_least("nodes", self.nodes, 1)
        at_least("processes", self.processes, 1)
        if self.cpus_per_process is not None:
            at_least("cpus_per_process", self.cpus_per_process, 1)
        if self.gpus_per_process is not None:
            at_least("gpus_per_process", self.gpus_per_process, 0)
        if self.time is not None:
            minutes(self.time)
        if self.memory_per_process is not None:
            megabytes(self.memory_per_process)
