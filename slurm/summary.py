"""A sweep's table as CSV, with all numbers, and in Markdown, for pasting."""

import csv
import io
import time
from dataclasses import astuple

from slurm.results import Table
from slurm.sweep import described

NAMED = 10  # runs that a note names


def as_csv(table: Table) -> str:
    """One row per run: what varies, how it stands, hours, and every number."""
    keys = list(dict.fromkeys(key for run in table.runs for key in run.run.values))
    metrics = list(dict.fromkeys(name for run in table.runs for name in run.metrics))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    hours = [f"{device}_hours{of}" for device in table.devices for of in ("", "_wasted")]
    writer.writerow(["run", *keys, "state", "kimg", "attempts", "code", *hours, *metrics])
    for c in table.runs:
        values = [c.run.values.get(key, "") for key in keys]
        numbers = [c.metrics.get(name, "") for name in metrics]
        spent = [f"{number:.6f}" for device in table.devices for number in astuple(c.hours[device])]
        writer.writerow(
            [c.run.id, *values, c.status.state, c.status.images / 1000, len(c.attempts), c.code, *spent, *numbers]
        )
    return buffer.getvalue()


def markdown(table: Table) -> str:
    """The groups with mean ± standard deviation (n seeds), for pasting."""
    columns = table.columns()
    lines = [f"### Sweep {table.sweep.name}", "", headline(table), ""]
    lines += [f"| values | trained | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for group in table.groups:
        done = sum(run.status.trained for run in group.runs)
        cells = [str(group.metrics[name]) if name in group.metrics else "" for name in columns]
        lines.append(f"| {group.name} | {done} of {len(group.runs)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *notes(table), ""])


def headline(table: Table) -> str:
    """The best run and what all of it cost, in a sentence or two."""
    told = ""
    if table.best is not None:
        value = table.best.metrics[table.metric]
        values = described(table.best.run.values)
        told = f"Best by {table.metric} ({table.better}): run {table.best.run.id}, {values}, {value:.4g}. "
    all_hours = [(device, table.hours(device)) for device in table.devices]
    cost = [f"{hours.spent:.3g} {device}-hours, {hours.wasted:.3g} of them wasted" for device, hours in all_hours]
    return f"{told}{'; '.join(cost)}."


def notes(table: Table) -> list[str]:
    """What a reader of the table has to know."""
    found = ["Mean ± standard deviation over seeds (number of runs that are trained)."]
    codes = sorted({run.code for run in table.runs if run.code})
    if len(codes) > 1:
        found.append(f"The runs were made by {len(codes)} states of the code ({', '.join(codes)}).")
    unfinished = [run for run in table.runs if run.status.state != "finished"]
    if unfinished:
        named = ", ".join(f"{run.run.id} ({run.status.state})" for run in unfinished[:NAMED])
        more = f" and {len(unfinished) - NAMED} more" if len(unfinished) > NAMED else ""
        found.append(f"Not finished: {named}{more}.")
    if table.dropped:
        found.append(
            f"Left out, since the sweep's file asks for them no more: {', '.join(table.dropped[:NAMED])}"
            f"{f' and {len(table.dropped) - NAMED} more' if len(table.dropped) > NAMED else ''}."
        )
    found += [f"Run {run.run.id}: {note}." for run in table.runs for note in run.notes]
    found += [f"{table.unranked}."] if table.unranked else []
    found.append(f"Made {time.strftime('%Y-%m-%d %H:%M')}.")
    return found
