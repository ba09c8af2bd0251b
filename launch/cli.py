"""The `infogan` command: finds its verbs by entry point, loads them when needed and ends them well.

A verb is any click command registered in the entry point group `infogan.verbs`. So a floor above this one, or
another package, adds a verb without an import from here. Verb modules import nothing heavy at module level:
the list of verbs then costs no more than click itself.
"""

import errno
import os
import platform
import select
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import NoReturn

import click

from launch.plugin_option import plugin_option, plugins_first
from shards.errors import UserError

VERB_GROUP = "infogan.verbs"
DISTRIBUTION = "infogan-harness"

# The order in which a user meets them; verbs that others add follow by name.
PIPELINE = ("demo", "shards", "train", "evaluate", "generate", "bench", "doctor")

# The shell's own codes for a program ended by SIGINT and by SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class VerbGroup(click.Group):
    """A click group whose commands are the entry points of `infogan.verbs`, each imported when asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words of a command line, plugins first wherever they stand: they may add what a later word names."""
        return super().parse_args(ctx, plugins_first(args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs, in the pipeline's order. Imports none of them."""
        return sorted(_verbs(), key=_place)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name, imported now; None where there is none.

        Raises:
            UserError: the verb's module cannot be imported.
        """
        verb = _verbs().get(cmd_name)
        return None if verb is None else _load(verb)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that a command line begins with; an unknown one is answered with every name there is."""
        if args[0].startswith("-") or args[0] in _verbs():
            return super().resolve_command(ctx, args)
        ctx.fail(f"no verb '{args[0]}'; the verbs are {', '.join(self.list_commands(ctx))}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs with their short help; one that cannot be loaded says so and hides no other."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except UserError as error:
                rows.append((name, f"({error})"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=90)))
        if rows:
            with formatter.section("Verbs"):
                formatter.write_dl(rows)


def _verbs() -> dict[str, EntryPoint]:
    return {verb.name: verb for verb in entry_points(group=VERB_GROUP)}


def _place(name: str) -> tuple[int, str]:
    return (PIPELINE.index(name) if name in PIPELINE else len(PIPELINE), name)


def _load(verb: EntryPoint) -> click.Command:
    where = f"verb '{verb.name}' ({verb.value}, from {verb.dist.name if verb.dist else 'an unknown package'})"
    try:
        command = verb.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        if _wants_traceback():
            raise
        raise UserError(
            f"{where} cannot be loaded: {error}; reinstall that package, or see INFOGAN_TRACEBACK=1"
        ) from error
    if not isinstance(command, click.Command):
        raise UserError(f"{where} is no click command but a {type(command).__name__}: correct the entry point")
    return command


def _wants_traceback() -> bool:
    return os.environ.get("INFOGAN_TRACEBACK", "") not in ("", "0")


def _set_traceback(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # Through the environment, so that processes which a verb starts follow.
    if value:
        os.environ["INFOGAN_TRACEBACK"] = "1"


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"infogan {_version(DISTRIBUTION)}, Python {platform.python_version()}, torch {_version('torch')}")
    ctx.exit()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB ...",
    epilog="infogan VERB --help tells the rest.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of infogan, Python and torch.",
)
@click.option(
    "--traceback",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    hidden=True,
    callback=_set_traceback,
    help="Show where an error was raised.",
)
@plugin_option
def root() -> None:
    """InfoGAN, from raw images to a measured report."""


def run(command: click.Command, arguments: Sequence[str] | None = None, name: str | None = None) -> NoReturn:
    """Runs a click command as a whole program: a user's mistake becomes one line, a code says how it ended.

    | how it ended                            | printed on stderr | exit code             |
    |-----------------------------------------|-------------------|-----------------------|
    | the command returned                    |                   | 0                     |
    | `ctx.exit(code)`                        |                   | code                  |
    | `UserError`, a usage error of click's   | `error: ...`      | 2                     |
    | the system refuses a file that it names | `error: ...`      | 2                     |
    | Ctrl-C                                  | `interrupted`     | 130                   |
    | the reader of our output went away      |                   | 141                   |
    | any other exception (a fault of ours)   | its traceback     | 1                     |

    Where several processes train a run together, one that fails ends them all with one line: see infogan.watch.

    With INFOGAN_TRACEBACK=1 in the environment a `UserError` keeps its traceback.

    Args:
        command: what to run; `python -m launch.train` passes its verb, `infogan` the group of all.
        arguments: the command line after the program's name; `sys.argv[1:]` by default.
        name: the program's name in usage lines; by default as Python was started.
    """
    name = name or _program_name()
    if "_INFOGAN_COMPLETE" in os.environ:
        command.main(arguments, name)  # a shell asks how a line may go on: click answers and exits
    try:
        # Not `command.main`: its answer to Ctrl-C is "Aborted!", to a broken pipe, also a worker's, silence.
        with command.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            command.invoke(ctx)
        # Now, not at exit, so that a reader who went away is noticed where it can be handled.
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        _fail(f"{error.format_message().rstrip('.')}; see {where} --help")
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # A pipe to a worker process can break too, and that is no reason to be quiet.
        if not _reader_went_away():
            raise
        # Python flushes stdout once more on its way out; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except UserError as error:
        if _wants_traceback():
            raise
        _fail(str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.errno is None or not (full or error.filename) or _wants_traceback():
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "free some space, then run the same command again" if full else "name another path, or mend this one"
        _fail(f"{where}{os.strerror(error.errno).lower()}; {remedy}")
    sys.exit(0)


def _program_name() -> str:
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec else Path(sys.argv[0]).name


def _reader_went_away() -> bool:
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(line: str) -> NoReturn:
    rank = os.environ.get("RANK", "0")
    who = "error" if rank == "0" else f"error (rank {rank})"
    click.echo(f"{who}: {' '.join(line.split())}", err=True)
    sys.exit(2)


def main() -> NoReturn:
    """The console command `infogan`."""
    run(root, name="infogan")


if __name__ == "__main__":
    main()
