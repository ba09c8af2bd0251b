"""What a cluster is: `configs/clusters/*.yaml`, or a file of the user's, checked into a `Cluster`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infogan import sections
from infogan.checks import at_least
from shards.errors import UserError

OURS = {
    "account": "account", "array": "parallel and array_size", "chdir": "", "constraint": "constraint",
    "cpus-per-task": "cpus_per_process", "dependency": "", "error": "", "gpus-per-node": "gpus_per_process",
    "job-name": "name in the sweep file", "mem": "memory_per_process", "no-requeue": "preemption.requeue",
    "nodes": "shape.nodes in the sweep file", "ntasks-per-node": "shape.processes in the sweep file", "output": "",
    "open-mode": "", "partition": "partition", "qos": "qos", "requeue": "preemption.requeue",
    "signal": "preemption.signal and preemption.notice_s", "time": "time",
}  # fmt: skip
"""What `sbatch:` may not say, and the key that says it, where there is one; the rest passes through."""

BARRED = (
    "cluster", "clusters", "gid", "help", "parsable", "quiet", "test-only", "uid", "usage", "version", "wait", "wrap",
)  # fmt: skip
"""Nor these: with them sbatch returns late, prints something else, or sends to where we do not ask, or for another."""

_WHOLE = ("gpus", "ntasks")  # options of sbatch, though others of ours begin so
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Preemption:
    """What happens before SLURM takes a run's machines away, and after.

    `signal`: what SLURM is asked to send `notice_s` seconds before the time limit and, where it is set up so, at
    preemption; `TERM` and `none` suit clusters that send SIGTERM or nothing. `requeue`: `submitit` has the job put
    itself back by `scontrol requeue`, `slurm` leaves that to SLURM (which never does it after a time limit), `none`
    leaves it to the next `infogan sweep submit`. `timeouts`: how many time limits one run may meet.
    """

    signal: Literal["USR2", "TERM", "none"] = "USR2"
    notice_s: int = 120
    requeue: Literal["submitit", "slurm", "none"] = "submitit"
    timeouts: int = 100

    def __post_init__(self) -> None:
        at_least("notice_s", self.notice_s, 10, below=65536)
        at_least("timeouts", self.timeouts, 0)


@dataclass(frozen=True)
class Cluster:
    """Where runs go. `kind: local` is this machine, which reads `parallel`, `environment`, `offline` and `scratch`.

    `time` is SLURM's (`90` minutes, `4:00:00`, `2-00:00:00`); CPUs, GPUs and memory are per process. `parallel`: how
    many runs of one submission at once, those of an earlier one not counted; `array_size`: the most runs in one job
    array, by default what SLURM allows. `environment`: variables in its values are replaced in the job, as
    `$TMPDIR/cache`. `sbatch`: any other option of sbatch, without its dashes; true for one without a value. `scratch`:
    a folder of the node's own disk for compile caches.
    """

    name: str = ""
    kind: Literal["slurm", "local"] = "slurm"
    parallel: int = 64
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str = "4:00:00"
    gpus_per_process: int = 1
    cpus_per_process: int = 4
    memory_per_process: str | None = None
    modules: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    sbatch: dict[str, str] = field(default_factory=dict)
    srun: tuple[str, ...] = ()
    preemption: Preemption = Preemption()
    array_size: int | None = None
    offline: bool = True
    scratch: str | None = None

    def __post_init__(self) -> None:
        at_least("parallel", self.parallel, 1)
        at_least("gpus_per_process", self.gpus_per_process, 0)
        at_least("cpus_per_process", self.cpus_per_process, 1)
        if self.array_size is not None:
            at_least("array_size", self.array_size, 1)
        minutes(self.time)
        if self.memory_per_process is not None:
            megabytes(self.memory_per_process)
        for key in self.sbatch:
            _check_option(key)
        for key in self.environment:
            if not _VARIABLE.fullmatch(key):
                raise ValueError(f"environment.{key}: no name of a variable: letters, digits and _, no digit first")
        self._check_lines()

    def _check_lines(self) -> None:
        """What becomes part of one line of the batch script must not begin another."""
        lists = {"modules": self.modules, "srun": self.srun}
        mappings = {"environment": self.environment, "sbatch": self.sbatch}
        plain = {key: getattr(self, key) for key in ("partition", "account", "qos", "constraint", "scratch")}
        places = [*plain.items()]
        places += [(f"{name}.{number}", word) for name, words in lists.items() for number, word in enumerate(words)]
        places += [(f"{name}.{key}", value) for name, values in mappings.items() for key, value in values.items()]
        for place, value in places:
            if value is not None and set(value) & set("\n\r\0"):
                raise ValueError(f"{place}: {value!r}: must be one line; setup takes lines of shell")

    def but(self, **given: Any) -> "Cluster":
        """The same cluster with what is given, and is not None, in place of its own."""
        return replace(self, **{key: value for key, value in given.items() if value is not None})


def _check_option(key: str) -> None:
    """Raise ValueError unless `sbatch:` may say this."""
    option = key.replace("_", "-")
    if not _OPTION.fullmatch(key) or len(key) == 1:
        raise ValueError(f"sbatch.{key}: must be an option's long name without dashes before it, such as exclude")
    if option in OURS:
        instead = f": use {OURS[option]}" if OURS[option] else ""
        raise ValueError(f"sbatch.{key}: is set by the sweep itself{instead}")
    if option in BARRED:
        raise ValueError(
            f"sbatch.{key}: changes what sbatch prints, when it returns or for whom it sends: leave it out"
        )
    for whole in (*OURS, *BARRED):  # sbatch takes the beginning of an option for it
        if whole.startswith(option) and option not in _WHOLE:
            raise ValueError(f"sbatch.{key}: sbatch would read it as {whole}: say the whole name of an option")


def minutes(time: str) -> int:
    """SLURM's notation of a time limit in minutes, rounded up; ValueError where it is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time))
    if match is None:
        raise ValueError(f"time: {time!r}: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds")
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        seconds = int(days) * 86400 + sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    else:  # minutes, minutes:seconds or hours:minutes:seconds
        units = (3600, 60, 1) if len(parts) == 3 else (60, 1)
        seconds = sum(part * unit for part, unit in zip(parts, units, strict=False))
    if seconds <= 0:
        raise ValueError(f"time: {time!r}: must be above 0")
    return -(-seconds // 60)


def megabytes(memory: str) -> int:
    """`16GB`, `500M` and the like in MB; ValueError where it is no amount of memory."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])i?B?", str(memory), re.IGNORECASE)
    if match is None or not (amount := float(match[1]) * {"m": 1, "g": 1024, "t": 1024**2}[match[2].lower()]) >= 1:
        raise ValueError(f"memory_per_process: {memory!r}: must be a number and M, G or T, as in 16G")
    return round(amount)


def load(name: str) -> Cluster:
    """A cluster by the name of one of our files, or by a file.

    Raises UserError naming file, key, rule and remedy.
    """
    path = _find(name)
    plain: dict[str, Any] = sections.read_yaml(path)
    if isinstance(plain.get("sbatch"), Mapping):  # `exclusive: true` is an option without a value, false is none
        plain["sbatch"] = {
            key: "" if value is True else value for key, value in plain["sbatch"].items() if value is not False
        }
    try:
        found: Cluster = sections.build(Cluster, {"name": path.stem, **plain}, "")
    except UserError as error:
        raise UserError(f"cluster {path}: {error}") from None
    return found


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    folder = sections.presets_folder() / "clusters"
    inside = folder / f"{name.removeprefix('configs/').removeprefix('clusters/').removesuffix('.yaml')}.yaml"
    if inside.is_file():
        return inside
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise UserError(f"cluster {name!r}: no such file and none of ours; ours: {names}")
