"""What a measured number is: a name that says what was measured, a value, its uncertainty, its protocol.

Names. `accuracy_test/digit`, `nmi_test/digit` and `ari_test/digit` read a categorical code against the labels of a
split; `mi/digit` is a mutual-information lower bound in nats; `spearman_test/c1/azimuth` and `ami_test/c1/azimuth` hold
what a code reads against a true factor, and `spearman_best_test/azimuth[pca]` is the factor's best code of the encoder
in brackets, without them the model's own; `frechet10k_test[mnist-classifier@1a2b3c]` compares 10,000 generated images
with the test split by the features that the brackets name. The established names `fid`, `kid` and `is` are kept for the
original Inception weights, whose numbers can be set beside published ones; every other extractor gets `frechet`,
`kernel` and `score` with its own name in brackets.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.errors import UserError

EXTRACTOR_IN_NAME = re.compile(r"^(?P<stem>[^\[]+)\[(?P<kind>.+)@(?P<digest>[0-9a-f]+)\]")


@dataclass(frozen=True)
class Uncertainty:
    """A standard deviation and where it comes from: `kind` names what was repeated n times.

    "latent draws", "bootstrap" or "binomial" (over images), "subsets" or "splits" (of images), "seeds".
    """

    kind: str
    std: float
    n: int


@dataclass(frozen=True)
class Metric:
    """One number with all that is needed to read it; `protocol` is a flat mapping."""

    name: str
    value: float
    uncertainty: Uncertainty | None = None
    protocol: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object that report.json holds."""
        return asdict(self)


@dataclass
class Outcome:
    """What a metric family found: numbers, tables for the report, and notes on what it left out and why."""

    metrics: list[Metric] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def count_in_name(samples: int) -> str:
    """10000 => "10k", 1500 => "1500": the sample count as it stands in a metric's name."""
    return f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)


def in_brackets(stem: str, which: str) -> str:
    """Append the name of an extractor or encoder; the empty name (original Inception, the model's Q) adds nothing."""
    return f"{stem}[{which}]" if which else stem


def comparable(reports: Iterable[dict[str, Any]]) -> None:
    """Refuse to set reports side by side whose numbers do not mean the same.

    `reports` are contents of report.json. Raises UserError where they come from data sets of different
    digests, or where one metric was measured with two trainings of one extractor (two hashes of its
    weights).
    """
    data: dict[str, str] = {}
    extractors: dict[tuple[str, str], tuple[str, str]] = {}
    for number, report in enumerate(reports):
        where = str(report.get("run", {}).get("name") or f"report {number}")
        data.setdefault(report["data"]["digest"], where)
        for metric in report["metrics"]:
            found = EXTRACTOR_IN_NAME.match(metric["name"])
            if found is None:
                continue
            first, first_where = extractors.setdefault((found["stem"], found["kind"]), (found["digest"], where))
            if first != found["digest"]:
                raise UserError(
                    f"{found['stem']}: {first_where} was measured with {found['kind']}@{first}, {where} with"
                    f" {found['kind']}@{found['digest']}: numbers of different extractors cannot be compared;"
                    " evaluate both against one data folder, which keeps the trained extractor"
                )
    if len(data) > 1:
        listed = ", ".join(f"{where} ({digest[:12]})" for digest, where in data.items())
        raise UserError(f"reports of different data sets cannot stand in one table: {listed}; evaluate on the same one")


def find(metrics: Sequence[Metric], stem: str) -> Metric | None:
    """The first metric whose name starts with `stem`, or None."""
    return next((metric for metric in metrics if metric.name.startswith(stem)), None)
