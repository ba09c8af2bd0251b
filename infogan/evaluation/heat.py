"""Codes against factors as the report shows them: factors down, codes across, encoder beside encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENCODERS = {"trained": "this model", "untrained": "untrained critic", "pca": "PCA", "kmeans": "k-means"}
CLEAR = 3.0  # standard deviations that a value is away from 0 before it is marked as its factor's best
TITLES = {"spearman": "Codes that follow a factor", "ami": "Codes that know a factor"}


@dataclass(frozen=True)
class Cell:
    """A value as printed, its spread, its size and sign for the colour.

    best: it is the largest of its encoder, and clear of 0. first: it begins an encoder's columns.
    """

    text: str
    spread: str
    size: float
    negative: bool
    best: bool
    first: bool


@dataclass(frozen=True)
class Heat:
    """One measure. `groups`: (encoder, codes). `rows`: (factor, cells), the cells in the order of the groups' codes.

    `periodic`: the factors that stand there by their sine and cosine too.
    """

    measure: str
    title: str
    split: str
    images: int
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    periodic: tuple[str, ...]


def heats(tables: Sequence[Mapping[str, Any]]) -> list[Heat]:
    """One for every measure among the tables of kind "factors"; see `infogan.evaluation.evaluate` for their form."""
    by_measure: dict[str, list[Mapping[str, Any]]] = {}
    for table in tables:
        if table["kind"] == "factors":
            by_measure.setdefault(table["measure"], []).append(table)
    return [_heat(measure, found) for measure, found in by_measure.items()]


def _heat(measure: str, tables: Sequence[Mapping[str, Any]]) -> Heat:
    first = tables[0]
    groups = tuple(
        (ENCODERS[table["encoder"]], tuple(_short(table["encoder"], code) for code in table["codes"]))
        for table in tables
    )
    rows = tuple(
        (name, tuple(_cell(table, c, f) for table in tables for c in range(len(table["codes"]))))
        for f, name in enumerate(first["factors"])
    )
    periodic = tuple(name for name in first["factors"] if f"sin({name})" in first["factors"])
    return Heat(measure, TITLES[measure], first["split"], first["images"], groups, rows, periodic)


def _cell(table: Mapping[str, Any], code: int, factor: int) -> Cell:
    value, std = table["values"][code][factor], table["std"][code][factor]
    text = f"{abs(value):.2f}"
    negative = value < 0 and text != "0.00"
    best = table["best"][factor] == code and abs(value) > CLEAR * std
    return Cell(("−" if negative else "") + text, f"± {std:.3f}", min(abs(value), 1.0), negative, best, code == 0)


def _short(encoder: str, code: str) -> str:
    """`pca3` => `3`, `kmeans10` => `10`: the group's heading says the rest. Codes of the model keep their names."""
    return code.removeprefix(encoder) if encoder in ("pca", "kmeans") else code
