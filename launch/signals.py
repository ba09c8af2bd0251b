"""How a command leaves on SIGTERM, of which Python itself says nothing and closes nothing."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

EXIT_TERMINATED = 128 + signal.SIGTERM


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def sigterm_told(line: str) -> Iterator[None]:
    """While the block runs, SIGTERM ends it as Ctrl-C would, then the program, with one line on stderr."""
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except _Terminated:
        click.echo(line, err=True)
        sys.exit(EXIT_TERMINATED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is closed now is not left half closed
    raise _Terminated
