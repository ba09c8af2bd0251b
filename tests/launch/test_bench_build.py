"""The benches of building measure what they say: the same images on both sides, and no more memory for more of them."""

import errno
import io
import json
import mmap
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from launch import bench, bench_build
from launch.costs import Cost, cost_of
from shards import build, open_dataset, open_source
from shards.errors import DataError, UserError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 small colour pictures in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(30):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 7, 3), number * 8, np.uint8)).save(path)
    return folder


def test_the_verb_prints_a_table_and_writes_the_same_as_json(photos: Path, tmp_path: Path) -> None:
    file, scratch = tmp_path / "bench.json", tmp_path / "scratch"
    scratch.mkdir()
    words = ["build", "folder", "--path", str(photos), "--size", "8", "--rounds", "2", "--json", str(file)]
    found = CliRunner().invoke(bench.command, [*words, "--scratch", str(scratch)])
    assert found.exception is None, found.output
    result = json.loads(file.read_bytes())
    assert (result["format"], result["bench"], result["images"], result["shape"]) == (1, "build", 30, [8, 8, 3])
    assert result["source"]["kind"] == "folder"
    for name, row in result["contestants"].items():
        assert len(row["images_per_cpu_s"]["rounds"]) == 2
        assert f"{name:7}{row['images_per_s']['median']:>9,.0f}" in found.stdout
        assert row["bytes"] > 30 * 1024
    for name, ratio in result["ratios"].items():
        assert f"{name:32} {ratio['median']:.2f}" in found.stdout
    assert result["environment"]["device"] in found.stdout
    assert found.stderr.count("images per second of a core") == 3
    assert list(scratch.iterdir()) == []


def test_without_a_source_the_digits_are_built() -> None:
    found = CliRunner().invoke(bench.command, ["build", "--images", "5", "--rounds", "1"])
    assert found.exception is None, found.output
    assert "shards of digits, 15 images of 28x28x1: 1 rounds" in found.stdout
    assert "digits" in CliRunner().invoke(bench.command, ["build", "--help"]).stdout


def test_a_result_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for name, message in (("", "no file"), ("nowhere/x.json", "there is no folder")):
        found = CliRunner().invoke(bench.command, ["build", "digits", "--json", str(tmp_path / name)])
        assert isinstance(found.exception, UserError)
        assert message in str(found.exception)
        assert found.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_both_sides_write_the_same_images(photos: Path, tmp_path: Path) -> None:
    source = open_source("folder", path=str(photos), size="8")
    bench_build.plain_build(source, tmp_path / "plain")
    build(source, tmp_path / "ours", progress=False)
    for split in open_dataset(tmp_path / "ours").manifest.splits:
        paths = tmp_path / "plain" / f"{split}-000000.tar", tmp_path / "ours" / split / "000000.tar"
        read = [members_of(path) for path in paths]
        assert read[0].keys() == read[1].keys()
        for name in read[0]:
            plain, ours = (part[name] for part in read)
            if name.endswith(".png"):
                plain, ours = (np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in (plain, ours))
            assert plain == ours


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_ratios_are_taken_within_a_round() -> None:
    costs = {
        "plain": [Cost(4.0, 2.0, 1.0, 1.0, 7), Cost(12.0, 2.0, 1.0, 1.0, 7)],
        "ours": [Cost(2.0, 1.0, 1.0, 1.0, 5), Cost(6.0, 2.0, 1.0, 1.0, 5)],
    }
    found = bench_build.summary(costs, 12)
    assert found["ratios"]["ours/plain per second"]["rounds"] == [2.0, 2.0]
    assert found["ratios"]["ours/plain per second of a core"]["rounds"] == [2.0, 1.0]
    assert found["contestants"]["plain"]["images_per_s"]["rounds"] == [3.0, 1.0]
    assert found["contestants"]["ours"]["bytes"] == 5


def test_a_turn_is_charged_for_its_workers_and_leaves_nothing(tmp_path: Path) -> None:
    def busy(megabytes: int) -> Callable[[Path], None]:
        def work(folder: Path) -> None:
            folder.mkdir()
            (folder / "file").write_bytes(bytes(1000))
            child = os.fork()
            if child == 0:
                held = mmap.mmap(-1, megabytes * 2**20)  # not from a heap that earlier tests have left large
                until = time.process_time() + 0.2
                while time.process_time() < until:
                    held[::4096] = b"1" * (len(held) // 4096)
                os._exit(0)
            os.waitpid(child, 0)

        return work

    small, large = cost_of(busy(1), tmp_path), cost_of(busy(200), tmp_path)
    assert small.cpu_seconds >= 0.2
    assert small.size == 1000
    assert large.worker_peak - small.worker_peak == pytest.approx(199, abs=25)
    assert large.peak == pytest.approx(small.peak, abs=25)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_turn_is_said(tmp_path: Path) -> None:
    def refused(folder: Path) -> None:
        raise DataError("no such picture")

    with pytest.raises(UserError, match="no such picture"):
        cost_of(refused, tmp_path)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*the disk is full"):
        cost_of(full, tmp_path)
    with pytest.raises(UserError, match="died"):
        cost_of(lambda folder: os._exit(9), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_flat_while_the_set_grows(tmp_path: Path) -> None:
    """A thousand times more is shown by the verb itself; here, that a hold on every image would be seen.

    In a process of its own: one forked from the tests' would copy pages of theirs, more or fewer, into its own peak.
    """
    file = tmp_path / "memory.json"
    words = ["memory", "--images", "200", "--images", "20000", "--workers", "1", "--json", str(file)]
    program = "from launch.bench import command; command()"
    found = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    small, large = json.loads(file.read_bytes())["sets"]
    assert (small["images"], large["images"]) == (200, 20_000)
    assert large["bytes"] > 50 * small["bytes"]
    assert large["worker_mib"] - small["worker_mib"] < 4
    assert large["parent_mib"] - small["parent_mib"] < 4
    assert f"{large['images']:>12,}" in found.stdout
