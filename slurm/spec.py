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
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infogan import sections
from infogan.checks import above, at_least
from shards.errors import UserError
from slurm.cluster import megabytes, minutes

Values = dict[str, Any]
"""Dotted paths of a config and their values."""

DISTRIBUTIONS = ("uniform", "log_uniform", "integers", "choice")
CONDITION = re.compile(
    r"(?P<metric>[\w./-]+)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[-+.\deE]+)(?:\s+after\s+(?P<kimg>[\d.]+)\s*kimg)?"
)


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
        if self.samples is not None:
            at_least("samples", self.samples, 2)

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
class Condition:
    """When a run is hopeless: a number of its log's rows on one side of a bound, from some kimg on."""

    text: str
    metric: str
    sign: str
    bound: float
    kimg: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        match = CONDITION.fullmatch(str(text).strip())
        try:
            bound = float(match["bound"]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or math.isnan(bound):
            raise ValueError(
                f"{text!r}: must be METRIC < NUMBER after NUMBER kimg, as in 'mi/digit < 0.5 after 200 kimg'"
            )
        return cls(str(text), match["metric"], match["sign"], bound, float(match["kimg"] or 0))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether one row of `metrics.jsonl` says that the run is hopeless."""
        value = row.get(self.metric)
        if value is None or row.get("kimg", 0) < self.kimg:
            return False
        return {
            "<": value < self.bound, "<=": value <= self.bound, ">": value > self.bound, ">=": value >= self.bound,
        }[self.sign]  # fmt: skip


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
    drawn: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0
    seeds: tuple[int, ...] = (0,)
    exclude: tuple[Values, ...] = ()
    shape: Shape = Shape()
    shapes: tuple[tuple[Values, Shape], ...] = ()
    limits: Limits = Limits()
    stop_if: tuple[Condition, ...] = ()
    evaluate: Evaluation = Evaluation()
    best: Best | None = None
    cluster: str | None = None
    data: dict[str, Values] = field(default_factory=dict)

    def combinations(self) -> Iterator[Values]:
        """What varies, per run and in a fixed order; excluded combinations are left out."""
        rows = [dict(zip(self.zipped, row, strict=True)) for row in zip(*self.zipped.values(), strict=True)] or [{}]
        points = [dict(zip(self.grid, point, strict=True)) for point in itertools.product(*self.grid.values())]
        drawn = [self._draw(number) for number in range(self.draws)] or [{}]
        for point, row, draw, seed in itertools.product(points, rows, drawn, self.seeds):
            values = point | row | draw | {"seed": seed}
            if not any(matches(values | self.fixed, left_out) for left_out in self.exclude):
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
        """One random point. Each value is drawn by itself, so that another key or more draws change no other."""
        values = {}
        for key, distribution in self.drawn.items():
            ((kind, limits),) = distribution.items()
            source = random.Random(f"{self.draw_seed}/{key}/{number}")
            values[key] = _DRAW[kind](source, limits)
        return values


_DRAW = {
    "uniform": lambda source, limits: _rounded(source.uniform(*limits)),
    "log_uniform": lambda source, limits: _rounded(math.exp(source.uniform(*map(math.log, limits)))),
    "integers": lambda source, limits: source.randint(*limits),
    "choice": lambda source, options: source.choice(options),
}


def _rounded(value: float) -> float:
    """Six digits are enough for a rate, and can be read and written."""
    return float(f"{value:.6g}")


def matches(values: Values, wanted: Values) -> bool:
    """Whether all that is wanted is there."""
    return all(key in values and values[key] == value for key, value in wanted.items())


def load(path: Path) -> Spec:
    """Read and check a sweep file.

    Raises UserError: file, place, rule and remedy in one line.
    """
    if not path.is_file():
        raise UserError(f"sweep {path}: no such file; see configs/sweeps/ for examples")
    plain = sections.read_yaml(path)
    try:
        return _parse(path, plain)
    except (UserError, ValueError) as error:
        raise UserError(f"sweep {path}: {error}") from None


def _parse(path: Path, plain: Values) -> Spec:
    known = (
        "base", "name", "fixed", "grid", "zip", "random", "seeds", "exclude", "shape", "shapes", "limits", "stop_if",
        "evaluate", "best", "cluster", "data",
    )  # fmt: skip
    for key in plain:
        if key not in known:
            raise ValueError(f"{key}: unknown; known here: {', '.join(known)}")
    if not isinstance(plain.get("base"), str):
        raise ValueError("base: must name a preset, as in base: paper/mnist")
    beside = path.parent / plain["base"]
    random_section = _mapping(plain, "random")
    drawn = {key: value for key, value in random_section.items() if key not in ("draws", "seed")}
    grid = {key: _options("grid", key, value) for key, value in _mapping(plain, "grid").items()}
    zipped = {key: _options("zip", key, value) for key, value in _mapping(plain, "zip").items()}
    if len({len(value) for value in zipped.values()}) > 1:
        lengths = ", ".join(f"{key} {len(value)}" for key, value in zipped.items())
        raise ValueError(f"zip: its lists go side by side and must be of one length ({lengths})")
    for first, second in itertools.combinations(("fixed", "grid", "zip", "random"), 2):
        for key in _mapping(plain, first).keys() & _mapping(plain, second).keys():
            raise ValueError(f"{second}.{key}: is in {first} too; say it once")
    known_values = {*grid, *zipped, *drawn, *_mapping(plain, "fixed"), "seed"}
    shape = _checked_mapping("shape", plain.get("shape", {}))
    return Spec(
        path=path,
        base=str(beside) if beside.is_file() else plain["base"],
        name=_name(plain, path),
        fixed=_mapping(plain, "fixed"),
        grid=grid,
        zipped=zipped,
        drawn={key: _distribution(key, value) for key, value in drawn.items()},
        draws=_draws(random_section, drawn),
        draw_seed=_whole("random.seed", random_section.get("seed", 0), 0),
        seeds=_seeds(plain.get("seeds", 1), {**grid, **zipped, **drawn, **_mapping(plain, "fixed")}),
        exclude=tuple(_wanted(f"exclude.{i}", x, known_values) for i, x in enumerate(_list(plain, "exclude"))),
        shape=sections.build(Shape, shape, "shape"),
        shapes=tuple(_shape(f"shapes.{i}", x, shape, known_values) for i, x in enumerate(_list(plain, "shapes"))),
        limits=sections.build(Limits, plain.get("limits", {}), "limits"),
        stop_if=tuple(_condition(f"stop_if.{i}", value) for i, value in enumerate(_list(plain, "stop_if"))),
        evaluate=sections.build(Evaluation, plain.get("evaluate", {}), "evaluate"),
        best=sections.build(Best, plain["best"], "best") if "best" in plain else None,
        cluster=sections.build(str | None, plain.get("cluster"), "cluster"),
        data={key: _checked_mapping(f"data.{key}", value) for key, value in _mapping(plain, "data").items()},
    )


def _name(plain: Values, path: Path) -> str:
    name = str(plain.get("name", path.stem))
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        instead = "" if "name" in plain else "; say name: NAME in the file"
        raise ValueError(f"name: {name!r}: must be letters, digits, _, . and -{instead}")
    return name


def _mapping(plain: Values, key: str) -> Values:
    return _checked_mapping(key, plain.get(key, {}))


def _checked_mapping(place: str, value: Any) -> Values:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: {value!r}: must be a mapping from settings to values")
    return {str(key): item for key, item in value.items()}


def _list(plain: Values, key: str) -> list[Any]:
    value = plain.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key}: {value!r}: must be a list")
    return value


def _options(section: str, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{section}.{key}: {value!r}: must be a list of values")
    return value


def _whole(place: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{place}: {value!r}: must be a whole number, at least {least}")
    return value


def _draws(section: Values, drawn: Values) -> int:
    if not drawn and not section:
        return 0
    if not drawn:
        raise ValueError("random: draws nothing; add a setting and its distribution, or remove the section")
    return _whole("random.draws", section.get("draws"), 1)


def _distribution(key: str, value: Any) -> dict[str, list[Any]]:
    place = f"random.{key}"
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in DISTRIBUTIONS:
        raise ValueError(f"{place}: {value!r}: must be one of {', '.join(DISTRIBUTIONS)}, as in {{uniform: [0, 1]}}")
    ((kind, limits),) = value.items()
    if kind == "choice":
        return {kind: _options("random", key, limits)}
    numbers = isinstance(limits, list) and len(limits) == 2 and all(type(x) in (int, float) for x in limits)
    if not numbers or not limits[0] < limits[1]:
        raise ValueError(f"{place}.{kind}: {limits!r}: must be two numbers, the lower one first")
    if kind == "log_uniform" and limits[0] <= 0:
        raise ValueError(f"{place}.log_uniform: {limits!r}: must be above 0")
    if kind == "integers" and not all(type(x) is int for x in limits):
        raise ValueError(f"{place}.integers: {limits!r}: must be whole numbers")
    return {kind: limits}


def _seeds(value: Any, others: Mapping[str, Any]) -> tuple[int, ...]:
    if "seed" in others:
        raise ValueError("seed: belongs in seeds, as a number of seeds or a list of them")
    if isinstance(value, list):
        return tuple(_whole("seeds", seed, 0) for seed in _options("sweep", "seeds", value))
    return tuple(range(_whole("seeds", value, 1)))


def _shape(place: str, value: Any, usual: Values, known: Collection[str]) -> tuple[Values, Shape]:
    section = _checked_mapping(place, value)
    when = _wanted(f"{place}.when", section.pop("when", None), known)
    return when, sections.build(Shape, usual | section, place)


def _wanted(place: str, value: Any, known: Collection[str]) -> Values:
    """Values by which runs are picked; a key that no run has would pick none, and say nothing."""
    wanted = _checked_mapping(place, value)
    for key in wanted:
        if key not in known:
            raise ValueError(f"{place}.{key}: no run sets this; set here: {', '.join(sorted(known))}")
    return wanted


def _condition(place: str, value: Any) -> Condition:
    try:
        return Condition.parse(value)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def overrides(values: Sequence[tuple[str, Any]]) -> list[str]:
    """Values as KEY=VALUE words."""
    return [f"{key}={json.dumps(value)}" for key, value in values]
