"""Lines for the user beside what a command prints: on stderr, so that its output stays what was asked for."""

import click


def say(line: str) -> None:
    click.echo(line, err=True)
