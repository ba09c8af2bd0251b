"""The report as one HTML file: no script, no network, pictures inside; for screen, phone and paper."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from infogan.evaluation.charts import COLOURS, Series, line_chart
from infogan.evaluation.evaluate import Report, blank, write_json
from infogan.evaluation.gallery import Picture, gallery
from infogan.evaluation.heat import ENCODERS, heats
from infogan.evaluation.metrics import Metric, find
from infogan.evaluation.wording import GROUPS, Words, in_a_table, printed, take_apart, words
from infogan.model import Model
from infogan.tracking import read_log
from shards import Dataset, atomic

X_LABEL = "images seen (thousands)"


@dataclass(frozen=True)
class Tile:
    """One headline: a label, the value, what to hold it against, and its share of the best possible."""

    label: str
    value: str
    context: str
    share: float | None = None


@dataclass(frozen=True)
class Chart:
    """A drawn chart with its legend: (name, colour class) pairs."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]
    note: str = ""


def write(report: Report, run: Path, out: Path | None = None) -> Path:
    """Write report.json, its pictures and report.html to `out`, by default `run`/report; return the page.

    Curves and environment are read from the run folder, where there are any.
    """
    folder = out or run / "report"
    write_json(report, folder)
    return write_page(report, run, folder)


def refresh(model: Model, dataset: Dataset, scores: Mapping[str, float], run: Path) -> Path:
    """Write the page of a run that is still training: its curves, its pictures and the validation `scores`.

    report.json is left alone: numbers taken in passing are not an evaluation.
    """
    report = blank(model, dataset)
    protocol = {
        "taken": "while training",
        "split": "validation",
        "checkpoint_digest": model.origin.checkpoint_digest,
        "data_digest": dataset.manifest.digest,
    }
    ceilings = model.codes.ceilings()
    for name, value in scores.items():
        plain = name.removeprefix("validation/")
        ceiling = {"ceiling": ceilings[plain.removeprefix("mi/")]} if plain.startswith("mi/") else {}
        report.metrics.append(Metric(plain, value, None, protocol | ceiling))
    report.pictures = gallery(model, (), {})
    banner = (
        f"Taken while training: the state after {model.origin.kimg:,g} thousand images, scored on the validation"
        " split. “infogan evaluate” measures in full."
    )
    return write_page(report, run, run / "report", banner)


def write_page(report: Report, run: Path, folder: Path, banner: str = "") -> Path:
    """Write report.html alone; `banner` is a line at its top, such as that its numbers were taken in passing."""
    page = folder / "report.html"
    atomic.write_text(page, render(report, read_log(run), environment_of(run), banner))
    return page


def render(report: Report, rows: Sequence[dict[str, Any]], environment: dict[str, Any], banner: str = "") -> str:
    """The page as text. `rows`: the run's log. `environment`: name => value, shown as it is."""
    templates = Environment(
        loader=PackageLoader("infogan.evaluation"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"data_uri": data_uri, "protocol_value": protocol_value, "subscript": subscript}
    kinds = ("samples", "traversal", "classes")
    by_kind = {kind: [picture for picture in report.pictures if picture.kind == kind] for kind in kinds}
    agreement = next((table for table in report.tables if table["kind"] == "agreement_by_class"), None)
    return templates.get_template("report.html.j2").render(
        report=report,
        banner=banner,
        tiles=tiles(report),
        pictures=by_kind,
        agreement={} if agreement is None else dict(zip(agreement["classes"], agreement["agreement"], strict=True)),
        charts=charts(rows, {name: code.get("ceiling") for name, code in _ceilings(report).items()}),
        matrices=[_matrix(table) for table in report.tables if table["kind"] == "code_to_class"],
        heats=heats(report.tables),
        groups=_groups(report.metrics),
        config=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
        environment=environment,
    )


def tiles(report: Report) -> list[Tile]:
    """The numbers that a reader wants first; those that were not measured are left out."""
    found = []
    for name, code in list(report.config["codes"].items())[:1]:
        metric = find(report.metrics, f"mi/{name}")
        if metric is not None:
            ceiling = metric.protocol.get("ceiling")
            context = f"of {ceiling:.3f} possible".replace("-", "−") if ceiling is not None else "no ceiling"
            share = metric.value / ceiling if ceiling and code["kind"] == "categorical" else None
            found.append(Tile(f"Information in “{name}”", words(metric).value, context, share))
    found += _class_tiles(report) + _factor_tiles(report.metrics)
    distance = find(report.metrics, "frechet") or find(report.metrics, "fid")
    if distance is not None:
        floor = distance.protocol.get("floor")
        context = "lower is better"
        if floor is not None:
            # fewer images make any distance larger, so on a small set the floor can lie above the distance
            images = f"{distance.protocol['floor_images']:,} images each"
            context = f"real halves ({images}): {printed('frechet', floor)}; {context}"
        found.append(Tile("Fréchet distance", words(distance).value, context))
    return found


def _class_tiles(report: Report) -> list[Tile]:
    """Of the categorical code that finds the classes best."""
    scored = [m for m in report.metrics if m.name.startswith("accuracy_") and "_fitted_on_" not in m.name]
    if not scored:
        return []
    code = take_apart(max(scored, key=lambda metric: metric.value).name)[2]
    of_several = f"“{code}”, best of {len(scored)} codes; " if len(scored) > 1 else ""
    found = []
    for stem, label, context in (
        ("accuracy_", "Classes found without labels", "matched on train"),
        ("agreement", "Images that show their class", "read by a classifier"),
    ):
        metric = next((m for m in report.metrics if m.name.startswith(stem) and take_apart(m.name)[2] == code), None)
        if metric is not None:
            spread = words(metric).spread
            about = of_several + (f"{spread}, {context}" if spread else context)
            found.append(Tile(label, words(metric).value, about, metric.value))
    return found


def _factor_tiles(metrics: Sequence[Metric]) -> list[Tile]:
    """Of the factor that a code follows most closely, with what the baselines reach for it."""
    for stem, label in (("spearman_best", "Closest to a true factor"), ("ami_best", "Most known of a true factor")):
        found = [m for m in metrics if take_apart(m.name)[0] == stem and not in_a_table(m)]
        if found:
            best = max(found, key=lambda metric: metric.value)
            protocol, factor = best.protocol, take_apart(best.name)[2]
            against = [
                f"{name} {protocol[f'best_of_{encoder}']:.2f}"
                for encoder, name in ENCODERS.items()
                if f"best_of_{encoder}" in protocol
            ]
            value = f"{'|ρ| ' if stem == 'spearman_best' else ''}{best.value:.2f}"
            return [Tile(label, value, f"“{protocol['code']}” with {factor}; {', '.join(against)}", best.value)]
    return []


def charts(rows: Sequence[dict[str, Any]], ceilings: dict[str, float | None]) -> list[Chart]:
    """Losses, L_I per code, and validation scores, over images seen; those without data are left out."""

    def series(key: str, name: str, ceiling: float | None = None) -> Series:
        return Series(name, [(row["kimg"], row[key]) for row in rows if isinstance(row.get(key), int | float)], ceiling)

    losses = [series("loss/generator", "generator"), series("loss/critic", "critic")]
    information = [series(f"mi/{name}", name, ceiling) for name, ceiling in ceilings.items()]
    keys = sorted({key for row in rows for key in row if key.startswith(("validation/accuracy/", "validation/nmi/"))})
    scores = [series(key, key.removeprefix("validation/").replace("/", " of ")) for key in keys]
    dotted = "Dotted: the most that a code can hold." if any(c is not None for c in ceilings.values()) else ""
    drawn = [
        ("Adversarial losses", "nats", losses, ""),
        ("Mutual information L_I", "nats", information, dotted),
        ("Validation scores", "share", scores, ""),
    ]
    found = []
    for title, unit, curves, note in drawn:
        curves = [s for s in curves if s.points]
        svg = line_chart(title, X_LABEL, unit, curves)
        if svg:
            legend = tuple((s.name, f"c{number % COLOURS}") for number, s in enumerate(curves))
            found.append(Chart(title, Markup(svg), legend, note))  # our own SVG, its texts escaped
    return found


def environment_of(run: Path) -> dict[str, Any]:
    """The last start of the run, as environment.json has it; empty where there is none."""
    try:
        content = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    start = dict(content["starts"][-1]) if content.get("starts") else {}
    packages = start.pop("packages", {})
    start["command"] = " ".join(map(str, start.get("command", [])))
    start["plugins"] = ", ".join(f"{plugin['file']} {plugin['sha256'][:12]}" for plugin in start.get("plugins", []))
    return {key: value for key, value in start.items() if value not in (None, "")} | {
        key: value for key, value in packages.items() if value
    }


def data_uri(picture: Picture) -> str:
    """The picture's PNG as a data: address."""
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")


def subscript(text: str) -> Markup:
    """The text with the I of L_I set below the line."""
    return Markup("L<sub>I</sub>").join(text.split("L_I"))


def protocol_value(value: Any) -> str:
    """A protocol entry as printed."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, str) and len(value) == 64:
        return value[:16] + "…"
    return "none" if value is None else str(value)


def _ceilings(report: Report) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for name in report.config["codes"]:
        metric = next((m for m in report.metrics if m.name == f"mi/{name}"), None)
        found[name] = {"ceiling": metric.protocol.get("ceiling") if metric else None}
    return found


def _groups(metrics: Sequence[Metric]) -> list[tuple[str, list[tuple[Metric, Words]]]]:
    listed = [(metric, words(metric)) for metric in metrics if not in_a_table(metric)]
    return [
        (title, rows) for key, title in GROUPS.items() if (rows := [pair for pair in listed if pair[1].group == key])
    ]


def _matrix(table: dict[str, Any]) -> dict[str, Any]:
    """The contingency matrix for the page: a row per category, in the order of the matched classes."""
    matching = {int(category): label for category, label in table["matching"].items()}
    rows = []
    for category, counts in enumerate(table["counts"]):
        total = max(sum(counts), 1)
        cells = [
            {"count": count, "share": count / total, "matched": matching.get(category) == label}
            for label, count in enumerate(counts)
        ]
        rows.append({"category": category, "label": matching.get(category), "cells": cells, "total": sum(counts)})
    rows.sort(key=lambda row: (row["label"] is None, row["label"] or 0))
    return {"code": table["code"], "split": table["split"], "classes": table["classes"], "rows": rows}
