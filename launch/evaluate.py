"""`infogan evaluate RUN`: measure a trained model, write its report, and print the headlines."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.plugin_option import plugin_option, say_what_changed
from launch.say import say

if TYPE_CHECKING:
    from infogan.evaluation import Report


@click.command(name="evaluate", short_help="Measure a run and write its report.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", metavar="FOLDER_OR_URL", help="The data set, where it is not the run's own.")
@click.option("--which", default="latest", show_default=True, help="Checkpoint: latest, best, or its kimg.")
@click.option("--split", default="test", show_default=True, help="The real images to measure against.")
@click.option(
    "--samples",
    type=click.IntRange(2, 1_000_000),
    help="Generated images.  [default: as many as the split has, at least 10,000]",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Inception weights, for FID, KID and IS.")
@click.option(
    "--only",
    multiple=True,
    help="A family of measures: information, accuracy, agreement, factors, fidelity, variation.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the latents, halves and resamples."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report.  [default: RUN/report]")
@plugin_option
def command(
    run: Path,
    data: str | None,
    which: str,
    split: str,
    samples: int | None,
    weights: Path | None,
    only: tuple[str, ...],
    seed: int,
    device: str,
    out: Path | None,
) -> None:
    """Measure RUN, a run folder or an exported model, and write report.html and report.json.

    Accuracy, NMI and ARI of the categorical codes against the labels; the mutual information in each code; the
    distance of generated images from real ones; how often an image shows what its code claims; and, where the data
    set's factors are known, which code follows which.
    """
    say(f"opening {run}")  # what is imported for it takes seconds, too
    from infogan import load
    from infogan.evaluation import Options, evaluate_run, write

    model = load(run, which=which, data=data, device=device)
    say_what_changed(run)
    dataset = model.config.data.open(data)
    options = Options(split, samples, weights, seed, only)
    report = evaluate_run(model, dataset, options, say)
    page = write(report, run, out)
    tell(report)
    click.echo(f"report: {page}")


def tell(report: "Report") -> None:
    """Print the numbers of a report with their spread, but for what only its tables show, and what was left out."""
    from infogan.evaluation.wording import in_a_table, words

    for metric in report.metrics:
        if in_a_table(metric):
            continue
        text = words(metric)
        click.echo(f"{text.value:>14} {text.spread:<14} {metric.name}")
    for note in report.notes:
        click.echo(f"left out: {note}")


if __name__ == "__main__":
    from launch.cli import run

    run(command, name="python -m launch.evaluate")
