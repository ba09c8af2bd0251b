"""How a command ends: what a user sees, and the exit code that a script sees."""

import errno
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from launch import cli
from shards.errors import DataError, UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_tracebacks_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFOGAN_TRACEBACK", raising=False)


def command_that_raises(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("fails", callback=fail)


def ending(command: click.Command, *arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        cli.run(command, arguments, name="infogan")
    return caught.value.code


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Verbs of a made-up package: some good, one whose module does not import, one that is no command."""
    (tmp_path / "stray_verbs.py").write_text(
        "import click\n\n@click.command()\ndef good():\n    '''Do good.'''\n    click.echo('done')\n\nnumber = 3\n"
    )
    (tmp_path / "broken_verbs.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    places = {
        "zebra": "stray_verbs:good", "train": "stray_verbs:good", "aardvark": "stray_verbs:good",
        "demo": "stray_verbs:good", "broken": "broken_verbs:command", "number": "stray_verbs:number",
    }  # fmt: skip
    found = [EntryPoint(name, value, cli.VERB_GROUP) for name, value in places.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: found)


@pytest.mark.parametrize("error", [UserError, DataError])
def test_a_users_mistake_is_one_line_and_code_2(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(command_that_raises(error("batch=0: it must be\n   at least 1"))) == 2
    assert capsys.readouterr() == ("", "error: batch=0: it must be at least 1\n")


def test_a_users_mistake_keeps_its_traceback_for_developers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOGAN_TRACEBACK", "1")
    with pytest.raises(UserError):
        cli.run(command_that_raises(UserError("x")), [])


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert ending(command_that_raises(OSError(number, os.strerror(number), "runs/a"))) == 2
        assert f"error: runs/a: {os.strerror(number).lower()}; free some space" in capsys.readouterr().err


def test_a_path_that_the_system_refuses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    refused = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "afile/x")
    assert ending(command_that_raises(refused)) == 2
    assert capsys.readouterr().err == "error: afile/x: not a directory; name another path, or mend this one\n"


def test_a_fault_of_ours_is_not_hidden() -> None:
    for error in (ValueError("x"), OSError(errno.EIO, "x"), BrokenPipeError("of a worker, not of stdout")):
        with pytest.raises(type(error)):
            cli.run(command_that_raises(error), [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupted_command_says_so(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(command_that_raises(error)) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_exit_codes_pass_through() -> None:
    assert ending(click.Command("returns", callback=lambda: None)) == 0
    assert ending(click.Command("exits", callback=lambda: click.get_current_context().exit(7))) == 7


def test_a_usage_error_is_one_line_that_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(click.Command("returns", callback=lambda: None), "--nonsense") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: No such option")
    assert line.endswith(" --help")


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import click\nfrom launch.cli import run\n"
        "run(click.Command('talks', callback=lambda: [click.echo('x' * 100) for _ in range(10**5)]))"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.usefixtures("verbs")
def test_verbs_are_listed_in_the_pipelines_order_then_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(cli.root, "--help") == 0
    listed = [
        line.split()[0] for line in capsys.readouterr().out.partition("Verbs:")[2].splitlines() if line[2:3].strip()
    ]
    assert listed[:6] == ["demo", "train", "aardvark", "broken", "number", "zebra"]


@pytest.mark.usefixtures("verbs")
def test_a_verb_of_another_package_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(cli.root, "zebra") == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.usefixtures("verbs")
def test_a_verb_that_cannot_be_loaded_is_named_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(cli.root, "broken") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: verb 'broken' (broken_verbs:command")
    assert "a_module_that_is_nowhere" in said
    assert ending(cli.root, "number") == 2
    assert "no click command but a int" in capsys.readouterr().err
    assert ending(cli.root, "--help") == 0
    assert "Do good." in capsys.readouterr().out


@pytest.mark.usefixtures("verbs")
def test_an_unknown_verb_is_answered_with_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(cli.root, "trian") == 2
    assert "no verb 'trian'; the verbs are demo, train, aardvark" in capsys.readouterr().err


def test_the_version_names_python_and_torch_without_importing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(cli.root, "--version") == 0
    assert capsys.readouterr().out.startswith("infogan ")
    code = "import sys\nfrom launch.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert f"Python {sys.version.split()[0]}, torch 2." in answer.stdout


def test_usage_names_the_program_as_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "started.py").write_text("import click\nfrom launch.cli import run\nrun(click.Command('c'))\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for start, shown in ((["-m", "started"], "python -m started"), ([tmp_path / "started.py"], "started.py")):
        answer = subprocess.run(
            [sys.executable, *start, "--help"], env=environment, capture_output=True, text=True, check=False
        )
        assert answer.stdout.startswith(f"Usage: {shown} [OPTIONS]"), answer.stderr


def test_a_shell_can_complete_verbs() -> None:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "_INFOGAN_COMPLETE": "bash_complete",
        "COMP_WORDS": "infogan --ver", "COMP_CWORD": "1",
    }  # fmt: skip
    answer = subprocess.run(
        [sys.executable, "-c", "from launch.cli import main; main()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.stdout.split() == ["plain,--version"], answer.stderr
