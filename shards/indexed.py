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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shards import index, workers
from shards.dataset import Dataset
from shards.errors import DataError
from shards.integrity import Stamps, require_sound
from shards.manifest import Shard, seal
from shards.readers import Batch

_OPEN_SHARDS = 256  # file descriptors that one process keeps


@dataclass
class _Check:
    """Compares one shard with the manifest."""

    dataset: Dataset

    def __call__(self, shard: Shard, note: Callable[[Any], None]) -> None:
        with index.mapped(self.dataset.root / shard.name) as data:
            require_sound(self.dataset.root, shard, self.dataset.layout, data)


def check_once(dataset: Dataset, split: str, count: int, progress: bool) -> None:
    """Reads every shard of a split that was not read and found sound since it was last touched.

    Raises:
        DataError: the first shard that differs from the manifest.
    """
    stamps = Stamps(dataset.root, seal(dataset.manifest.document()))
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
    _open: dict[int, tuple[int, NDArray[np.void]]] = field(default_factory=dict)

    def __call__(self, wanted: NDArray[np.int64], note: Callable[[Any], None]) -> list[NDArray[Any]]:
        """int64 [n] -> [uint8 [n, C, H, W], int64 [n], float32 [n, F]]."""
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
        begin = int(rows["offset"][0]) - index.BLOCK
        length = int(rows["offset"][-1]) + int(rows["size"][-1]) - begin
        try:
            decoded = layout.read(memoryview(os.pread(descriptor, length, begin)), begin, rows)
        except DataError as error:
            raise DataError(f"{self.dataset.root / shard.name}: {error}; build the data set again") from None
        return decoded.image, decoded.label, decoded.factors

    def _opened(self, number: int, shard: Shard) -> tuple[int, NDArray[np.void]]:
        if number not in self._open:
            while len(self._open) >= _OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open)))[0])
            path = self.dataset.root / shard.name
            self._open[number] = os.open(path, os.O_RDONLY), index.load(path)
        return self._open[number]

    def close(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()


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
        ends = np.cumsum(dataset.shard_sizes(split))
        self.samples = int(ends[-1])
        self._fetch = _Fetch(dataset, split, ends)
        self._pool = workers.Workers(self._fetch, count) if count else None
        self._turn = threading.Lock()

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """See `Reader.gather`. Safe from several threads; they take turns."""
        with self._turn:
            parts = self._pool.spread(indices) if self._pool else [self._fetch(indices, lambda note: None)]
        images, labels, factors = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Batch(
            self._moved(torch.from_numpy(images)),
            self._moved(torch.from_numpy(labels)),
            indices,
            self._moved(torch.from_numpy(factors)) if self.manifest.factors else None,
        )

    def _moved(self, data: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":
            return data.pin_memory().to(self.device, non_blocking=True)
        return data.to(self.device)

    def close(self) -> None:
        """See `Reader.close`."""
        with self._turn:
            if self._pool is not None:
                self._pool.close()
            self._fetch.close()
