"""From a sweep file to the runs that it says, each with its whole config, and to the folder that knows them."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from infogan import settings
from infogan.config import RunConfig, digest, to_plain
from shards import atomic
from shards.errors import UserError
from slurm import records
from slurm.parsing import Values, cut
from slurm.spec import Spec, overrides
from slurm.sweep import Run, Sweep, described, refuse_others, save

ID_LENGTH = 10
MOST_COMBINATIONS = 200_000
"""So many are listed, in a second or so, to see how many `exclude` leaves; where there are more, nobody counts them."""

# Files of a run: config, environment, log, lease (2 while it is renewed), dump; export; curves.
FIXED_FILES = 6 + 4 + 1
FILES_PER_CHECKPOINT = 6


def expand(spec: Spec) -> list[tuple[Run, RunConfig]]:
    """Every run of a sweep with its config.

    Raises UserError where a config is refused, where two runs would be one, where nothing is left, or where a limit of
    the sweep is exceeded.
    """
    found: dict[str, tuple[Run, RunConfig]] = {}
    for values in _combinations(spec):
        try:
            config = settings.load(spec.base, overrides([*spec.fixed.items(), *values.items()])).config
        except UserError as error:
            raise UserError(f"sweep {spec.path}: the run with {cut(described(values))}: {error}") from None
        config = _anywhere(config)
        whole = digest(config)
        name = f"{whole[:ID_LENGTH]}-{hashlib.sha256(_text(config).encode()).hexdigest()[:12]}.yaml"
        run = Run(whole[:ID_LENGTH], values, spec.shape_of(values), whole, str(config.stop), name)
        if run.id in found:
            raise UserError(f"sweep {spec.path}: {_same(found[run.id][0].values, values)}")
        found[run.id] = (run, config)
    for run, config in found.values():
        _check_files(spec, run, config)
    return list(found.values())


def _combinations(spec: Spec) -> list[Values]:
    """All that is to run, counted before any config is read, and where that takes long, before it is listed."""
    most, points = spec.limits.runs, spec.points
    reducible = bool(spec.exclude or spec.draws)  # to fewer, by an exclusion or by points that are drawn twice
    found: list[Values] = []
    if points <= max(most, MOST_COMBINATIONS if reducible else 0):
        found = list(spec.combinations())
        points = len(found)
    if points > most:
        raise UserError(
            f"sweep {spec.path}: {points:,} combinations, and limits.runs is {most:,}; raise it, or vary less"
        )
    if not found:
        raise UserError(f"sweep {spec.path}: exclude leaves no run; exclude less")
    return found


def _same(first: Values, second: Values) -> str:
    keys = " and ".join(key for key in second if first[key] != second[key])
    return (
        f"{cut(described(first))} and {cut(described(second))} would be one run: {cut(keys)} does not make a run "
        "another (where its data lies, when it stops, how often it saves); say it in fixed"
    )


def _anywhere(config: RunConfig) -> RunConfig:
    """The config with whole paths: jobs start in another folder, on another machine."""
    path, deepspeed = config.data.path, config.deepspeed
    if path and "://" not in path:
        path = str(Path(path).absolute())
    if deepspeed is not None and Path(deepspeed).is_file():  # else it is the name of one of ours
        deepspeed = str(Path(deepspeed).absolute())
    return replace(config, data=replace(config.data, path=path), deepspeed=deepspeed)


def most_files(config: RunConfig) -> int | None:
    """How many files a run of this config writes at most, but for its report and one TensorBoard file per start.

    None where that depends on a data set that is not there yet.
    """
    samples = (splits_of(config) or {}).get("train")
    if config.stop.unit == "epochs" and samples is None:
        return None
    kimg = config.stop.images(config.batch, samples or 1) / 1000
    pictures = (int(kimg / config.images.every_kimg) + 2) * (1 + len(config.codes))
    checkpoints = (config.checkpoint.keep + 2) * FILES_PER_CHECKPOINT  # the best one, and one being written
    return FIXED_FILES + pictures + checkpoints


def splits_of(config: RunConfig) -> dict[str, int] | None:
    """Images in each split of a run's data set; None where that lies elsewhere, is not there yet, or is damaged."""
    if "://" in config.data.path:
        return None
    splits = records.mapping(Path(config.data.path) / "manifest.json").get("splits")
    try:
        return {name: int(split["samples"]) for name, split in splits.items()} if splits else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _check_files(spec: Spec, run: Run, config: RunConfig) -> None:
    files = most_files(config)
    if files is not None and files > spec.limits.files:
        raise UserError(
            f"sweep {spec.path}: the run with {cut(described(run.values))} would write up to {files:,} files, and "
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
    refuse_others(sweep.folder)
    for run, config in runs:
        if not sweep.config_file(run).is_file():  # a job may be reading it
            atomic.write_text(sweep.config_file(run), _text(config))
    save(sweep)


def _text(config: RunConfig) -> str:
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    return text
