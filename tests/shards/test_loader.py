"""Both readers give the same batches, to any number of processes, from any place on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import loader
from shards.dataset import Dataset, open_dataset
from shards.errors import DataError, UserError
from shards.loader import Batch, BatchStream, open_reader
from shards.plan import Plan
from shards.readers import Reader
from shards.writer import build

KINDS = [("resident", 2), ("indexed", 0), ("indexed", 1), ("indexed", 3)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def reader(request: Any, dataset: Dataset) -> Iterator[Reader]:
    kind, workers = request.param
    opened = open_reader(dataset, "train", kind=kind, workers=workers)
    yield opened
    opened.close()


def test_a_batch_holds_exactly_the_samples_asked_for(reader: Reader, pattern: Any) -> None:
    wanted = np.array([99, 0, 31, 32, 64, 0, 63, 5])
    batch = reader.gather(wanted)
    source = pattern()
    assert reader.samples == 100
    assert batch.images.dtype == torch.uint8
    assert batch.labels.dtype == torch.int64
    assert batch.images.shape == (8, 1, 6, 5)
    assert batch.factors is None
    np.testing.assert_array_equal(batch.indices, wanted)
    for row, i in enumerate(wanted):
        sample = source.sample("train", int(i))
        np.testing.assert_array_equal(batch.images[row].numpy(), sample.image.transpose(2, 0, 1))
        assert batch.labels[row] == sample.label


@pytest.mark.parametrize(("kind", "workers"), KINDS)
@pytest.mark.parametrize("encoding", ["png", "npy"])
def test_colour_factors_and_missing_labels_come_through(
    pattern: Any, tmp_path: Path, kind: Any, workers: int, encoding: str
) -> None:
    source = pattern(channels=3, classes=0, factors=True)
    build(source, tmp_path / "set", shard_size=33, encoding=encoding, progress=False)
    opened = open_reader(open_dataset(tmp_path / "set"), "train", kind=kind, workers=workers)
    batch = opened.gather(np.array([7, 93]))
    assert batch.labels.tolist() == [-1, -1]
    assert batch.factors is not None
    assert batch.factors.dtype == torch.float32
    np.testing.assert_allclose(batch.factors.numpy(), [[0.7, 3], [0.3, 1]], rtol=1e-6)
    np.testing.assert_array_equal(batch.images[1].numpy(), source.sample("train", 93).image.transpose(2, 0, 1))
    opened.close()


def taken(reader: Reader, count: int, **options: Any) -> list[Batch]:
    with BatchStream(reader, Plan([32, 32, 32, 4], seed=1), **options) as stream:
        return [next(stream) for _ in range(count)]


def test_both_readers_give_the_same_order(reader: Reader) -> None:
    batches = taken(reader, 12, batch=24)
    expected = Plan([32, 32, 32, 4], seed=1).indices(0, 12 * 24).reshape(12, 24)
    for batch, row in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch.indices, row)
        np.testing.assert_array_equal(batch.images.numpy(), reader.gather(row).images.numpy())


def test_the_images_of_a_step_are_the_same_for_any_number_of_processes(reader: Reader) -> None:
    alone = [batch.indices for batch in taken(reader, 10, batch=24)]
    for world in (1, 2, 4):
        for accumulation in (1, 3):
            ranks = [
                taken(reader, 10 * accumulation, batch=24, rank=r, world=world, accumulation=accumulation)
                for r in range(world)
            ]
            for step in range(10):
                parts = [
                    ranks[r][step * accumulation + micro].indices for micro in range(accumulation) for r in range(world)
                ]
                np.testing.assert_array_equal(np.concatenate(parts), alone[step])


def test_a_stream_resumes_at_any_position(reader: Reader) -> None:
    whole = [batch.indices for batch in taken(reader, 20, batch=24)]
    for step in (1, 4, 7, 19):  # 4 steps are 96 images: the batch after them straddles two epochs
        later = taken(reader, 20 - step, batch=24, start=24 * step)
        np.testing.assert_array_equal([b.indices for b in later], whole[step:])
    odd = taken(reader, 3, batch=24, start=7)
    np.testing.assert_array_equal(np.concatenate([b.indices for b in odd]), np.concatenate(whole)[7 : 7 + 72])


def test_one_epoch_shows_each_image_once_to_all_ranks_together(reader: Reader) -> None:
    seen = [
        index
        for rank in range(2)
        for batch in taken(reader, 5, batch=20, rank=rank, world=2)
        for index in batch.indices
    ]
    assert sorted(seen) == list(range(100))


def test_a_stream_ends_at_its_stop(reader: Reader) -> None:
    for stop, batches in ((0, 0), (1, 1), (24, 1), (25, 2), (240, 10)):
        with BatchStream(reader, Plan([32, 32, 32, 4], seed=1), batch=24, stop=stop) as stream:
            assert len(list(stream)) == batches
            assert next(stream, None) is None  # and stays ended


def test_closing_in_mid_stream_leaves_no_thread_and_no_process(dataset: Dataset) -> None:
    before = threading.active_count()
    opened = open_reader(dataset, "train", kind="indexed", workers=2)
    pids = [process.pid for process in opened._gatherer._pool._processes]  # type: ignore[attr-defined]
    stream = BatchStream(opened, Plan([32, 32, 32, 4], seed=1), batch=24)
    next(stream)
    stream.close()
    opened.close()
    assert threading.active_count() == before
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("ending", ["raise ValueError('boom')", "pass"])
def test_a_program_that_ends_without_closing_ends_at_once(root: Path, ending: str) -> None:
    program = root.parent / "program.py"  # with -c, its variables are gone before it waits for its children
    program.write_text(f"""
from shards import BatchStream, Plan, open_dataset, open_reader
dataset = open_dataset({str(root)!r})
reader = open_reader(dataset, "train", kind="indexed", workers=2)
stream = BatchStream(reader, Plan(dataset.shard_sizes("train"), seed=0), batch=20)
next(stream)
{ending}
""")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, timeout=60)
    assert done.returncode == {"r": 1, "p": 0}[ending[0]], done.stderr.decode()


def test_an_error_while_prefetching_reaches_the_consumer(dataset: Dataset) -> None:
    opened = open_reader(dataset, "train", kind="indexed", workers=1)
    path = dataset.root / dataset.split("train").shards[1].name
    data = bytearray(path.read_bytes())
    for begin in range(0, len(data), 512):  # after the check at the start: a disk that goes bad while training
        data[begin + 300] ^= 0xFF
        data[begin + 40] ^= 0xFF
    path.write_bytes(data)
    with (
        BatchStream(opened, Plan([32, 32, 32, 4], seed=1), batch=100) as stream,
        pytest.raises(DataError, match=r"train/000001\.tar.*build the data set again"),
    ):
        next(stream)
    opened.close()


def test_time_waited_is_what_the_consumer_waited() -> None:
    class Slow:
        samples, prefetch, calls = 10, False, 0
        device = torch.device("cpu")

        def expect(self, plan: Plan, position: int, stop: int | None) -> None:
            pass

        def gather(self, indices: np.ndarray) -> Batch:
            time.sleep(0.05)
            self.calls += 1
            return Batch(torch.empty(0), torch.empty(0), indices, None)

    for prefetch in (False, True):
        slow = Slow()
        slow.prefetch = prefetch
        with BatchStream(slow, Plan([10], seed=0), batch=2) as stream:  # type: ignore[arg-type]
            while prefetch and slow.calls < 4:  # three are ready by then, and the fourth is waiting for a place
                time.sleep(0.01)
            begun = time.perf_counter()
            for _ in range(3):
                next(stream)
            elapsed = time.perf_counter() - begun
            assert stream.time_waited <= elapsed
            assert (stream.time_waited >= 0.15) is not prefetch


def test_auto_takes_memory_where_there_is_enough(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(open_reader(dataset, "train")).__name__ == "ResidentReader"
    monkeypatch.setattr(loader, "free_host_memory", lambda: 100 * 30)
    small = open_reader(dataset, "train", workers=0)
    assert type(small).__name__ == "IndexedReader"
    small.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 25, "world": 2}, "batch is 25"),
        ({"batch": 24, "world": 4, "accumulation": 4}, "batch is 24"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 24, "rank": 2, "world": 2}, "rank is 2"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(dataset: Dataset, options: Any, message: str) -> None:
    opened = open_reader(dataset, "train", kind="resident")
    with pytest.raises(UserError, match=message):
        BatchStream(opened, Plan([100], seed=0), **options)
    with pytest.raises(UserError, match="plan is for 99 samples"):
        BatchStream(opened, Plan([99], seed=0), batch=10)


def test_a_split_that_is_not_there_lists_those_that_are(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"'validation' does not exist: it has train, test"):
        open_reader(dataset, "validation")
    for options, message in (
        ({"kind": "far"}, "choose auto, resident, indexed or remote"),
        ({"workers": -1}, "-1"),
    ):
        with pytest.raises(UserError, match=message):
            open_reader(dataset, "train", **options)


def test_a_failed_gather_leaves_the_reader_in_step(dataset: Dataset) -> None:
    opened = open_reader(dataset, "train", kind="indexed", workers=2)
    path = dataset.root / dataset.split("train").shards[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(len(whole) - 2000))
    with pytest.raises(DataError):
        opened.gather(np.array([5, 6, 40, 41]))
    batch = opened.gather(np.array([50, 51, 60, 61]))
    assert batch.labels.tolist() == [50 % 3, 51 % 3, 60 % 3, 61 % 3]
    opened.close()


def test_a_worker_that_dies_is_one_line(dataset: Dataset) -> None:
    opened = open_reader(dataset, "train", kind="indexed", workers=2)
    os.kill(opened._gatherer._pool._processes[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    for _ in range(2):  # on its reply, and on the next request
        with pytest.raises(UserError, match="worker process died"):
            opened.gather(np.arange(20))
    opened.close()
