"""A sweep's runs and its folder.

    sweeps/NAME/
      sweep.json          the runs: id, values, shape; what ends and what measures them
      configs/ID.yaml     each run's whole config, resolved
      runs/ID/            a run, like any other
      attempts/ID.jsonl   when each job of a run began and ended, and why (`slurm.attempts`)
      submissions.json    which job was sent for which run, with which code
      code/DIGEST/        the code that the jobs run (`slurm.snapshot`)
      jobs/               what submitit and SLURM write: scripts, logs
      table/              what `infogan sweep collect` made

A run's id is the beginning of its config's digest: the same run has the same id in every sweep and on every day.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from infogan import settings
from infogan.config import RunConfig, digest, to_plain
from shards import atomic
from shards.errors import UserError
from slurm.runfolder import newest_checkpoint
from slurm.spec import Evaluation, Shape, Spec, Values, overrides

FORMAT = 1
ID_LENGTH = 10

# Files of a run: config, environment, log, lease (2 while it is renewed), dump; export; curves.
FIXED_FILES = 6 + 4 + 1
FILES_PER_CHECKPOINT = 6


@dataclass(frozen=True)
class Run:
    """One run of a sweep: what varies in it (`values`, its seed among them), what it takes, and when it stops."""

    id: str
    values: Values
    shape: Shape
    digest: str
    stop: str

    @property
    def group(self) -> str:
        """What a run shares with the others that differ from it in their seed only."""
        return described({key: value for key, value in self.values.items() if key != "seed"}) or "all"


@dataclass(frozen=True)
class Sweep:
    """A sweep as its folder knows it, which needs neither the sweep file nor torch."""

    folder: Path
    name: str
    runs: tuple[Run, ...]
    evaluate: Evaluation
    stop_if: tuple[str, ...] = ()
    best: dict[str, str] | None = None
    launched_from: str = ""

    def run_folder(self, run: Run) -> Path:
        return self.folder / "runs" / run.id

    def config_file(self, run: Run) -> Path:
        return self.folder / "configs" / f"{run.id}.yaml"

    def find(self, name: str) -> Run:
        """A run by its id or the beginning of it; UserError where that is none or several."""
        found = [run for run in self.runs if run.id.startswith(name)] if name else []
        if len(found) != 1:
            what = "no run has an id that begins so" if not found else f"{len(found)} runs have ids that begin so"
            raise UserError(f"run {name!r}: {what}; infogan sweep status lists the runs of sweep {self.name}")
        return found[0]


def described(values: Values) -> str:
    """`optimizer.critic.lr=0.0002 seed=3`, as short as it can be told: settings by their last words."""
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def folder_of(spec: Spec, out: Path | None) -> Path:
    return out if out is not None else Path("sweeps") / spec.name


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
        run = Run(whole[:ID_LENGTH], values, spec.shape_of(values), whole, str(config.stop))
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


def write(spec: Spec, folder: Path, runs: Sequence[tuple[Run, RunConfig]]) -> Sweep:
    """Write down what a sweep is; runs of an earlier state of its file keep their folders, but are no part of it."""
    sweep = Sweep(
        folder=folder,
        name=spec.name,
        runs=tuple(run for run, _ in runs),
        evaluate=spec.evaluate,
        stop_if=tuple(condition.text for condition in spec.stop_if),
        best=asdict(spec.best) if spec.best is not None else None,
        launched_from=str(Path.cwd()),
    )
    for run, config in runs:
        text = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
        atomic.write_text(sweep.config_file(run), text)
    plain = {key: value for key, value in asdict(sweep).items() if key != "folder"}
    atomic.write_json(folder / "sweep.json", {"format": FORMAT, **plain})
    return sweep


def read(folder: Path) -> Sweep:
    """A sweep by its folder; UserError where that holds none."""
    path = folder / "sweep.json"
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        if plain.pop("format") != FORMAT:
            raise UserError(f"{path}: of another version of this program; use that one")
        runs = tuple(Run(**{**run, "shape": Shape(**run["shape"])}) for run in plain.pop("runs"))
        evaluate = plain.pop("evaluate")
        return Sweep(
            folder=folder,
            runs=runs,
            evaluate=Evaluation(**{**evaluate, "only": tuple(evaluate["only"])}),
            **{**plain, "stop_if": tuple(plain["stop_if"])},
        )
    except FileNotFoundError:
        raise UserError(f"sweep {folder}: not submitted yet: infogan sweep submit SPEC begins it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); infogan sweep submit SPEC writes it anew") from None


def is_evaluated(sweep: Sweep, run: Run) -> bool:
    """Whether a run has a report, made after its newest checkpoint."""
    report = sweep.run_folder(run) / "report" / "report.json"
    return report.is_file() and report.stat().st_mtime >= newest_checkpoint(sweep.run_folder(run))[1]


def shapes(runs: Sequence[Run]) -> Iterator[tuple[Shape, list[Run]]]:
    """Runs by what they take: one job array holds one shape only."""
    for shape in dict.fromkeys(run.shape for run in runs):
        yield shape, [run for run in runs if run.shape == shape]
