"""`infogan train`, also as `accelerate launch -m launch.train --config FILE key=value ...`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.plugin_option import loaded_plugins, plugin_option

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
    if processes is not None and processes != (already := int(os.environ.get("WORLD_SIZE", processes))):
        raise click.UsageError(
            f"--processes {processes}, but a launcher has started {already} (WORLD_SIZE); leave --processes away"
        )
    if processes is not None and processes > 1 and "WORLD_SIZE" not in os.environ and not dry_run:
        options = [f"--run={run}"] * (run is not None) + [f"--from={start_from}"] * (start_from is not None)
        sys.exit(_launch(processes, [*options, "--", preset, *overrides]))
    from infogan import settings

    chosen = settings.load(preset, overrides, run)
    if dry_run:
        from infogan.description import describe

        for line in describe(chosen):
            click.echo(line)
        return
    from infogan.session import train

    outcome = train(chosen, run, start_from=start_from, say=lambda line: click.echo(line, err=True))
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


def _launch(processes: int, words: Sequence[str]) -> int:
    """Train with these words in several processes; returns the exit status of the first that failed, else 0.

    torch's launcher, since accelerate's starts only one process on a machine without a GPU. Each process prints its own
    error; the launcher's account of it, a traceback, would add nothing.
    """
    import logging
    import uuid

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from infogan.watch import EXIT_PART_FAILED
    from shards.workers import available_cores

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    launch_config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        max_restarts=0,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",  # handed on; of any other, orphans would be left
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    try:
        elastic_launch(launch_config, sys.executable)("-m", "launch.train", *loaded_plugins(), *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else EXIT_PART_FAILED  # killed; another process has told of it
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    from launch.cli import run as run_command

    run_command(command)
