"""`infogan shards`: the command as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from launch.datasets import shards_group
from shards.errors import UserError


def shards(*arguments: str) -> Result:
    result = CliRunner().invoke(shards_group, list(arguments))
    if isinstance(result.exception, UserError):
        raise result.exception
    return result


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    result = shards("build", "digits", "--out", str(folder), "--shard-size", "600", "--quiet")
    assert result.exit_code == 0, result.output
    return folder


def test_build_verify_describe(digits: Path) -> None:
    assert shards("verify", str(digits), "--quiet").stdout == "ok: 1,797 samples in 5 shards\n"
    table = shards("describe", str(digits)).stdout
    document = json.loads(shards("describe", str(digits), "--json").stdout)
    assert "28 x 28 x 1, png" in table
    assert document["digest"] in table
    assert document == json.loads((digits / "manifest.json").read_text())
    again = shards("build", "digits", "--out", str(digits), "--shard-size", "600", "--quiet")
    assert again.exit_code == 0
    assert "nothing to do" in again.output


def test_verify_prints_one_line_per_fault_and_exits_1(digits: Path) -> None:
    (digits / "train" / "000001.tar").unlink()
    (digits / "notes").write_text("")
    result = shards("verify", str(digits), "--quiet")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert "train/000001.tar: the shard is missing" in result.stdout


def test_the_options_of_a_source_are_in_its_help() -> None:
    assert "--skip-unreadable" in shards("build", "folder", "--help").output
    assert "--skip-unreadable" not in shards("build", "mnist", "--help").output
    listed = shards("build", "--help").output
    assert all(name in listed for name in ("digits", "mnist", "fashion_mnist", "folder"))


def test_an_unknown_source_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match="choose one of digits, mnist, fashion_mnist, folder"):
        shards("build", "mnits")


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "PIL", "tqdm")
    program = f"import sys, launch.datasets; print([name for name in {heavy} if name in sys.modules])"
    here = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
