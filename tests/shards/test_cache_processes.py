"""The cache between processes: each shard is downloaded once, and a kill at any moment leaves nothing in the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.cache import Cache, CacheOptions
from shards.manifest import Shard

# No reader, whose torch takes seconds to import: what downloads and holds shards is below it. The idle worker inherits
# every lock, as a decoding one does.
SCRIPT = """
import hashlib, json, sys, time
from shards import transport
transport.PATIENCE = transport.Patience(stall=50.0, first=0.01, longest=0.05, total=60.0)
from shards.cache import CacheOptions
from shards.dataset import open_dataset
from shards.staging import Staged
from shards.workers import Workers
dataset = open_dataset(sys.argv[1], CacheOptions(sys.argv[2]))
shards = dataset.split("train").shards
with Staged(dataset) as staged:
    staged.pin(shards, ())
    staged.look_ahead().want(shards, len(shards))
    time.sleep(0.2)
    with Workers(print, 1), staged.held(shards):
        print(json.dumps([hashlib.sha256(staged.place(shard)[0].read_bytes()).hexdigest() for shard in shards]))
"""


def start(url: str, cache: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT, url, str(cache)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def assert_sound(process: subprocess.Popen[str], root: Path) -> None:
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((root / "train").glob("*.tar"))]
    assert json.loads(output) == expected


@pytest.fixture
def server(root: Path, serve: Callable[[Path], Any]) -> Any:
    return serve(root)


def test_processes_on_one_machine_download_each_shard_once(server: Any, root: Path, tmp_path: Path) -> None:
    processes = [start(server.url, tmp_path / "cache") for _ in range(3)]
    for process in processes:
        assert_sound(process, root)
    assert set(server.fetched().values()) == {1}
    asked = len(server.log)
    assert_sound(start(server.url, tmp_path / "cache"), root)
    assert [path for path, _ in server.log[asked:]] == ["manifest.json"]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("waits", [False, True], ids=["started afterwards", "waiting meanwhile"])
def test_a_kill_in_the_middle_of_a_download_leaves_nothing_in_the_way(
    server: Any, root: Path, tmp_path: Path, waits: bool
) -> None:
    server.stall = 60.0
    server.plan = lambda path, number: "stall" if path.endswith(".tar") and number == 0 else ""
    folder = tmp_path / "cache"
    killed = start(server.url, folder)
    wait_until(lambda: sum(server.fetched().values()) == 4)
    other = start(server.url, folder) if waits else None
    if waits:
        wait_until(lambda: len(list((folder / "leases").iterdir())) == 2)
        time.sleep(0.3)
        assert sum(server.fetched().values()) == 4  # it waits for the first
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert_sound(other or start(server.url, folder), root)
    assert sum(server.fetched().values()) == 8
    assert_sound(start(server.url, folder), root)  # tidies up, at the latest
    assert not list(folder.glob("*/.*"))
    assert not list((folder / "leases").iterdir())


@pytest.mark.parametrize("make", [lambda path: path.write_text("[" * 200_000), os.mkfifo], ids=["deep", "pipe"])
def test_what_is_no_lease_and_no_stamp_counts_as_absent(tmp_path: Path, make: Callable[[Path], object]) -> None:
    shard = Shard("train/000000.tar", 1, 3, hashlib.sha256(b"tar").hexdigest())
    cache = Cache(CacheOptions(str(tmp_path)), "d" * 64, threading.Event())
    make(tmp_path / "leases" / "elsewhere-1-abc.json")  # of another machine, whose locks do not reach us
    cache.path(shard).with_suffix(".ok").write_text("[" * 200_000)
    cache.lease([shard], [], 3, "train")
    assert not cache.has(shard)
    cache.get(shard, 3, 0, lambda file: file.write(b"tar"), lambda path: path.with_suffix(".idx").touch())
    assert cache.has(shard)
    cache.close()
