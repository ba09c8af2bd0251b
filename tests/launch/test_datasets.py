"""`infogan shards`: the command as a user types it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

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
    with pytest.raises(UserError, match="choose one of digits, mnist, fashion_mnist, svhn"):
        shards("build", "mnits")


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "PIL", "tqdm")
    program = f"import sys, launch.datasets; print([name for name in {heavy} if name in sys.modules])"
    here = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_check_says_what_a_download_lacks_and_exits_1(originals: Any, tmp_path: Path) -> None:
    nothing = shards("check", "svhn", str(tmp_path))
    assert nothing.exit_code == 1
    assert len(nothing.stdout.splitlines()) == 1
    assert "lacks train_32x32.mat and test_32x32.mat: fetch from http" in nothing.stdout
    originals.write("svhn", tmp_path, 20)
    smaller = shards("check", "svhn", str(tmp_path))
    assert smaller.exit_code == 1
    assert smaller.stdout.splitlines() == [
        "16 training images instead of the 73,257 published",
        "4 test images instead of the 26,032 published",
    ]
    assert "extra_32x32.mat" in shards("check", "svhn", str(tmp_path), "--extra").stdout


def test_check_says_when_nothing_lacks(originals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shards.sources.dsprites import Dsprites

    monkeypatch.setattr(Dsprites, "published", {"images": 20})
    originals.write("dsprites", tmp_path, 20)
    complete = shards("check", "dsprites", str(tmp_path))
    assert (complete.exit_code, complete.stdout) == (0, f"{tmp_path}: complete: 20 images\n")
    originals.write("folder", tmp_path / "own", 20)
    own = shards("check", "folder", str(tmp_path / "own"), "--size", "8")
    assert own.exit_code == 0
    assert "usable: 16 train images, 2 validation images, 2 test images; there is no published" in own.stdout
    drawn = shards("check", "digits")
    assert drawn.exit_code == 0
    assert drawn.stdout.startswith("digits: nothing to download: 1,425 train images")


def test_a_contact_sheet_shows_a_hundred_images_of_a_split(digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    assert shards("describe", str(digits), "--sheet", str(file)).exit_code == 0
    with Image.open(file) as sheet:
        assert sheet.mode == "L"
        assert sheet.size == (10 * 56 + 9 * 2, 10 * 56 + 9 * 2)  # 28x28 twice enlarged, two pixels apart
        shown = np.asarray(sheet)
    tiles = {shown[58 * r : 58 * r + 56, 58 * c : 58 * c + 56].tobytes() for r in range(10) for c in range(10)}
    assert len(tiles) == 100
    assert file.stat().st_size < 100_000
    again = tmp_path / "again.png"
    shards("describe", str(digits), "--sheet", str(again))
    assert again.read_bytes() == file.read_bytes()
    shards("describe", str(digits), "--sheet", str(again), "--split", "test")
    assert again.read_bytes() != file.read_bytes()
    with pytest.raises(UserError, match=r"ends in \.png"):
        shards("describe", str(digits), "--sheet", str(tmp_path / "sheet.jpg"))
    for name, message in (
        (".png", r"ends in \.png"), ("a/b.png", "there is no folder"), ("sheet.png/b.png", "there is no folder")
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            shards("describe", str(digits), "--sheet", str(tmp_path / name))
    with pytest.raises(UserError, match="split 'tset' does not exist: it has train, validation, test"):
        shards("describe", str(digits), "--sheet", str(again), "--split", "tset")


def test_a_data_set_at_a_url_is_verified_described_prefetched_and_adopted(
    tiny_data: Path, tmp_path: Path, serve: Callable[[Path], Any]
) -> None:
    server, where = serve(tiny_data), ("--cache", str(tmp_path / "cache"))
    assert shards("verify", server.url, "--quiet", *where).stdout == "ok: 80 samples in 5 shards\n"
    assert shards("describe", server.url, *where).stdout == shards("describe", str(tiny_data)).stdout
    shards("describe", server.url, "--sheet", str(tmp_path / "sheet.png"), *where)
    assert (tmp_path / "sheet.png").is_file()
    assert "holds all splits" in shards("prefetch", server.url, "--quiet", *where).stdout
    with pytest.raises(UserError, match="limit_gb is 1e-06 GB"):
        shards("prefetch", server.url, "--quiet", "--cache-limit", "1e-6", *where)
    with pytest.raises(UserError, match=r"--cache-limit: .*must be above 0"):
        shards("prefetch", server.url, "--cache-limit", "0", *where)
    out, classes = str(tmp_path / "out"), tmp_path / "classes"
    classes.write_text("upright\nlevel\n")
    splits = ("--split", "train=train/{000000..000002}.tar", "--split", "test=test/000000.tar")
    adopted = shards("adopt", server.url, "--out", out, *splits, "--classes", str(classes), "--quiet", *where)
    assert "64 train, 8 test" in adopted.stdout
    assert "2: upright, level" in shards("describe", out).stdout
    assert shards("verify", out, "--quiet", *where).stdout == "ok: 72 samples in 4 shards\n"


def test_a_build_that_is_told_to_end_says_what_remains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.cli", "shards", "build", "sprites", "--out", "set", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        until = time.monotonic() + 60
        while not list(tmp_path.glob("set/train/*")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 143
    assert said == "stopped by SIGTERM: set is not complete; the same command goes on with the shards that were made\n"
