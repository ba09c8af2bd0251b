"""The metric families by name. To add one: a module with a `measure(context) -> Outcome`, and a line here."""

from collections.abc import Callable

from infogan.evaluation import agreement, clustering, factors, fidelity, information, variation
from infogan.evaluation.context import Context
from infogan.evaluation.metrics import Outcome

FAMILIES: dict[str, Callable[[Context], Outcome]] = {
    "information": information.measure,
    "accuracy": clustering.measure,
    "agreement": agreement.measure,
    "factors": factors.measure,
    "fidelity": fidelity.measure,
    "variation": variation.measure,
}
