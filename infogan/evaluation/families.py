"""The metric families by name. To add one: a module with a `measure(context) -> Outcome`, and a line here."""

from collections.abc import Callable, Sequence

from infogan.evaluation import agreement, clustering, factors, fidelity, information, variation
from infogan.evaluation.context import Context
from infogan.evaluation.metrics import Outcome
from shards.errors import UserError

FAMILIES: dict[str, Callable[[Context], Outcome]] = {
    "information": information.measure,
    "accuracy": clustering.measure,
    "agreement": agreement.measure,
    "factors": factors.measure,
    "fidelity": fidelity.measure,
    "variation": variation.measure,
}


def check_families(place: str, wanted: Sequence[str]) -> None:
    """Raise UserError where a family is none of these; `place`: where its name was given."""
    for name in wanted:
        if name not in FAMILIES:
            raise UserError(f"{place}: {name}: no such metric family; there are: {', '.join(FAMILIES)}")
