"""`stop_if`: when a run is hopeless, as in 'mi/digit < 0.5 after 200 kimg'."""

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm.parsing import shown

_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_CONDITION = re.compile(
    rf"(?P<metric>[^\s<>]+)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[-+]?{_NUMBER}(?:[eE][-+]?\d{{1,3}})?)"
    rf"(?:\s+after\s+(?P<kimg>{_NUMBER})\s*kimg)?",
    re.ASCII,
)


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
        match = _CONDITION.fullmatch(str(text).strip())
        if match is None or not math.isfinite(float(match["bound"])):
            raise ValueError(
                f"{shown(text)}: must be METRIC < NUMBER after NUMBER kimg, as in 'mi/digit < 0.5 after 200 kimg'"
            )
        return cls(str(text), match["metric"], match["sign"], float(match["bound"]), float(match["kimg"] or 0))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether one row of `metrics.jsonl` says that the run is hopeless."""
        value, kimg = row.get(self.metric), row.get("kimg", 0)
        if not isinstance(value, int | float) or not isinstance(kimg, int | float) or kimg < self.kimg:
            return False
        return bool(_SIGNS[self.sign](value, self.bound))
