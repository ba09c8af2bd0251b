"""Measuring a trained model: what its codes know, how its images look, and a report of it all.

from infogan.evaluation import Options, evaluate_run, write
report = evaluate_run(infogan.load("runs/mnist-seed0"), open_dataset("data/mnist"))
write(report, Path("runs/mnist-seed0"))
"""

from infogan.evaluation.context import Options
from infogan.evaluation.evaluate import Report, evaluate_run, read_json
from infogan.evaluation.metrics import Metric, Uncertainty, comparable
from infogan.evaluation.report import refresh, write
from infogan.evaluation.validation import validation_score

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
