"""`infogan doctor`: what this machine can do, where every package comes from, and what stands in the way."""

import json
from collections.abc import Callable, Iterator

import click

from launch import machine
from launch.cli import run
from launch.machine import Facts, Findings

SECTIONS: dict[str, Callable[[Findings], Facts]] = {
    "machine": machine.look_at_machine,
    "our packages": machine.look_at_our_packages,
    "dependencies": machine.look_at_dependencies,
    "devices": machine.look_at_devices,
    "torchvision": machine.look_at_torchvision,
    "processes": machine.look_at_processes,
    "slurm": machine.look_at_slurm,
    "weights": machine.look_at_weights,
}


def examine() -> tuple[dict[str, Facts], Findings]:
    """Looks at everything. A section whose libraries do not import is a problem but hides no other."""
    findings = Findings()
    report: dict[str, Facts] = {}
    for title, look in SECTIONS.items():
        try:
            report[title] = look(findings)
        except ImportError as error:
            report[title] = {"cannot be examined": machine.one_line(error)}
            findings.problems.append(f"{title} cannot be examined: {machine.one_line(error)}")
    return report, findings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine can do and where our packages come from.

    Leaves with status 1 where something is broken, so that a script can ask.
    """
    report, findings = examine()
    if as_json:
        outcome = {"problems": findings.problems, "notes": findings.notes, "ok": not findings.problems}
        click.echo(json.dumps({**report, **outcome}, indent=2))
    else:
        click.echo("\n".join(_page(report, findings)))
    ctx.exit(1 if findings.problems else 0)


def _page(report: dict[str, Facts], findings: Findings) -> Iterator[str]:
    for title, facts in report.items():
        yield click.style(title, bold=True)
        width = max(map(len, facts), default=0)
        yield from (f"  {name:<{width}}  {'missing' if value is None else value}" for name, value in facts.items())
        yield ""
    yield from (f"note: {note}" for note in findings.notes)
    yield from (click.style(f"problem: {problem}", fg="red") for problem in findings.problems)
    count = len(findings.problems)
    yield f"verdict: {'ready' if count == 0 else f'{count} problem' + ('s' if count > 1 else '')}"


if __name__ == "__main__":
    run(command)
