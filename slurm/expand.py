"""From a sweep file to the runs that it says, each with its whole config, and to the folder that knows them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from infogan import settings
from infogan.config import RunConfig, digest, to_plain
from shards import atomic
from shards.errors import UserError
from slurm.spec import Spec, overrides
from slurm.sweep import Run, Sweep, described, save

ID_LENGTH = 10

# Files of a run: config, environment, log, lease (2 while it is renewed), dump; export; curves.
FIXED_FILES = 6 + 4 + 1
FILES_PER_CHECKPOINT = 6


def expand(spec: Spec) -> list[tuple[Run, RunConfig]]:
    """Every run of a sweep with its config; combinations that are one run count once.

    Raises UserError where a config is refused, where nothing is left, or where a limit of the sweep is exceeded.
    """
    found: dict[str, tuple[Run, RunConfig]] = {}
    for values in spec.combinations():
        if len(found) >= spec.limits.runs:
            raise UserError(
                f"sweep {spec.path}: limits.runs: more than {spec.limits.runs} runs; raise it, or vary less"
            )
        try:
            config = settings.load(spec.base, overrides([*spec.fixed.items(), *values.items()])).config
        except UserError as error:
            raise UserError(f"sweep {spec.path}: the run with {described(values)}: {error}") from None
        config = replace(config, data=replace(config.data, path=_absolute(config.data.path)))
        whole = digest(config)
        name = f"{whole[:ID_LENGTH]}-{hashlib.sha256(_text(config).encode()).hexdigest()[:12]}.yaml"
        run = Run(whole[:ID_LENGTH], values, spec.shape_of(values), whole, str(config.stop), name)
        found.setdefault(run.id, (run, config))
    if not found:
        raise UserError(f"sweep {spec.path}: exclude leaves no run; exclude less")
    for run, config in found.values():
        _check_files(spec, run, config)
    return list(found.values())


def _absolute(path: str) -> str:
    """Jobs start in another folder, on another machine."""
    return path if not path or "://" in path else str(Path(path).absolute())


def most_files(config: RunConfig) -> int | None:
    """How many files a run of this config writes at most, but for its report and one TensorBoard file per start.

    None where that depends on a data set that is not there yet.
    """
    samples = _samples(config)
    if config.stop.unit == "epochs" and samples is None:
        return None
    kimg = config.stop.images(config.batch, samples or 1) / 1000
    pictures = (int(kimg / config.images.every_kimg) + 2) * (1 + len(config.codes))
    checkpoints = (config.checkpoint.keep + 2) * FILES_PER_CHECKPOINT  # the best one, and one being written
    return FIXED_FILES + pictures + checkpoints


def _samples(config: RunConfig) -> int | None:
    manifest = Path(config.data.path) / "manifest.json"
    try:
        return int(json.loads(manifest.read_bytes())["splits"]["train"]["samples"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_files(spec: Spec, run: Run, config: RunConfig) -> None:
    files = most_files(config)
    if files is not None and files > spec.limits.files:
        raise UserError(
            f"sweep {spec.path}: the run with {described(run.values)} would write up to {files:,} files, and "
            f"limits.files is {spec.limits.files:,}; raise images.every_kimg (now {config.images.every_kimg:g}) in "
            "fixed, or limits.files"
        )


def sweep_of(spec: Spec, folder: Path, runs: Sequence[tuple[Run, RunConfig]]) -> Sweep:
    """What a sweep's folder will know of it."""
    return Sweep(
        folder=folder,
        name=spec.name,
        runs=tuple(run for run, _ in runs),
        evaluate=spec.evaluate,
        stop_if=tuple(condition.text for condition in spec.stop_if),
        best=asdict(spec.best) if spec.best is not None else None,
        launched_from=str(Path.cwd()),
    )


def write(sweep: Sweep, runs: Sequence[tuple[Run, RunConfig]]) -> None:
    """Write down what a sweep is; runs of an earlier state of its file keep their folders, but are no part of it."""
    for run, config in runs:
        if not sweep.config_file(run).is_file():  # a job may be reading it
            atomic.write_text(sweep.config_file(run), _text(config))
    save(sweep)


def _text(config: RunConfig) -> str:
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    return text
