"""Random values of a sweep: which distributions there are, and what is drawn from them."""

import math
import random
from typing import Any

from slurm import parsing
from slurm.parsing import Values, shown

Distribution = dict[str, list[Any]]
"""Its kind, and its limits or options."""

_DRAW = {
    "uniform": lambda source, limits: _rounded(source.uniform(*limits)),
    "log_uniform": lambda source, limits: _rounded(math.exp(source.uniform(*map(math.log, limits)))),
    "integers": lambda source, limits: source.randint(*limits),
    "choice": lambda source, options: source.choice(options),
}


def point(distributions: dict[str, Distribution], seed: int, number: int) -> Values:
    """One random point. Each value is drawn by itself, so that another key or more draws change no other."""
    values = {}
    for key, distribution in distributions.items():
        ((kind, limits),) = distribution.items()
        values[key] = _DRAW[kind](random.Random(f"{seed}/{key}/{number}"), limits)
    return values


def _rounded(value: float) -> float:
    """Six digits are enough for a rate, and can be read and written."""
    return float(f"{value:.6g}")


def parse(section: Values) -> tuple[dict[str, Distribution], int, int]:
    """The section `random`: distributions by setting, the number of draws, and their seed."""
    told = {key: value for key, value in section.items() if key not in ("draws", "seed")}
    if section and not told:
        raise ValueError("random: draws nothing; add a setting and its distribution, or remove the section")
    draws = parsing.whole("random.draws", section.get("draws"), 1) if told else 0
    seed = parsing.whole("random.seed", section.get("seed", 0), 0)
    return {key: _distribution(f"random.{key}", value) for key, value in told.items()}, draws, seed


def _distribution(place: str, value: Any) -> Distribution:
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _DRAW:
        raise ValueError(f"{place}: {shown(value)}: must be one of {', '.join(_DRAW)}, as in {{uniform: [0, 1]}}")
    ((kind, limits),) = value.items()
    if kind == "choice":
        return {kind: parsing.options(f"{place}.choice", limits)}
    numbers = isinstance(limits, list) and len(limits) == 2 and all(type(x) in (int, float) for x in limits)
    if not numbers or not limits[0] < limits[1]:
        raise ValueError(f"{place}.{kind}: {shown(limits)}: must be two numbers, the lower one first")
    if kind == "log_uniform" and limits[0] <= 0:
        raise ValueError(f"{place}.log_uniform: {shown(limits)}: must be above 0")
    if kind == "integers" and not all(type(x) is int for x in limits):
        raise ValueError(f"{place}.integers: {shown(limits)}: must be whole numbers")
    return {kind: limits}
