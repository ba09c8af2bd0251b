"""By which number the runs of a sweep are ranked, and which end of it is the good one."""

from collections.abc import Mapping, Sequence

from shards.errors import UserError
from slurm.metric_names import better_end
from slurm.parsing import shown

LOG = "log/"
"""What stands before the name of a number of a run's log."""


def ranking(names: Sequence[str], best: Mapping[str, str | None] | None, *, ended: bool) -> tuple[str, str]:
    """The metric that ranks and its better side: as told, else accuracy, else the first code's L_I. Empty where no run
    has it yet.

    `names`: of all numbers that some run has; `ended`: whether all runs have, so that none is still to come.

    Raises UserError where a wanted metric is not there and will not be, or where nothing says what is better.
    """
    if best is not None:
        metric = str(best["metric"])
        found = next((name for name in (metric, f"{LOG}{metric}") if name in names), "")
        if not found and ended:
            raise UserError(f"metric {shown(metric)}: no run has it; there are {', '.join(names) or 'none'}")
        return found, best.get("better") or better_of(metric)
    for stem in ("accuracy_", f"{LOG}validation/accuracy/", "mi/", f"{LOG}mi/"):
        for name in names:
            if name.startswith(stem):
                return name, "higher"
    return "", "higher"


def better_of(metric: str) -> str:
    """`higher` or `lower`, by a metric's name; UserError where that does not tell."""
    better = better_end(metric.removeprefix(LOG))
    if better is None:
        raise UserError(
            f"metric {shown(metric)}: its name does not say which end is better: say --better higher or lower, or "
            "best.better in the file"
        )
    return better
