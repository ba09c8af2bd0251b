"""Data behind a URL gives the same batches as the same data on the disk, whatever the server and the cache do."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import staging, transport
from shards.cache import CacheOptions
from shards.dataset import Dataset, open_dataset
from shards.errors import DataError, UserError
from shards.loader import Batch, BatchStream, open_reader
from shards.manifest import Shard
from shards.plan import Plan
from shards.staging import Staged, prefetch
from shards.verify import verify

SHARD = "train/000001.tar"


@pytest.fixture
def cache(tmp_path: Path) -> CacheOptions:
    return CacheOptions(str(tmp_path / "cache"))


@pytest.fixture
def server(root: Path, serve: Callable[[Path], Any]) -> Any:
    return serve(root)


def room_for(dataset: Dataset, shards: float) -> float:
    """A limit in GB that holds so many shards of 32 samples."""
    with Staged(dataset) as staged:
        return shards * staged.cost(dataset.split("train").shards[0]) / 1e9


def streamed(
    dataset: Dataset, batches: int, *, window: int | None = None, kind: Any = "auto", **where: Any
) -> list[Batch]:
    reader = open_reader(dataset, "train", kind=kind, workers=0)
    plan = Plan(dataset.shard_sizes("train"), seed=1, window=window)
    try:
        with BatchStream(reader, plan, batch=20, **where) as stream:
            return [next(stream) for _ in range(batches)]
    finally:
        reader.close()


def assert_equal(ours: list[Batch], expected: list[Batch]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.images.numpy(), other.images.numpy())
        np.testing.assert_array_equal(one.labels.numpy(), other.labels.numpy())


def assert_an_epoch(batches: list[Batch], pattern: Any) -> None:
    """Five batches of 20 hold each of the 100 images of the source exactly once, with its own pixels and label."""
    source, seen = pattern(), list[int]()
    for batch in batches:
        for index, image, label in zip(batch.indices, batch.images, batch.labels, strict=True):
            sample = source.sample("train", int(index))
            np.testing.assert_array_equal(image.numpy(), sample.image.transpose(2, 0, 1))
            assert int(label) == sample.label
            seen.append(int(index))
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize("seed", range(4))
def test_an_epoch_over_a_server_that_fails_a_fifth_of_all_requests_delivers_every_image_once(
    server: Any, cache: CacheOptions, pattern: Any, seed: int
) -> None:
    server.fail_at_random(0.2, seed)
    server.ranges = seed % 2 == 0
    assert_an_epoch(streamed(open_dataset(server.url, cache), 5), pattern)


def test_an_epoch_over_a_server_that_fails_most_requests_still_ends(
    server: Any, cache: CacheOptions, pattern: Any
) -> None:
    server.fail_at_random(0.6)
    assert_an_epoch(streamed(open_dataset(server.url, cache), 5), pattern)


@pytest.mark.parametrize("window", [None, 1, 2, 3])
def test_the_order_is_that_of_local_shards(server: Any, root: Path, cache: CacheOptions, window: int | None) -> None:
    for where in ({}, {"start": 60}, {"rank": 1, "world": 2, "accumulation": 2}):
        expected = streamed(open_dataset(root), 12, window=window, **where)
        assert_equal(streamed(open_dataset(server.url, cache), 12, window=window, **where), expected)
    assert set(server.fetched().values()) == {1}


def test_a_set_at_a_url_can_be_decoded_into_memory(server: Any, root: Path, cache: CacheOptions) -> None:
    expected = streamed(open_dataset(root), 6)
    small = CacheOptions(cache.path, room_for(open_dataset(server.url, cache), 3.5))  # of four shards
    assert_equal(streamed(open_dataset(server.url, small), 6, kind="resident"), expected)
    with pytest.raises(UserError, match="does not lie on this machine"):
        open_reader(open_dataset(server.url, cache), "train", kind="indexed")


def test_a_folder_is_staged_through_the_cache_where_asked(root: Path, cache: CacheOptions) -> None:
    expected = streamed(open_dataset(root), 6)
    assert_equal(streamed(open_dataset(root, cache), 6, kind="remote"), expected)
    assert len(list(Path(cache.path).glob("*/*.tar"))) == 4
    assert_equal(streamed(open_dataset(f"file://{root}", cache), 6), expected)


def test_any_url_that_fsspec_reads_will_do(root: Path, cache: CacheOptions) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/bucket/pattern", recursive=True)
    try:
        dataset = open_dataset("memory://bucket/pattern", cache)
        assert_equal(streamed(dataset, 6), streamed(open_dataset(root), 6))
        assert verify("memory://bucket/pattern", progress=False, cache=cache) == []
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.fixture
def s3_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says where s3:// leads. Addresses are path-style: a folder is a bucket."""
    s3fs = pytest.importorskip("s3fs", reason="the extra `remote` is not installed")

    def lead(url: str) -> None:
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # otherwise it has tried for seconds before we hear of it
        }.items():
            monkeypatch.setenv(name, value)

    return lead


def test_object_storage_that_speaks_s3_is_read(
    server: Any, root: Path, cache: CacheOptions, s3_at: Callable[[str], None]
) -> None:
    s3_at(server.url)
    server.fail_at_random(0.2)
    server.root = root.parent
    assert_equal(streamed(open_dataset(f"s3://{root.name}", cache), 6), streamed(open_dataset(root), 6))


def test_object_storage_that_is_down_for_a_while_is_waited_for(
    root: Path, cache: CacheOptions, serve: Callable[..., Any], s3_at: Callable[[str], None]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    s3_at(f"http://127.0.0.1:{port}")
    starting = threading.Timer(2, serve, (root.parent, port))
    starting.start()
    assert_equal(streamed(open_dataset(f"s3://{root.name}", cache), 6), streamed(open_dataset(root), 6))
    starting.join()


def test_patience_with_a_server_that_is_down_is_had_once(
    server: Any, cache: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once more by who needs the shard, after the one who fetched it ahead."""
    dataset = open_dataset(server.url, cache)
    monkeypatch.setattr(transport, "PATIENCE", transport.Patience(stall=1.0, first=0.01, longest=0.05, total=3.0))
    server.plan = lambda path, number: "503"
    begun = time.monotonic()
    with pytest.raises(UserError, match="the server answered 503"):
        streamed(dataset, 1)
    assert 3 <= time.monotonic() - begun < 5


# ---- the cache --------------------------------------------------------------------------------------------------


def test_a_cache_smaller_than_the_set_stays_below_its_limit(
    server: Any, root: Path, cache: CacheOptions, pattern: Any
) -> None:
    limit = room_for(open_dataset(server.url, cache), 2.5)
    largest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            files = [
                path for path in Path(cache.path).glob("*/*") if path.suffix in (".tar", ".idx", ".ok", ".partial")
            ]
            sizes = [path.stat().st_size for path in files if path.exists()]
            largest[0] = max(largest[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    batches = streamed(open_dataset(server.url, CacheOptions(cache.path, limit)), 15, window=1)
    done.set()
    watcher.join()
    for epoch in range(3):
        assert_an_epoch(batches[5 * epoch : 5 * epoch + 5], pattern)
    assert_equal(batches, streamed(open_dataset(root), 15, window=1))
    assert 0 < largest[0] <= limit * 1e9
    assert sum(server.fetched().values()) > 4


def test_a_set_that_fits_is_downloaded_once_whatever_is_read(server: Any, cache: CacheOptions) -> None:
    for _ in range(2):
        streamed(open_dataset(server.url, cache), 12)
        reader = open_reader(open_dataset(server.url, cache), "train", workers=0)
        reader.gather(np.array([99, 0, 31, 32, 64, 0, 63, 5]))
        reader.close()
    assert set(server.fetched().values()) == {1}
    assert len(server.fetched()) == 4


@pytest.mark.parametrize(
    ("window", "shards", "line"),
    [
        (None, 3.0, r"the 4 shards of train that are shuffled together take \S+ GB, but data.cache.limit_gb is \S+ GB"),
        (2, 3.0, r"two windows of 2 shards.* \S+ GB, but data.cache.limit_gb is \S+ GB: raise .*or set data.window=1"),
        (1, 1.5, r"two windows of 1 shards.* \S+ GB, but data.cache.limit_gb is \S+ GB: raise data.cache.limit_gb to"),
    ],
)
def test_a_window_that_does_not_fit_is_one_line_with_both_numbers(
    server: Any, cache: CacheOptions, window: int | None, shards: float, line: str
) -> None:
    limit = room_for(open_dataset(server.url, cache), shards)
    with pytest.raises(UserError, match=line) as caught:
        streamed(open_dataset(server.url, CacheOptions(cache.path, limit)), 1, window=window)
    assert "\n" not in str(caught.value)
    assert not server.fetched()


def test_samples_of_any_shards_are_gathered_through_a_cache_that_holds_one(
    server: Any, root: Path, cache: CacheOptions
) -> None:
    limit = room_for(open_dataset(server.url, cache), 1.2)
    wanted = np.array([99, 0, 31, 32, 64, 0, 63, 5])
    near = open_reader(open_dataset(root), "train", kind="indexed", workers=0)
    for count in (0, 2):
        far = open_reader(open_dataset(server.url, CacheOptions(cache.path, limit)), "train", workers=count)
        assert_equal([far.gather(wanted)], [near.gather(wanted)])
        far.close()
    near.close()


def test_what_is_read_is_never_removed(server: Any, cache: CacheOptions) -> None:
    limit = CacheOptions(cache.path, room_for(open_dataset(server.url, cache), 2.2))
    shards = open_dataset(server.url, cache).split("train").shards
    with Staged(open_dataset(server.url, limit)) as reading, Staged(open_dataset(server.url, limit)) as other:
        with reading.held(shards[:1]):
            for shard in shards[1:3]:
                with other.held([shard]):
                    assert reading.cache.has(shards[0])
            assert not other.cache.has(shards[1])
            with other.held([shards[1]]), pytest.raises(staging.NoRoom):
                other.fetch_ahead(shards[2], 5)
        with other.held([shards[1]]):
            other.fetch_ahead(shards[2], 5)  # shard 0 is free now
        assert not reading.cache.has(shards[0])


def test_the_shard_needed_last_is_removed_first(server: Any, cache: CacheOptions) -> None:
    limit = CacheOptions(cache.path, room_for(open_dataset(server.url, cache), 2.3))
    shards = list(open_dataset(server.url, cache).split("train").shards)
    with Staged(open_dataset(server.url, limit)) as staged:
        for shard in (shards[0], shards[1]):
            staged.fetch_ahead(shard, 0)
        staged.pin((), [shards[2], shards[1], shards[3], shards[0]])
        staged.fetch_ahead(shards[2], 0)
        assert staged.cache.has(shards[1])
        assert not staged.cache.has(shards[0])


def test_two_runs_that_do_not_fit_together_are_refused(server: Any, cache: CacheOptions) -> None:
    limit = CacheOptions(cache.path, room_for(open_dataset(server.url, cache), 5.0))
    dataset = open_dataset(server.url, limit)
    first, second, third = (open_reader(dataset, "train", workers=0) for _ in range(3))
    try:
        first.expect(Plan(dataset.shard_sizes("train"), seed=0), 0, None)
        second.expect(Plan(dataset.shard_sizes("train"), seed=1), 0, None)  # of the same shards
        with pytest.raises(UserError, match=r"other runs on this machine need \S+ GB .* and this one needs \S+ GB"):
            third.expect(Plan(dataset.shard_sizes("train"), seed=0, window=1), 0, None)
    finally:
        for reader in (first, second, third):
            reader.close()


def test_a_shard_that_was_touched_in_the_cache_is_fetched_again(server: Any, root: Path, cache: CacheOptions) -> None:
    expected = streamed(open_dataset(root), 5)
    assert_equal(streamed(open_dataset(server.url, cache), 5), expected)
    damaged, touched = sorted(Path(cache.path).glob("*/*.tar"))[:2]
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(data)
    touched.touch()
    server.log.clear()
    assert_equal(streamed(open_dataset(server.url, cache), 5), expected)
    assert sum(server.fetched().values()) == 1  # the touched one was only hashed


def test_ranks_of_one_machine_share_what_is_downloaded(
    server: Any, cache: CacheOptions, pattern: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(server.url, cache)
    batches: dict[int, list[Batch]] = {}

    def work(rank: int) -> None:
        batches[rank] = streamed(dataset, 5, rank=rank, world=2)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(batches[0]) == len(batches[1]) == 5
    assert_an_epoch([*batches[0], *batches[1]], pattern)
    assert set(server.fetched().values()) == {1}


def test_a_resumed_stream_reads_nothing_of_what_was_read(server: Any, cache: CacheOptions) -> None:
    dataset = open_dataset(server.url, cache)
    plan = Plan(dataset.shard_sizes("train"), seed=1, window=1)
    order = [window.shards[0] for window, _ in zip(plan.windows(0), range(4), strict=False)]
    begins = [window.begin for window, _ in zip(plan.windows(0), range(4), strict=False)]
    streamed(dataset, 1, window=1, start=begins[2], stop=100)
    names = {dataset.split("train").shards[number].name for number in order[2:]}
    assert set(server.fetched()) == names


def test_once_the_cache_is_ahead_the_reader_downloads_nothing_itself(
    server: Any, cache: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: list[str] = []
    download = Staged._download

    def noted(self: Staged, shard: Shard, file: Any) -> None:
        by.append(threading.current_thread().name)
        download(self, shard, file)

    monkeypatch.setattr(Staged, "_download", noted)
    dataset = open_dataset(server.url, cache)
    reader = open_reader(dataset, "train", workers=0)
    plan = Plan(dataset.shard_sizes("train"), seed=1, window=1)
    for position in range(0, 100, 20):
        reader.expect(plan, position, None)
        while not all(reader._staged.cache.has(shard) for shard in reader._staged._wanted):  # type: ignore[attr-defined]
            threading.Event().wait(0.01)
        reader.gather(plan.indices(position, 20))
    reader.close()
    assert by == ["fetch ahead"] * 4


def test_a_full_disk_is_one_line(server: Any, cache: CacheOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot write .*\.tar: the disk is full") as caught:
        streamed(open_dataset(server.url, cache), 1)
    assert "\n" not in str(caught.value)
    assert not list(Path(cache.path).glob("*/.*"))


def test_a_disk_with_less_room_than_the_limit_says_so(
    server: Any, cache: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(cache.folder.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=70 << 20))
    streamed(open_dataset(server.url, cache), 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=64 << 20))
    with pytest.raises(UserError, match=r"but the disk of .* has room for \S+ GB"):
        prefetch(open_dataset(server.url, CacheOptions(cache.path + "2")), progress=False)


@pytest.mark.parametrize("said", ["by the cache's options", "by the environment"])
def test_a_prefetched_set_needs_no_network(
    server: Any, root: Path, cache: CacheOptions, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = CacheOptions(cache.path, offline=said.endswith("options"))

    def leave_the_network() -> None:
        if not offline.offline:
            monkeypatch.setenv("INFOGAN_OFFLINE", "1")

    leave_the_network()
    with pytest.raises(DataError, match=r"(?i)offline is set.*holds nothing of it.*infogan shards prefetch"):
        open_dataset(server.url, offline)
    monkeypatch.delenv("INFOGAN_OFFLINE", raising=False)
    prefetch(open_dataset(server.url, cache), ["train"], progress=False)
    leave_the_network()
    server.plan = lambda path, number: "drop"
    asked = len(server.log)
    assert_equal(streamed(open_dataset(server.url, offline), 6), streamed(open_dataset(root), 6))
    with pytest.raises(DataError, match=r"(?i)offline is set.*does not hold test/000000\.tar"):
        open_reader(open_dataset(server.url, offline), "test", workers=0).gather(np.arange(3))
    assert len(server.log) == asked


# ---- verify and describe ----------------------------------------------------------------------------------------


@pytest.fixture
def damaged(server: Any, root: Path) -> Iterator[Any]:
    path = root / SHARD
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    yield server


def test_verify_reads_a_url_afresh(server: Any, root: Path, cache: CacheOptions) -> None:
    assert verify(server.url, progress=False, cache=cache) == []
    assert verify(server.url, deep=False, progress=False, cache=cache) == []
    prefetch(open_dataset(server.url, cache), progress=False)
    (root / "train/000002.tar").write_bytes((root / "train/000003.tar").read_bytes())
    (root / "train/000000.idx").write_bytes((root / "train/000003.idx").read_bytes())
    (root / "test/000000.tar").unlink()
    named = {(fault.shard, fault.rule[:20]) for fault in verify(server.url, progress=False, cache=cache)}
    assert {shard for shard, _ in named} == {"train/000000.tar", "train/000002.tar", "test/000000.tar"}
    quick = verify(server.url, deep=False, progress=False, cache=cache)
    assert {fault.shard for fault in quick} == {"train/000002.tar", "test/000000.tar"}
    assert all("\n" not in str(fault) for fault in quick)
    assert not list((Path(cache.path) / "scratch").iterdir())


def test_a_shard_that_was_altered_on_the_server_is_refused_by_name(damaged: Any, cache: CacheOptions) -> None:
    with pytest.raises(DataError, match=r"/train/000001\.tar: its sha256 is .*altered on the server") as caught:
        streamed(open_dataset(damaged.url, cache), 5)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"/train/000001\.tar: its sha256 is"):
        open_reader(open_dataset(damaged.url, cache), "train", kind="resident")
    assert damaged.fetched()[SHARD] == 2 * 2  # each time once more afresh, before it is refused


def test_a_manifest_that_was_altered_on_the_server_is_refused(server: Any, cache: CacheOptions, root: Path) -> None:
    path = root / "manifest.json"
    path.write_text(path.read_text().replace('"samples": 32', '"samples": 31', 1))
    with pytest.raises(DataError, match=r"manifest\.json: .*is not the sum"):
        open_dataset(server.url, cache)


@pytest.mark.parametrize(
    ("sent", "what"), [("<!DOCTYPE html>", "a web page"), ("", "an empty file"), ("ok", "something")]
)
def test_an_address_without_a_manifest_says_so(
    server: Any, cache: CacheOptions, root: Path, sent: str, what: str
) -> None:
    (root / "manifest.json").write_text(sent)
    with pytest.raises(DataError, match=rf"manifest\.json: the server sent {what}.*, not a manifest; check the URL$"):
        open_dataset(server.url, cache)


def test_a_disk_without_room_for_one_more_file_is_one_line(
    server: Any, cache: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    dataset, opened, died = open_dataset(server.url, cache), os.open, list[Any]()

    def without_inodes(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_CREAT and Path(path).parent.name == "locks" and Path(path).name != "folder":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, flags, *more, **options)

    monkeypatch.setattr("os.open", without_inodes)
    monkeypatch.setattr(threading, "excepthook", died.append)
    with pytest.raises(UserError, match=r"cannot write .*locks/\w+: the disk is full"):
        prefetch(dataset, progress=False)
    assert died == []
