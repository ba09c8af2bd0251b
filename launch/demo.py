"""`infogan demo`: the whole way, from raw images to a report, on data that needs no download."""

from pathlib import Path

import click

from launch.say import say


@click.command(short_help="Train on embedded digits and write a report: a few minutes, no download.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data/digits"),
    show_default=True,
    help="Where the data set goes.",
)
@click.option(
    "--run",
    "run",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Where the run goes.",
)
def command(data: Path, run: Path) -> None:
    """Build shards of scikit-learn's handwritten digits, verify them, train an InfoGAN on them, and measure it.

    Each step says the command that does the same for other data. A demo that was stopped goes on where it was.
    """
    from infogan import load, settings
    from infogan.evaluation import evaluate_run, write
    from infogan.session import train
    from launch.evaluate import tell
    from launch.train import stop_if_interrupted
    from shards import build, open_dataset, open_source
    from shards.errors import UserError
    from shards.verify import verify

    _step("1/4", f"infogan shards build digits --out {data}")
    build(open_source("digits"), data)
    _step("2/4", f"infogan shards verify {data}")
    for fault in verify(data):
        raise UserError(str(fault))
    _step("3/4", f"infogan train demo data.path={data} --run {run}")
    outcome = train(settings.load("demo", [f"data.path={data}"]), run, say=say)
    stop_if_interrupted(outcome)
    _step("4/4", f"infogan evaluate {run} --data {data}")
    report = evaluate_run(load(run, data=data), open_dataset(data), say=say)
    page = write(report, run)
    tell(report)
    click.echo(f"\ndone; open {page.resolve()}")


def _step(number: str, equivalent: str) -> None:
    click.secho(f"\n[{number}] {equivalent}", bold=True, err=True)
