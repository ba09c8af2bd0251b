"""A run's folder: what it was told to do, what may change when it goes on, and where it happened."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from infogan import checkpoint as checkpoints
from infogan import commit, plugins, settings
from infogan.checkpoint import Checkpoint
from infogan.config import RunConfig, digest, identity, to_plain
from infogan.devices import cpu_name
from infogan.engine import Engine
from infogan.lease import Lease, acquire
from shards import atomic
from shards.errors import UserError
from shards.versions import installed

FOLDERS = ("checkpoints", "images", "tensorboard", "export", "report")
ENTRIES = {*FOLDERS, "config.yaml", "environment.json", "metrics.jsonl", "nonfinite.json", ".lease"}
"""What a run's folder holds."""

PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "deepspeed",
    "numpy",
    "webdataset",
    "torch-fidelity",
    "safetensors",
    "scikit-learn",
)


def default_folder(preset: str, config: RunConfig) -> Path:
    """`runs/<preset>-seed<n>`."""
    return Path("runs") / f"{preset}-seed{config.seed}"


def saved_config(run: Path) -> RunConfig | None:
    """The config that a run was started with; None where no run has been started."""
    path = run / "config.yaml"
    if not path.is_file():
        return None
    config = settings.saved(path)
    if digest(config) not in path.read_text(encoding="utf-8").partition("\n")[0]:
        raise UserError(
            f"{path}: damaged or edited, its digest does not fit; restore it, or start a new run with --run DIR"
        )
    return config


def learned(run: Path) -> RunConfig | None:
    """The config of a run that has a checkpoint. Another has learned nothing yet, so it may still be told otherwise."""
    return saved_config(run) if checkpoints.folders(run) else None


def refuse_foreign(run: Path) -> None:
    """A run is begun in an empty folder, and goes on in one that a run has made; any other is left alone."""
    if run == Path():
        raise UserError("--run: empty; name a folder for the run")
    if os.path.lexists(run) and not run.is_dir():
        raise UserError(f"--run {run}: is not a folder; name another one")
    if not run.is_dir():
        return
    names = sorted(path.name for path in run.iterdir())
    foreign = [name for name in names if name not in ENTRIES and not atomic.is_temporary(name)]
    if foreign and not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: holds files that are no run ({foreign[0]}); name another folder")
    for name in FOLDERS:
        if (run / name).exists() and not (run / name).is_dir():
            raise UserError(f"run {run}: {name} is not a folder; move it away")


def follow_saved(config: RunConfig, saved: RunConfig | None) -> RunConfig:
    """Where a config leaves something open, a run that goes on keeps what it had: its precision and its data set."""
    if saved is None:
        return config
    precision = saved.precision if config.precision == "auto" else config.precision
    data = config.data if config.data.digest else replace(config.data, digest=saved.data.digest)
    return replace(config, precision=precision, data=data)


def refuse_changes(run: Path, config: RunConfig, saved: RunConfig) -> None:
    """A run goes on only as what it was: name the fields of its identity that differ."""
    before, now = identity(saved), identity(config)
    changed = [
        f"{path} was {before.get(path, 'absent')}, is {now.get(path, 'absent')}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]
    if changed:
        raise UserError(
            f"run {run}: its config differs: {'; '.join(changed)}; change it back, or start another run with --run DIR "
            "(--from takes this run's weights along)"
        )


def begin(run: Path, config: RunConfig, engine: Engine, *, origin: str | None, say: Callable[[str], None]) -> None:
    """Write the resolved config and where this start happens; the config's first line holds its digest.

    Says so where processes, threads or engine are others than at the last start: the sums of floating-point numbers
    then are taken in another order, and the run goes on equally well, but not to the same bits.
    """
    text = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    atomic.write_text(run / "config.yaml", f"# resolved config of this run; digest {digest(config)}\n{text}")
    path = run / "environment.json"
    starts = _starts(run)
    now = environment(engine) | {"from": origin}
    for what in ("processes", "threads", "engine"):
        if starts and starts[-1].get(what, now[what]) != now[what]:
            say(f"{now[what]} {what} now, {starts[-1][what]} before: the last bits of the weights may differ")
    for line in plugins.changes(plugins.recorded(run)):
        say(line)
    atomic.write_json(path, {"format": 1, "starts": [*starts, now]})


@contextmanager
def only_writer(run: Path, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold a run's folder against a second process that would train it."""
    with atomic.explained(run):
        run.mkdir(parents=True, exist_ok=True)
        lease = acquire(run, say)
    with lease:
        atomic.clean_stale(run)
        yield lease


def began_from(run: Path, source: str) -> bool:
    """Whether a run was started with the weights of `source`: then the same command goes on with it."""
    return any(start["from"] == source for start in _starts(run))


def _starts(run: Path) -> list[dict[str, Any]]:
    """The starts of a run so far. The file only informs: a damaged one is begun anew and stops nobody."""
    try:
        starts = json.loads((run / "environment.json").read_bytes())["starts"]
        return [start for start in starts if {"from", "processes", "threads"} <= start.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def environment(engine: Engine) -> dict[str, Any]:
    """Machine, versions, processes and command of this start."""
    gpu = torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else None
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "host": platform.node(),
        "system": platform.platform(),
        "device": gpu or cpu_name(),
        "processes": engine.world,
        "threads": engine.threads,
        "engine": engine.name,
        "precision": engine.config.precision,
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "commit": commit.current(),
        "plugins": plugins.record(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def starting_weights(source: str, run: Path) -> Checkpoint:
    """The checkpoint that `--from RUN[@kimg]` names."""
    folder, _, which = source.partition("@")
    if Path(folder).resolve() == run.resolve():
        raise UserError(f"--from {source}: is the run itself; without --from the same command resumes it")
    if not (Path(folder) / "checkpoints").is_dir():
        raise UserError(f"--from {source}: {folder} holds no run with checkpoints")
    return checkpoints.find(Path(folder), which or "latest")
