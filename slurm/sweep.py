"""A sweep's runs and its folder.

    sweeps/NAME/
      sweep.json          the runs: id, values, shape; what ends and what measures them
      configs/ID-*.yaml   each run's whole config, resolved; its name ends in its digest, so no file ever changes
      runs/ID/            a run, like any other
      attempts/ID.jsonl   when each job of a run began and ended, and why (`slurm.attempts`);
                          ID.rank<n>.json: why a rank other than 0 ended
      submissions/        which job was sent for which run, with which code (`slurm.submissions`)
      code/DIGEST/        the code that the jobs run (`slurm.snapshot`)
      jobs/               what submitit and SLURM write: scripts, logs
      logs/ID.log         what a run without SLURM writes
      final.json          how jobs ended, by the last word of accounting or of who cancelled them (`slurm.status`)
      table/              what `infogan sweep collect` made

A run's id is the beginning of its config's digest: the same run has the same id in every sweep and on every day.
"""

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infogan import sections
from shards import atomic, small_json
from shards.errors import UserError
from slurm import parsing, records
from slurm.parsing import Values, cut, shown
from slurm.shape import Shape
from slurm.spec import Best, Evaluation, Spec

FORMAT = 1

_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Run:
    """One run of a sweep: what varies in it (`values`, its seed among them), what it takes, when it stops, and the name
    of the file that its config is in."""

    id: str
    values: Values
    shape: Shape
    digest: str
    stop: str
    config: str = ""

    @property
    def group(self) -> str:
        """What a run shares with the others that differ from it in their seed only, exactly."""
        return json.dumps(self._apart_from_seed)

    @property
    def group_name(self) -> str:
        """The same for people."""
        return described(self._apart_from_seed) or "all"

    @property
    def _apart_from_seed(self) -> Values:
        return {key: value for key, value in self.values.items() if key != "seed"}


@dataclass(frozen=True)
class Sweep:
    """A sweep as its folder knows it, which needs neither the sweep file nor torch."""

    folder: Path
    name: str
    runs: tuple[Run, ...]
    evaluate: Evaluation
    stop_if: tuple[str, ...] = ()
    best: dict[str, str | None] | None = None
    launched_from: str = ""

    def run_folder(self, run: Run) -> Path:
        return self.folder / "runs" / run.id

    def config_file(self, run: Run) -> Path:
        return self.folder / "configs" / run.config

    def find(self, name: str, states: Collection[str] = ()) -> Run:
        """A run by its id or the beginning of it; UserError where that is none or several. `states`: those
        that may be said instead."""
        found = [run for run in self.runs if run.id.startswith(name)] if name else []
        if len(found) != 1:
            what = "no run has an id that begins so" if not found else f"{len(found)} runs have ids that begin so"
            what += f", and no state is called so (there are {', '.join(states)})" if states and not found else ""
            raise UserError(f"run {name!r}: {what}; infogan sweep status lists the runs of sweep {self.name}")
        return found[0]


def described(values: Values) -> str:
    """`optimizer.critic.lr=0.0002 seed=3`, numbers as short as they can be told without becoming others."""
    return " ".join(f"{key}={_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def folder_of(spec: Spec, out: Path | None) -> Path:
    return out if out is not None else Path("sweeps") / spec.name


def save(sweep: Sweep) -> None:
    """Write down what a sweep's folder knows of it; UserError as by `refuse_others`."""
    refuse_others(sweep.folder)
    plain = {key: value for key, value in asdict(sweep).items() if key != "folder"}
    atomic.write_json(sweep.folder / "sweep.json", {"format": FORMAT, **plain})


def refuse_others(folder: Path) -> None:
    """Raise UserError where a folder holds a sweep in the format of another version of this program."""
    path = folder / "sweep.json"
    _check_format(path, records.mapping(path))


def read(folder: Path) -> Sweep:
    """A sweep by its folder; UserError where that holds none, or none that can be read."""
    path = folder / "sweep.json"
    try:
        plain = small_json.content(path)
        _check_format(path, parsing.mapping("sweep", plain))
        return _parse(folder, plain)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"sweep {folder}: not submitted yet: infogan sweep submit SPEC begins it; or give the folder of --out"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): put that right, then run it again") from None
    except (_Damaged, ValueError) as error:
        raise UserError(f"{path}: damaged ({cut(str(error))}): infogan sweep submit SPEC writes it anew") from None


class _Damaged(Exception):
    """What is wrong with a sweep.json."""


def _check_format(path: Path, plain: Values) -> None:
    found = plain.get("format")
    if type(found) is int and found != FORMAT:
        raise UserError(
            f"{path}: of format {found}, and this version of infogan reads and writes {FORMAT}: use the version that "
            "made it, or another folder (--out)"
        )


def _parse(folder: Path, plain: Values) -> Sweep:
    best = plain.get("best")
    if plain.get("format") != FORMAT:
        raise ValueError(f"format: {shown(plain.get('format'))}: must be {FORMAT}")
    try:
        return Sweep(
            folder=folder,
            name=_text("name", plain.get("name")),
            runs=tuple(_run(f"runs.{i}", value) for i, value in enumerate(parsing.entries(plain, "runs"))),
            evaluate=sections.build(Evaluation, plain.get("evaluate"), "evaluate"),
            stop_if=tuple(_text("stop_if", text) for text in parsing.entries(plain, "stop_if")),
            best=asdict(sections.build(Best, best, "best")) if best is not None else None,
            launched_from=_text("launched_from", plain.get("launched_from")),
        )
    except UserError as error:
        raise _Damaged(str(error)) from None


def _run(place: str, value: Any) -> Run:
    plain = parsing.mapping(place, value)
    texts = {key: _text(f"{place}.{key}", plain.get(key)) for key in ("id", "digest", "stop", "config")}
    if not _NAME.fullmatch(texts["id"]) or not _NAME.fullmatch(texts["config"] or texts["id"]):
        raise ValueError(f"{place}: id and config must be names of files")
    values = parsing.mapping(f"{place}.values", plain.get("values"))
    return Run(values=values, shape=sections.build(Shape, plain.get("shape"), f"{place}.shape"), **texts)


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: {shown(value)}: must be a text")
    return value
