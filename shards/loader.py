"""From a data set to batches: choosing a reader, and the stream that a training process reads."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from shards import workers as processes
from shards.dataset import Dataset
from shards.errors import UserError
from shards.indexed import IndexedReader
from shards.memory import free_host_memory
from shards.plan import Plan
from shards.readers import Batch, Reader
from shards.remote import RemoteReader
from shards.resident import ResidentReader

__all__ = ["Batch", "BatchStream", "IndexedReader", "Reader", "RemoteReader", "ResidentReader", "open_reader"]

_HOST_SHARE = 0.4  # of the free memory that the decoded split may take
_MOST_WORKERS = 8
_AHEAD = 3  # batches that are kept ready
_BLOCK = 1 << 15  # positions whose order is worked out at once: the cost per call is then negligible


def open_reader(
    dataset: Dataset,
    split: str,
    *,
    kind: Literal["auto", "resident", "indexed", "remote"] = "auto",
    device: str | torch.device = "cpu",
    workers: int | Literal["auto"] = "auto",
    progress: bool = False,
) -> Reader:
    """Opens a split for reading; every shard is compared with the manifest before anything of it is handed out.

    Args:
        kind: `resident` decodes the split into memory, `indexed` reads samples when they are asked for;
            `remote` fetches shards into the cache of this machine ahead of need; `auto` takes `remote` for a URL, and
            `resident` where the decoded split needs less than 40 % of the memory that is free.
        device: where batches come to lie.
        workers: processes for decoding; `auto` for this process's share of the cores less one, 8 at most.

    Raises:
        DataError: a split that is not there, or a damaged shard. UserError: a wrong argument.
    """
    if kind not in ("auto", "resident", "indexed", "remote"):
        raise UserError(f"reader is {kind!r}: choose auto, resident, indexed or remote")
    if kind == "indexed" and dataset.remote:
        raise UserError(
            f"reader is 'indexed', but {dataset.shown} does not lie on this machine: choose remote, or auto"
        )
    if workers != "auto" and (not isinstance(workers, int) or workers < 0):
        raise UserError(f"workers is {workers!r}: give a number from 0 on, or auto")
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    needed = dataset.split(split).samples * dataset.manifest.image.nbytes
    if kind == "auto" and dataset.remote:
        kind = "remote"
    elif kind == "auto":
        kind = "resident" if needed <= _HOST_SHARE * free_host_memory() else "indexed"
    if kind == "resident":
        return ResidentReader(
            dataset,
            split,
            device=place,
            count=None if workers == "auto" else max(1, workers),
            progress=progress,
        )
    count = _own_workers() if workers == "auto" else workers
    if kind == "remote":
        return RemoteReader(dataset, split, device=place, count=count)
    return IndexedReader(dataset, split, device=place, count=count, progress=progress)


def _own_workers() -> int:
    """One core is left to each training process on this machine, the others decode."""
    cores = processes.available_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(0, min(_MOST_WORKERS, cores - 1))


class BatchStream:
    """This process's batches, in the plan's order, without end or up to `stop`.

    Global batch k holds positions [start + k * batch, start + (k + 1) * batch) of the plan. It is cut into
    `accumulation` consecutive micro-batches, and each of those into `world` consecutive slices, one per rank;
    iterating yields this rank's slice of each micro-batch in turn. So the images of a step are the same for
    any number of processes.

    Args:
        batch: global batch size in images.
        rank, world: this process and how many there are.
        accumulation: micro-batches per step.
        start: images seen, where the stream begins.
        stop: images seen, from which on no new global batch begins; None for no end.

    Use it as a context manager, or call `close`, so that its thread ends.

    Raises:
        UserError: a batch that cannot be cut into equal slices, or a rank outside the world.
    """

    def __init__(
        self,
        reader: Reader,
        plan: Plan,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        if batch < 1 or world < 1 or accumulation < 1 or batch % (world * accumulation):
            raise UserError(
                f"batch is {batch}: it must be a multiple of {world} processes x {accumulation} accumulation"
            )
        if not 0 <= rank < world:
            raise UserError(f"rank is {rank}: it must be between 0 and {world - 1}")
        if plan.samples != reader.samples:
            raise UserError(f"the plan is for {plan.samples} samples, the split has {reader.samples}")
        self._reader, self._plan = reader, plan
        self._batch, self._rank, self._world, self._accumulation = batch, rank, world, accumulation
        self._start, self._stop = start, stop
        self._waited = 0.0
        self._thread: _Ahead | None = None
        self._batches = self._gathered()
        if reader.prefetch:
            self._thread = _Ahead(self._batches)

    @property
    def time_waited(self) -> float:
        """Seconds that the consumer has waited for data, in all."""
        return self._waited

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        begun = time.perf_counter()
        try:
            return self._thread.take() if self._thread is not None else next(self._batches)
        finally:
            self._waited += time.perf_counter() - begun

    def _gathered(self) -> Iterator[Batch]:
        for seen, indices in self._slices():
            self._reader.expect(self._plan, seen, self._stop)
            yield self._reader.gather(indices)

    def _slices(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(images seen before the global batch, this rank's sample numbers), one slice per micro-batch."""
        part = self._batch // (self._world * self._accumulation)
        at_once = max(1, _BLOCK // self._batch)
        if self._stop is not None:
            at_once = max(1, min(at_once, -(-(self._stop - self._start) // self._batch)))
        seen = self._start
        while self._stop is None or seen < self._stop:
            order = self._plan.indices(seen, at_once * self._batch)
            slices = order.reshape(at_once, self._accumulation, self._world, part)
            for step in slices[:, :, self._rank]:
                if self._stop is not None and seen >= self._stop:
                    return
                yield from ((seen, np.ascontiguousarray(micro)) for micro in step)
                seen += self._batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the prefetching thread. The reader stays open."""
        if self._thread is not None:
            self._thread.close()


class _Ahead:
    """A thread that keeps the next batches ready, and hands its error to the consumer."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(batches,), name="prefetch", daemon=True)
        self._thread.start()

    def _work(self, batches: Iterator[Batch]) -> None:
        try:
            for batch in batches:
                self._put(batch)
                if self._stopped.is_set():
                    return
            self._put(StopIteration())
        except BaseException as error:  # whatever it is, the consumer must see it rather than wait for ever
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=0.1)
                return

    def take(self) -> Batch:
        if self._stopped.is_set():
            raise RuntimeError("the stream is closed")
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)  # a further call ends in the same way
            raise item
        return item

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
