"""The indexed reader: each sample read from its tar by its offset, decoded by worker processes.

A worker pays wherever there is a second core. For 32x32 RGB images as PNG, reading and decoding one took
110 us of the training process's own CPU time (and of its interpreter lock), fetching it from a worker 8 us; at 64x64
it was 280 and 37 us, for MNIST 155 and 6 us.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shards import index, workers
from shards.dataset import Dataset
from shards.errors import DataError
from shards.integrity import Stamps, require_sound
from shards.manifest import Shard
from shards.plan import Plan
from shards.readers import Batch

_OPEN_SHARDS = 256  # file descriptors that one process keeps


@dataclass
class _Check:
    """Compares one shard with the manifest."""

    dataset: Dataset

    def __call__(self, shard: Shard, note: Callable[[Any], None]) -> None:
        tar = self.dataset.tar(shard)
        with index.mapped(tar) as data:
            require_sound(tar, self.dataset.sidecar(shard), shard, self.dataset.layout, data)


def check_once(dataset: Dataset, split: str, count: int, progress: bool) -> None:
    """Reads every shard of a split that was not read and found sound since it was last touched.

    Raises:
        DataError: the first shard that differs from the manifest.
    """
    stamps = Stamps(dataset)
    unchecked = [shard for shard in dataset.split(split).shards if not stamps.current(shard)]
    if not unchecked:
        return
    with (
        workers.Workers(_Check(dataset), min(count, len(unchecked))) as pool,
        tqdm(
            total=len(unchecked),
            desc=f"checking {split}",
            unit=" shards",
            disable=not progress,
            file=sys.stderr,
        ) as bar,
    ):
        for _ in pool.run(unchecked):
            bar.update(1)
    stamps.add(unchecked)


@dataclass
class _Fetch:
    """Reads and decodes samples by number. Every process has its own, with its own open files."""

    dataset: Dataset
    split: str
    ends: NDArray[np.int64]
    place: Callable[[Shard], tuple[Path, Path]]
    passing: bool
    _open: dict[int, tuple[int, NDArray[np.void]]] = field(default_factory=dict)

    def __call__(self, wanted: NDArray[np.int64], note: Callable[[Any], None]) -> list[NDArray[Any]]:
        """int64 [n] -> [uint8 [n, C, H, W], int64 [n], float32 [n, F]]."""
        if self.passing:
            self._drop_removed()
        manifest = self.dataset.manifest
        spec, n = manifest.image, len(wanted)
        images = np.empty((n, spec.channels, spec.height, spec.width), np.uint8)
        labels, factors = np.empty(n, np.int64), np.empty((n, len(manifest.factors)), np.float32)
        shards = np.searchsorted(self.ends, wanted, side="right")
        for row in np.argsort(wanted, kind="stable"):  # in the files' order: neighbours share a page
            image, labels[row], factors[row] = self._sample(int(shards[row]), int(wanted[row]))
            images[row] = image.transpose(2, 0, 1)
        return [images, labels, factors]

    def _sample(self, number: int, sample: int) -> tuple[NDArray[np.uint8], int, list[float]]:
        layout, shard = self.dataset.layout, self.dataset.split(self.split).shards[number]
        descriptor, table = self._opened(number, shard)
        width = len(layout.extensions)
        i = sample - (int(self.ends[number]) - shard.samples)
        rows = table[i * width : (i + 1) * width]
        spans = rows.tolist()
        begin = min(offset for offset, _ in spans) - index.BLOCK
        length = max(offset + size for offset, size in spans) - begin
        try:
            decoded = layout.read(memoryview(os.pread(descriptor, length, begin)), begin, rows)
        except DataError as error:
            raise DataError(f"{self.place(shard)[0]}: {error}; build the data set again") from None
        return decoded.image, decoded.label, decoded.factors

    def _opened(self, number: int, shard: Shard) -> tuple[int, NDArray[np.void]]:
        if number not in self._open:
            while len(self._open) >= _OPEN_SHARDS:
                self._close(next(iter(self._open)))
            tar, sidecar = self.place(shard)
            self._open[number] = os.open(tar, os.O_RDONLY), index.load(tar, sidecar)
        return self._open[number]

    def _drop_removed(self) -> None:
        """Closes files that the cache has removed: their room on the disk comes free only then."""
        for number in [key for key, (descriptor, _) in self._open.items() if os.fstat(descriptor).st_nlink == 0]:
            self._close(number)

    def _close(self, number: int) -> None:
        os.close(self._open.pop(number)[0])

    def close(self) -> None:
        for number in list(self._open):
            self._close(number)


class Gatherer:
    """Gathers samples of a split from tars on the disk, in worker processes.

    Args:
        device: where batches come to lie.
        count: worker processes; 0 decodes in the thread that gathers.
        place: the tar and the sidecar of a shard.
        passing: shards come and go; files that were removed must not be kept open.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        device: torch.device,
        count: int,
        place: Callable[[Shard], tuple[Path, Path]],
        *,
        passing: bool = False,
    ) -> None:
        self.ends = np.cumsum(dataset.shard_sizes(split))
        self._device, self._factors = device, bool(dataset.manifest.factors)
        self._fetch = _Fetch(dataset, split, self.ends, place, passing)
        self._pool = workers.Workers(self._fetch, count) if count else None

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """The samples of these numbers, in this order."""
        parts = self._pool.spread(indices) if self._pool else [self._fetch(indices, lambda note: None)]
        images, labels, factors = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Batch(
            self._moved(torch.from_numpy(images)),
            self._moved(torch.from_numpy(labels)),
            indices,
            self._moved(torch.from_numpy(factors)) if self._factors else None,
        )

    def _moved(self, data: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda":
            return data.pin_memory().to(self._device, non_blocking=True)
        return data.to(self._device)

    def close(self) -> None:
        """Ends the workers and closes the files."""
        if self._pool is not None:
            self._pool.close()
        self._fetch.close()


class IndexedReader:
    """A split read from its tars.

    Args:
        device: where batches come to lie.
        count: worker processes; 0 decodes in the thread that gathers.

    Raises:
        DataError: a shard that differs from the manifest.
    """

    prefetch = True

    def __init__(
        self, dataset: Dataset, split: str, *, device: torch.device, count: int = 0, progress: bool = False
    ) -> None:
        self.manifest = dataset.manifest
        self.device = device
        check_once(dataset, split, max(count, workers.available_cores()), progress)
        self.samples = dataset.split(split).samples
        self._gatherer = Gatherer(
            dataset, split, device, count, lambda shard: (dataset.tar(shard), dataset.sidecar(shard))
        )
        self._turn = threading.Lock()

    def expect(self, plan: Plan, position: int, stop: int | None) -> None:
        """See `Reader.expect`; the shards are all there."""

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """See `Reader.gather`. Safe from several threads; they take turns."""
        with self._turn:
            return self._gatherer.gather(indices)

    def close(self) -> None:
        """See `Reader.close`."""
        with self._turn:
            self._gatherer.close()
