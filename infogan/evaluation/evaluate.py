"""Measure a trained model on a data set, and write down what was found.

`report/report.json`, format 1:

    format      1
    run         {"name", "kimg", "update", "seed", "network", "codes": name -> settings}
    data        {"name", "digest", "classes"}
    checkpoint  {"digest"}
    options     {"weights", "only"} as they were given; the others are in the protocols
    metrics     [{"name", "value", "uncertainty": {"kind", "std", "n"} | null, "protocol": {...}}]
    tables      [{"kind": "code_to_class", "code", "split", "classes", "counts" [ways][classes], "matching"},
                 {"kind": "agreement_by_class", "code", "classes", "agreement", "images"},
                 {"kind": "factors", "measure": "spearman" | "ami", "encoder": "trained" | "untrained" | "pca" |
                  "kmeans", "split", "images", "codes", "factors", "values" [codes][factors], "std" (bootstrap),
                  "best" [factors] (number of the code)}]
    pictures    [{"name", "caption", "path" (relative to the report)}]
    notes       what was left out, and why
    made_with   versions of the packages that the numbers depend on

`report/report.html` shows the same, with the training curves, in one file that needs nothing else.
"""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infogan.config import to_plain
from infogan.evaluation.context import Context, Options
from infogan.evaluation.families import FAMILIES, check_families
from infogan.evaluation.gallery import Picture, gallery
from infogan.evaluation.metrics import Metric
from infogan.model import Model
from shards import Dataset, atomic
from shards.errors import UserError
from shards.versions import installed

FORMAT = 1
PACKAGES = ("torch", "torch-fidelity", "numpy", "scipy", "scikit-learn")


@dataclass
class Report:
    """All that an evaluation found, and the run's config."""

    run: dict[str, Any]
    data: dict[str, Any]
    checkpoint: dict[str, Any]
    config: dict[str, Any]
    metrics: list[Metric] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of report.json."""
        return {
            "format": FORMAT,
            "run": self.run,
            "data": self.data,
            "checkpoint": self.checkpoint,
            "options": self.options,
            "metrics": [metric.as_json() for metric in self.metrics],
            "tables": self.tables,
            "pictures": [picture.as_json() for picture in self.pictures],
            "notes": self.notes,
            "made_with": {package: installed(package) for package in PACKAGES},
        }


def evaluate_run(
    model: Model, dataset: Dataset, options: Options | None = None, say: Callable[[str], None] = lambda line: None
) -> Report:
    """Run the metric families on `model` and draw its pictures; takes minutes, and shows its progress.

    `say` is told, in one line, what begins.

    Raises UserError where the data set is not the one that the model was trained on, where it lacks what an
    explicitly wanted family needs, or where a family's name is unknown.
    """
    options = options or Options()
    _check(model, dataset, options)
    report = blank(model, dataset)
    weights = str(options.weights) if options.weights is not None else None
    report.options = {"weights": weights, "only": list(options.only)}
    with closing(Context(model, dataset, options)) as context:
        for name in options.only or FAMILIES:
            say(f"measuring {name}")
            outcome = FAMILIES[name](context)
            report.metrics += outcome.metrics
            report.tables += outcome.tables
            report.notes += outcome.notes
        say("drawing pictures")
        report.pictures = gallery(model, context.classes, context.matchings)
    return report


def blank(model: Model, dataset: Dataset) -> Report:
    """A report of `model` without numbers or pictures."""
    origin, config = model.origin, to_plain(model.config)
    run = {
        "name": origin.run,
        "kimg": origin.kimg,
        "update": origin.update,
        "seed": model.config.seed,
        "network": config["network"]["name"],
        "codes": config["codes"],
    }
    manifest = dataset.manifest
    data = {"name": manifest.name, "digest": manifest.digest, "classes": list(manifest.classes)}
    return Report(run, data, {"digest": origin.checkpoint_digest}, config)


def write_json(report: Report, folder: Path) -> None:
    """Write report.json and the pictures that it names; each file appears whole."""
    for picture in report.pictures:
        atomic.write_bytes(folder / picture.path, picture.png)
    atomic.write_json(folder / "report.json", report.as_json())


def read_json(folder: Path) -> dict[str, Any]:
    """The content of a report.json; raises UserError where there is none, or where its format is another."""
    path = folder / "report.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no report there; make one with `infogan evaluate`") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); evaluate again") from None
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')}, this version reads {FORMAT}; evaluate again")
    return content


def _check(model: Model, dataset: Dataset, options: Options) -> None:
    check_families("--only", options.only)
    if model.origin.data_digest != dataset.manifest.digest:
        raise UserError(
            f"data {dataset.shown}: digest {dataset.manifest.digest[:12]}, but {model.origin.run} was"
            f" trained on {model.origin.data_name} ({model.origin.data_digest[:12]}); give that data set with --data"
        )
