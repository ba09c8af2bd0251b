"""A sweep file: what is the same in all runs, what varies and how, and what becomes of the runs.

    base: paper/mnist                     # a preset of ours, or a file beside this one
    fixed: {stop: 5000 updates}           # in every run
    grid: {objective.lambda_categorical: [0.5, 1, 2]}             # every combination
    zip: {optimizer.critic.lr: [1e-4, 2e-4], batch: [64, 128]}    # side by side
    random:                               # drawn; the same numbers for the same seed, however many are drawn
      draws: 20
      seed: 0
      optimizer.generator.lr: {log_uniform: [1e-4, 1e-2]}         # or uniform, integers (both ends), choice
    seeds: 4                              # 0 to 3, or a list
    exclude: [{batch: 64, seed: 3}]       # combinations to leave out

The rest is in `Spec`.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infogan import sections
from infogan.checks import above, at_least
from shards.errors import UserError
from slurm import draws, parsing
from slurm.condition import Condition
from slurm.draws import Distribution
from slurm.parsing import Values, cut, section, shown
from slurm.shape import Shape

LONGEST_PATH = 1000
MOST_SAMPLES = 1_000_000
"""As many as `infogan evaluate` generates."""


@dataclass(frozen=True)
class Limits:
    """What a sweep may not exceed: runs, files that one run writes, and hours of all its processes together."""

    runs: int = 1000
    files: int = 1000
    hours: float | None = None

    def __post_init__(self) -> None:
        at_least("runs", self.runs, 1)
        at_least("files", self.files, 1)
        if self.hours is not None:
            above("hours", self.hours, 0)


@dataclass(frozen=True)
class Evaluation:
    """`when: run` evaluates each run by the job that trained it, `array` leaves it to `infogan sweep evaluate`.

    The rest are the options of `infogan evaluate`.
    """

    when: Literal["never", "run", "array"] = "never"
    which: str = "latest"
    split: str = "test"
    samples: int | None = None
    weights: str | None = None
    seed: int = 0
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"latest|best|\d+(\.\d+)?", self.which, re.ASCII):
            raise ValueError(f"which: {shown(self.which)}: must be latest, best, or the kimg of a checkpoint")
        at_least("seed", self.seed, 0)
        if self.samples is not None:
            at_least("samples", self.samples, 2, below=MOST_SAMPLES + 1)

    def words(self) -> list[str]:
        """The options as words of a command line."""
        words = ["--which", self.which, "--split", self.split, "--seed", str(self.seed)]
        words += ["--samples", str(self.samples)] if self.samples is not None else []
        words += ["--weights", self.weights] if self.weights is not None else []
        return words + [word for family in self.only for word in ("--only", family)]


@dataclass(frozen=True)
class Best:
    """What `collect` ranks by: a name from reports or `metrics.jsonl`; `better`: where the name does not tell that."""

    metric: str
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True)
class Spec:
    """A whole sweep file.

    `fixed`, `grid`, `zipped` (`zip`), `drawn` (`random`), `seeds`, `exclude`: see above. `shape`: what a run takes;
    `shapes`: other shapes for some runs (`when`: values as in `exclude`), which say only what differs from `shape`.
    `stop_if`: conditions that end a hopeless run. `data`: how `infogan prepare` builds a data set that is not there:
    path -> `source` and its options.
    """

    path: Path
    base: str
    name: str
    fixed: Values = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    zipped: dict[str, list[Any]] = field(default_factory=dict)
    drawn: dict[str, Distribution] = field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0
    seeds: Sequence[int] = (0,)
    exclude: tuple[Values, ...] = ()
    shape: Shape = field(default_factory=Shape)
    shapes: tuple[tuple[Values, Shape], ...] = ()
    limits: Limits = Limits()
    stop_if: tuple[Condition, ...] = ()
    evaluate: Evaluation = Evaluation()
    best: Best | None = None
    cluster: str | None = None
    data: dict[str, Values] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """How many combinations there are before any is left out."""
        varied = [*self.grid.values(), *list(self.zipped.values())[:1], self.seeds]
        return math.prod(map(len, varied)) * max(self.draws, 1)

    def combinations(self) -> Iterator[Values]:
        """What varies, per run and in a fixed order; excluded combinations are left out, and a random point that was
        drawn before."""
        rows = [dict(zip(self.zipped, row, strict=True)) for row in zip(*self.zipped.values(), strict=True)] or [{}]
        points = [dict(zip(self.grid, point, strict=True)) for point in itertools.product(*self.grid.values())]
        drawn = {json.dumps(point): point for point in map(self._draw, range(self.draws))} or {"": {}}
        for point, row, draw, seed in itertools.product(points, rows, drawn.values(), self.seeds):
            values = point | row | draw | {"seed": seed}
            whole = values | self.fixed
            if not any(matches(whole, left_out) for left_out in self.exclude):
                yield values

    def lasting(self, time: str | None) -> "Spec":
        """The same sweep with another time limit, whatever its shapes say; None: with its own."""
        if time is None:
            return self
        shapes = tuple((when, replace(shape, time=time)) for when, shape in self.shapes)
        return replace(self, shape=replace(self.shape, time=time), shapes=shapes)

    def shape_of(self, values: Values) -> Shape:
        """The shape of the run with these values: the first of `shapes` that fits, else `shape`."""
        return next((shape for when, shape in self.shapes if matches(self.fixed | values, when)), self.shape)

    def _draw(self, number: int) -> Values:
        return draws.point(self.drawn, self.draw_seed, number)


def matches(values: Values, wanted: Values) -> bool:
    """Whether all that is wanted is there."""
    return all(key in values and values[key] == value for key, value in wanted.items())


def load(path: Path) -> Spec:
    """Read and check a sweep file.

    Raises UserError: file, place, rule and remedy in one line.
    """
    if not path.is_file():
        what = "is a folder: name the sweep file itself" if path.is_dir() else "no such file"
        raise UserError(f"sweep {path}: {what}; see configs/sweeps/ for examples")
    try:
        plain = sections.read_yaml(path)
        parsing.check_plain("", plain)
        return _parse(path, plain)
    except (UserError, ValueError) as error:
        said = str(error).removeprefix(f"config {path}: ")
        raise UserError(f"sweep {path}: {said}") from None


def _parse(path: Path, plain: Values) -> Spec:
    _check_keys(plain)
    fixed, grid, zipped = (section(plain, key) for key in ("fixed", "grid", "zip"))
    drawn, number, draw_seed = draws.parse(section(plain, "random"))
    _check_varied(grid, zipped)
    varied = {**grid, **zipped, **drawn, **fixed}
    known = {*varied, "seed"}
    shape = parsing.mapping("shape", plain.get("shape", {}))
    exclude, shapes, stop_if = (
        list(enumerate(parsing.entries(plain, key))) for key in ("exclude", "shapes", "stop_if")
    )
    beside = path.parent / plain["base"]
    return Spec(
        path=path,
        base=str(beside) if beside.is_file() else plain["base"],
        name=parsing.name(plain.get("name"), path),
        fixed=fixed,
        grid=grid,
        zipped=zipped,
        drawn=drawn,
        draws=number,
        draw_seed=draw_seed,
        seeds=parsing.seeds(plain.get("seeds", 1), varied),
        exclude=tuple(parsing.wanted(f"exclude.{i}", value, known) for i, value in exclude),
        shape=sections.build(Shape, shape, "shape"),
        shapes=tuple(_shape(f"shapes.{i}", value, shape, known) for i, value in shapes),
        limits=sections.build(Limits, plain.get("limits", {}), "limits"),
        stop_if=tuple(_condition(f"stop_if.{i}", value) for i, value in stop_if),
        evaluate=sections.build(Evaluation, plain.get("evaluate", {}), "evaluate"),
        best=sections.build(Best, plain["best"], "best") if "best" in plain else None,
        cluster=sections.build(str | None, plain.get("cluster"), "cluster"),
        data={key: parsing.mapping(f"data.{key}", value) for key, value in section(plain, "data").items()},
    )


def _check_keys(plain: Values) -> None:
    known = (
        "base", "name", "fixed", "grid", "zip", "random", "seeds", "exclude", "shape", "shapes", "limits", "stop_if",
        "evaluate", "best", "cluster", "data",
    )  # fmt: skip
    for key in plain:
        if key not in known:
            raise ValueError(f"{cut(str(key))}: unknown; known here: {', '.join(known)}")
    base = plain.get("base")
    if not isinstance(base, str) or len(base) > LONGEST_PATH:
        raise ValueError("base: must name a preset, as in base: paper/mnist")
    for first, second in itertools.combinations(("fixed", "grid", "zip", "random"), 2):
        for key in section(plain, first).keys() & section(plain, second).keys():
            raise ValueError(f"{second}.{cut(key)}: is in {first} too; say it once")


def _check_varied(grid: Values, zipped: Values) -> None:
    for key, value in grid.items():
        parsing.different(f"grid.{key}", parsing.options(f"grid.{key}", value))
    for key, value in zipped.items():
        parsing.options(f"zip.{key}", value)
    if len({len(value) for value in zipped.values()}) > 1:
        lengths = ", ".join(f"{key} {len(value)}" for key, value in zipped.items())
        raise ValueError(f"zip: its lists go side by side and must be of one length ({lengths})")
    parsing.different("zip", [dict(zip(zipped, row, strict=True)) for row in zip(*zipped.values(), strict=True)])


def _shape(place: str, value: Any, usual: Values, known: set[str]) -> tuple[Values, Shape]:
    told = parsing.mapping(place, value)
    when = parsing.wanted(f"{place}.when", told.pop("when", None), known)
    return when, sections.build(Shape, usual | told, place)


def _condition(place: str, value: Any) -> Condition:
    try:
        return Condition.parse(value)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def overrides(values: Sequence[tuple[str, Any]]) -> list[str]:
    """Values as KEY=VALUE words."""
    return [f"{key}={json.dumps(value)}" for key, value in values]
