"""Measuring a trained model: what its codes know, how its images look, and a report of it all.

    from infogan.evaluation import Options, evaluate_run, write
    report = evaluate_run(infogan.load("runs/mnist-seed0"), open_dataset("data/mnist"))
    write(report, Path("runs/mnist-seed0"))

Names are imported when they are first used: who sets reports side by side needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infogan.evaluation.context import Options
    from infogan.evaluation.evaluate import Report, evaluate_run, read_json
    from infogan.evaluation.metrics import Metric, Uncertainty, comparable
    from infogan.evaluation.report import refresh, write
    from infogan.evaluation.validation import validation_score

_HOMES = {
    "context": ("Options",),
    "evaluate": ("Report", "evaluate_run", "read_json"),
    "metrics": ("Metric", "Uncertainty", "comparable"),
    "report": ("refresh", "write"),
    "validation": ("validation_score",),
}
_HOME_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Metric",
    "Options",
    "Report",
    "Uncertainty",
    "comparable",
    "evaluate_run",
    "read_json",
    "refresh",
    "validation_score",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
