"""`--plugin FILE`: code of the user's own, run before the command that may need what it registers."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click


def _load(ctx: click.Context, parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    if files and not ctx.resilient_parsing:  # a shell that completes a line runs no code of it
        from shards import plugins
        from shards.errors import UserError

        for file in files:
            if file == Path():  # what an empty word becomes
                raise click.UsageError("--plugin: say which FILE")
            if not plugins.load(file).registers:
                raise UserError(
                    f"plugin {file}: registers nothing; put @shards.sources.register(NAME), "
                    "@infogan.networks.NETWORKS.register(NAME) or @infogan.objectives.OBJECTIVES.register(NAME) above "
                    "a class"
                )


plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    is_eager=True,  # what it registers is listed by --help
    expose_value=False,
    callback=_load,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run this Python file first: it registers a source, network or objective. It can do all that you can.",
)
"""For the group of all verbs, and for each verb that is also started by itself."""


def plugins_first(arguments: Sequence[str]) -> list[str]:
    """The command line with every `--plugin FILE` at its beginning: the very next word may be a plugin's.

    Raises:
        click.UsageError: `--plugin` at the end, without a file.
    """
    plugins: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            others += [word, *words]
        elif word.startswith("--plugin="):
            plugins.append(word)
        elif word == "--plugin":
            file = list(islice(words, 1))
            if not file:
                raise click.UsageError("--plugin: say which FILE")
            plugins += [word, *file]
        else:
            others.append(word)
    return plugins + others


def loaded_plugins() -> list[str]:
    """The words that make another process load the plugins of this one."""
    from shards import plugins

    return [f"--plugin={plugin.file}" for plugin in plugins.known()]


def say_what_changed(run: Path) -> None:
    """One line on stderr for each plugin that is another than it was when `run` was last started."""
    from infogan import plugins

    for line in plugins.changes(plugins.recorded(run)):
        click.echo(line, err=True)
