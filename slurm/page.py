"""A sweep's table as one HTML file, without script, in the style of a run's report."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from infogan.evaluation.charts import COLOURS, Series, line_chart
from slurm.results import Table
from slurm.summary import headline, notes
from slurm.sweep import described

X_LABEL = "images seen (thousands)"


def render(table: Table) -> str:
    """The page as text."""
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("slurm"), PackageLoader("infogan.evaluation")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return templates.get_template("sweep.html.j2").render(
        table=table,
        headline=headline(table),
        notes=notes(table),
        columns=table.columns(),
        charts=_charts(table),
        colours=COLOURS,
        described=described,
    )


def _charts(table: Table) -> list[dict[str, Any]]:
    """One chart per logged quantity, one curve per group; more groups than there are colours are left out."""
    charts = []
    for name in sorted(table.curves, key=lambda name: (not name.startswith("mi/"), name)):
        groups = list(table.curves[name].items())[:COLOURS]
        label = f"L_I of {name.removeprefix('mi/')} (nats)" if name.startswith("mi/") else name
        charts.append(
            {
                "title": label,
                "svg": Markup(line_chart(label, X_LABEL, "", [Series(group, points) for group, points in groups])),
                "legend": [(group, f"c{number}") for number, (group, _) in enumerate(groups)],
            }
        )
    return charts
