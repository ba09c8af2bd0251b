"""The shape of the house: arrows only point down, and no name of ours hides another's."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each floor, and the floors below it that it may import.
FLOORS = {
    "slurm": {"launch", "infogan", "shards"},
    "launch": {"infogan", "shards"},
    "infogan": {"shards"},
    "shards": set(),
}

TOP_LEVEL = {
    ".ci", ".gitignore", "ARCHITECTURE.md", "LICENSE", "Makefile", "README.md", "configs", "docs", "infogan",
    "launch", "pyproject.toml", "requirements.lock", "setup.cfg", "shards", "slurm", "tests",
}  # fmt: skip


def modules() -> list[Path]:
    """Every module of the four floors, relative to the repository."""
    return sorted(path.relative_to(ROOT) for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import, wherever it stands, also through `import_module("...")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield node.lineno, ".".join([*base, *filter(None, [node.module])])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_arrows_only_point_down(path: Path) -> None:
    floor = path.parts[0]
    forbidden = FLOORS.keys() - FLOORS[floor] - {floor}
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = [
        f"{path}:{line} imports {name}"
        for line, name in imported(tree, list(path.parts[:-1]))
        if name.split(".")[0] in forbidden
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f():\n    import launch.cli as x", ["launch.cli"]),
        ("from . import registry", ["infogan.networks"]),
        ("from ..launch import cli", ["infogan.launch"]),
        ("from ... import launch", [""]),
        ("import importlib\nimportlib.import_module('launch.cli')", ["importlib", "launch.cli"]),
    ],
)
def test_the_reader_of_imports_misses_none(source: str, names: list[str]) -> None:
    assert [name for _, name in imported(ast.parse(source), ["infogan", "networks"])] == names


def test_no_module_bears_the_name_of_another() -> None:
    """A file `random.py` beside a script hides the standard library's; one called `torch.py` hides torch."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {
        re.split(r"[<>=!~\s;\[]", line, maxsplit=1)[0].lower()
        for line in (setup["options"]["install_requires"] + setup["options.extras_require"]["deepspeed"]).split("\n")
        if line
    }
    theirs = {
        module
        for module, owners in packages_distributions().items()
        if required & {owner.lower().replace("_", "-") for owner in owners}
    }
    taken = theirs | sys.stdlib_module_names
    ours = {path: path.stem for path in modules() if not path.stem.startswith("__")}
    ours |= {path.parent: path.parent.name for path in modules() if len(path.parts) > 2}
    assert not [str(path) for path, name in ours.items() if name in taken]


def test_the_top_level_holds_only_what_is_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git does not list this folder: {listed.stderr.strip()}")
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


def test_verbs_import_nothing_heavy_before_they_run() -> None:
    """The help lists every verb, so what a verb's module imports at its top every command pays for."""
    light = sys.stdlib_module_names | {"click", "launch", "slurm"}
    found = [
        f"{path}:{line} imports {name}"
        for path in modules()
        if path.parts[0] == "launch"
        for statement in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for line, name in imported(statement, list(path.parts[:-1]))
        if name.split(".")[0] not in light and name not in ("shards.errors", "shards.versions")
    ]
    assert not found
