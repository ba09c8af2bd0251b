"""`infogan train`, also as `accelerate launch -m launch.train --config FILE key=value ...`."""

import os
import subprocess
import sys
from pathlib import Path

import click

EXIT_STOPPED = {"SIGINT": 130, "SIGTERM": 143}


@click.command(
    short_help="Train a run, or go on with it; the same command resumes.",
    context_settings={"ignore_unknown_options": False},
)
@click.argument("words", nargs=-1, metavar="[PRESET] [KEY=VALUE]...")
@click.option("--config", "config", metavar="FILE", help="The preset as an option: a file, or one of ours (paper/mnist).")
@click.option("--run", "run", metavar="DIR", type=click.Path(path_type=Path), help="The run's folder. [default: runs/PRESET-seedN]")
@click.option("--from", "start_from", metavar="RUN[@KIMG]", help="Begin a new run with another run's weights.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Processes on this machine, one per GPU.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
def command(
    words: tuple[str, ...], config: str | None, run: Path | None, start_from: str | None, processes: int, dry_run: bool
) -> None:
    """Train a run until its stop, or until Ctrl-C or SIGTERM, which save first.

    PRESET is a file or one of ours, such as paper/mnist; KEY=VALUE overrides one of its settings, as in
    optimizer.critic.lr=1e-4, stop="20 epochs" or codes.c2=null. With --run alone, a run goes on with its own config.
    """
    preset, overrides = _preset_and_overrides(words, config, run)
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        sys.exit(_launch(processes))
    from infogan import settings

    chosen = settings.load(preset, overrides)
    if dry_run:
        from infogan.description import describe

        click.echo(describe(chosen))
        return
    from infogan.session import train

    outcome = train(chosen, run, start_from=start_from, say=lambda line: click.echo(line, err=True))
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


def _launch(processes: int) -> int:
    """Start the same command in several processes with torchrun: accelerate's launcher starts one where there is no GPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*launcher, "-m", "launch.train", *sys.argv[sys.argv.index("train") + 1 :]], check=False).returncode


if __name__ == "__main__":
    from launch.cli import run as run_command

    run_command(command)
