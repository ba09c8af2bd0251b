"""Every way to get a plugin wrong is one line with its place; and one may run more than once in a process.

What a plugin is good for, from build to evaluation, is in tests/promises/test_own_code.py.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = (
    "from dataclasses import dataclass\nfrom shards.sources import Source, register\n@dataclass\nclass Options: ...\n"
)

WRONG = {
    "a syntax error": ("x = 1\ndef f(:\n", "{path}, line 2: not Python: invalid syntax"),
    "null bytes": ("x = 1\0\n", "{path}: not Python: source code string cannot contain null bytes"),
    "an exception": ("\ndef f():\n    return 1 / 0\nf()\n", "{path}, line 3: ZeroDivisionError: division by zero"),
    "an exception of several lines": ("raise ValueError('a\\n  b')\n", "{path}, line 1: ValueError: a b"),
    "a package that is missing": ("import nowhere_at_all\n", "{path}, line 1: ModuleNotFoundError: No module named"),
    "leaving": ("import sys\nsys.exit(0)\n", "{path}, line 2: SystemExit: 0"),
    "an exception of no common kind": (
        "class B(BaseException): pass\nraise B('boo')\n", "{path}, line 2: B: boo"
    ),
    "an exception without words": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()\n",
        "{path}, line 3: E: (its text cannot be made)",
    ),
    "nests too deep": (f"x={'-' * 200_000}1\n", "{path}: not Python: it is nested too deeply"),
    "a name that is none": (f"{SOURCE}register(5)(Options)\n", "{path}, line 5: source 5: a name must be a text"),
    "an option of the command's": (
        f"{SOURCE}@dataclass\nclass More(Options):\n    out: int = 1\n@register('mine')\nclass Mine(Source):\n"
        "    Options = More\n    def __init__(self, o): ...\n    def sample(self, s, i): ...\n",
        "{path}, line 8: source 'mine': its option out has the name of one that every build has",
    ),
    "nothing registered": ("x = 1\n", "{path}: registers nothing; put @shards.sources.register(NAME)"),
    "the name of a network": (
        "from infogan.networks import NETWORKS, Network\n@NETWORKS.register('mnist')\nclass Mine(Network):\n    pass\n",
        "{path}, line 2: network 'mnist': the name is taken, by MNIST of ",
    ),
    "the name of an objective": (
        "from infogan.objectives import OBJECTIVES, Objective\n@OBJECTIVES.register('non_saturating')\n"
        "class Mine(Objective):\n    pass\n",
        "{path}, line 2: objective 'non_saturating': the name is taken",
    ),
    "the name of a source": (
        f"{SOURCE}@register('fashion_mnist')\nclass Mine(Source):\n    pass\n",
        "{path}, line 5: source 'fashion_mnist': the name is taken, by FashionMnist of ",
    ),
    "one name for two": (
        f"{SOURCE}class A(Source):\n    Options = Options\n    def __init__(self, o): ...\n"
        "    def sample(self, s, i): ...\n"
        "class B(A): ...\nregister('mine')(A)\nregister('mine')(B)\n",
        "{path}, line 11: source 'mine': the name is taken, by A of ",
    ),
    "a method that is missing": (
        f"{SOURCE}@register('mine')\nclass Mine(Source):\n    def __init__(self, options): ...\n",
        "{path}, line 5: source 'mine': Mine lacks sample, which every source has",
    ),
    "a source without options": (
        f"{SOURCE}@register('mine')\nclass Mine(Source):\n    def __init__(self, o): ...\n"
        "    def sample(self, s, i): ...\n",
        "{path}, line 5: source 'mine': its Options must be a dataclass",
    ),
    "an option without a default": (
        f"{SOURCE}@dataclass\nclass More(Options):\n    path: str\n@register('mine')\nclass Mine(Source):\n"
        "    Options = More\n    def __init__(self, o): ...\n    def sample(self, s, i): ...\n",
        "{path}, line 8: source 'mine': its option path needs a default that is a number, a text or a bool",
    ),
    "a network that is no dataclass": (
        "from infogan.networks import NETWORKS\n@NETWORKS.register('mine')\nclass Mine: ...\n",
        "{path}, line 2: network 'mine': Mine must be a dataclass of its options",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plugin_with_a_fault_is_one_line_with_its_place(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, expected = WRONG[wrong]
    (tmp_path / "mine.py").write_text(code)
    error = error_of([f"--plugin={tmp_path / 'mine.py'}", "shards", "build", "--help"], capsys)
    assert error.startswith(f"error: plugin {expected.format(path=tmp_path / 'mine.py')}")


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    from launch import cli
    from shards import plugins, sources

    known = dict(plugins._known)
    with pytest.raises(SystemExit) as caught:
        cli.run(cli.root, words, name="infogan")
    plugins._known.clear()
    plugins._known.update(known)
    sources._registry.pop("mine", None)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere.py", "nowhere.py: no such file"),
        ("notes.txt", "notes.txt: must be a Python file"),
        ("folder.py", "folder.py: is a directory"),
        (None, "--plugin: say which FILE"),
        ("", "--plugin: say which FILE"),
    ],
)
def test_a_plugin_that_is_no_file_is_refused(
    name: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.py").mkdir()
    words = ["doctor", "--plugin", *([str(name and tmp_path / name)] if name is not None else [])]
    assert expected in error_of(words, capsys)


def test_every_option_of_a_command_is_reserved() -> None:
    from launch import bench_build, datasets
    from shards.sources import RESERVED, get

    for make in (datasets._build_command, bench_build._source_command):
        taken = {parameter.name for parameter in make(get("digits")).params}
        assert taken - set(get("digits").Options.__dataclass_fields__) <= RESERVED


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The path of a plugin with a source; what it registers is forgotten after the test."""
    from shards import plugins, sources

    monkeypatch.setattr(plugins, "_known", {})
    path = tmp_path / "mine_of_test.py"
    path.write_text(
        f"{SOURCE}@register('mine')\nclass Mine(Source):\n    Options = Options\n    def __init__(self, options): ...\n"
        "    def sample(self, split, i): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield path
    sources._registry.pop("mine", None)
    for name in set(sys.modules) - before:
        if "mine_of_test" in name:
            del sys.modules[name]


def test_a_plugin_may_be_loaded_imported_and_edited_in_one_process(mine: Path) -> None:
    from shards import plugins, sources

    plugins.load(mine)
    first = sources.get("mine")
    plugins.load(mine)
    assert sources.get("mine") is first, "the same content runs once"
    imported = __import__("mine_of_test")
    assert sources.get("mine") is imported.Mine
    mine.write_text(mine.read_text() + "    answer = 42\n")
    plugins.load(mine)
    assert sources.get("mine").answer == 42  # type: ignore[attr-defined]
    (known,) = plugins.known()
    assert known.sha256 == hashlib.sha256(mine.read_bytes()).hexdigest()
    assert known.registers == ["source 'mine'"]


def test_an_edit_that_fails_leaves_what_ran_before(mine: Path) -> None:
    from shards import plugins, sources
    from shards.errors import UserError

    plugins.load(mine)
    good = mine.read_text()
    mine.write_text("oops\n" + good)
    with pytest.raises(UserError, match="line 1: NameError"):
        plugins.load(mine)
    assert sys.modules[sources.get("mine").__module__].Mine is sources.get("mine")


def test_a_word_after_two_dashes_is_no_plugin() -> None:
    from launch.plugin_option import plugins_first

    assert plugins_first(["a", "--plugin", "x.py", "b", "--plugin=y.py", "--", "--plugin", "z"]) == [
        "--plugin", "x.py", "--plugin=y.py", "a", "b", "--", "--plugin", "z",
    ]  # fmt: skip
