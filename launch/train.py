"""`infogan train`, also as `accelerate launch -m launch.train --config FILE key=value ...`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.plugin_option import plugin_option
from launch.processes import start_processes
from launch.say import say

if TYPE_CHECKING:
    from infogan.trainer import Outcome

EXIT_STOPPED = {"SIGINT": 130, "SIGUSR2": 140, "SIGTERM": 143}


@click.command(
    short_help="Train a run, or go on with it; the same command resumes.",
    context_settings={"ignore_unknown_options": False},
)
@click.argument("words", nargs=-1, metavar="[PRESET] [KEY=VALUE]...")
@click.option(
    "--config",
    "config",
    metavar="FILE",
    help="The preset as an option: a file, or one of ours (paper/mnist).",
)
@click.option(
    "--run",
    "run",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The run's folder. [default: runs/PRESET-seedN]",
)
@click.option("--from", "start_from", metavar="RUN[@KIMG]", help="Begin a new run with another run's weights.")
@click.option("--processes", type=click.IntRange(min=1), help="Processes on this machine, one per GPU. [default: 1]")
@plugin_option
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
def command(
    words: tuple[str, ...],
    config: str | None,
    run: Path | None,
    start_from: str | None,
    processes: int | None,
    dry_run: bool,
) -> None:
    """Train a run until its stop, or until Ctrl-C or SIGTERM, which save first.

    PRESET is a file or one of ours, such as paper/mnist; KEY=VALUE overrides one of its settings, as in
    optimizer.critic.lr=1e-4, stop="20 epochs" or codes.c2=null. With --run alone, a run goes on with its own config.
    """
    preset, overrides = _preset_and_overrides(words, config, run)
    from infogan import ranks, settings

    told = ranks.told()
    if processes is not None and told is not None and processes != told.world:
        raise click.UsageError(
            f"--processes {processes}, but a launcher has started {told.world} (WORLD_SIZE); leave --processes away"
        )
    chosen = settings.load(preset, overrides, run)
    if processes is not None and processes > 1 and told is None and not dry_run:
        from infogan import beforehand

        beforehand.check(chosen, run, processes)
        options = [f"--run={run}"] * (run is not None) + [f"--from={start_from}"] * (start_from is not None)
        sys.exit(start_processes("train", processes, [*options, "--", preset, *overrides]))
    if dry_run:
        say("looking at networks and data")  # what is imported for it takes seconds, too
        from infogan.description import describe

        for line in describe(chosen, say):
            click.echo(line)
        return
    from infogan.session import train

    outcome = train(chosen, run, start_from=start_from, say=say)
    stop_if_interrupted(outcome)


def stop_if_interrupted(outcome: "Outcome") -> None:
    """Leave with the shell's code for the signal that stopped a run before its end."""
    if outcome.signal_name is not None and not outcome.finished:
        sys.exit(EXIT_STOPPED[outcome.signal_name])


def _preset_and_overrides(words: tuple[str, ...], config: str | None, run: Path | None) -> tuple[str, tuple[str, ...]]:
    named = [word for word in words if "=" not in word]
    overrides = tuple(word for word in words if "=" in word)
    presets = named if config is None else [config, *named]
    if not presets and run is not None and (run / "config.yaml").is_file():
        presets = [str(run / "config.yaml")]
    if len(presets) != 1:
        raise click.UsageError(
            "say which preset to train, as in `infogan train paper/mnist`"
            if not presets
            else f"one preset at a time, not {', '.join(presets)}; settings are KEY=VALUE"
        )
    return presets[0], overrides


if __name__ == "__main__":
    from launch.cli import run as run_command

    run_command(command)
