"""The resident reader: a split decoded once into memory."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
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
from shards.memory import free_device_memory
from shards.plan import Plan
from shards.readers import Batch
from shards.staging import Staged

_NOTE_SAMPLES = 1024
_DEVICE_SHARE = 0.25  # of the device's free memory that the data may take; the networks need the rest


def _shared(shape: tuple[int, ...], dtype: type[Any]) -> NDArray[Any]:
    """An array that forked workers write into and we read from."""
    size = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(mmap.mmap(-1, size), dtype, count=count).reshape(shape)


@dataclass
class _Decode:
    """Decodes one shard after comparing it with the manifest."""

    dataset: Dataset
    split: str
    place: Callable[[Shard], tuple[Path, Path]]
    begins: list[int]
    images: NDArray[np.uint8]  # [N, C, H, W]
    labels: NDArray[np.int64]  # [N]
    factors: NDArray[np.float32]  # [N, F]

    def __call__(self, number: int, note: Callable[[Any], None]) -> None:
        layout, shard = self.dataset.layout, self.dataset.split(self.split).shards[number]
        (path, sidecar), width = self.place(shard), len(layout.extensions)
        with index.mapped(path) as data:
            require_sound(path, sidecar, shard, layout, data)
            table = index.load(path, sidecar)
            for i in range(shard.samples):
                rows = table[i * width : (i + 1) * width]
                try:
                    sample = layout.read(data, 0, rows)
                except DataError as error:
                    raise DataError(f"{path}: {error}; build the data set again") from None
                at = self.begins[number] + i
                self.images[at] = sample.image.transpose(2, 0, 1)
                self.labels[at] = sample.label
                self.factors[at] = sample.factors
                if i % _NOTE_SAMPLES == _NOTE_SAMPLES - 1:
                    note(_NOTE_SAMPLES)
        note(shard.samples % _NOTE_SAMPLES)


class ResidentReader:
    """A split in memory.

    Args:
        device: where batches come to lie. The data lies there too if it takes at most a quarter of the free
            memory, else in
            the host's memory.
        count: worker processes for the decoding.

    Raises:
        DataError: a shard that differs from the manifest, or a sample that cannot be decoded.
    """

    prefetch = False

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        device: torch.device,
        count: int | None = None,
        progress: bool = False,
    ) -> None:
        self.manifest = dataset.manifest
        self.device = device
        sizes = dataset.shard_sizes(split)
        self.samples = sum(sizes)
        spec = self.manifest.image
        shards = dataset.split(split).shards
        staged = Staged(dataset) if dataset.remote else None
        job = _Decode(
            dataset,
            split,
            staged.place if staged else lambda shard: (dataset.tar(shard), dataset.sidecar(shard)),
            (np.cumsum(sizes) - sizes).tolist(),
            _shared((self.samples, spec.channels, spec.height, spec.width), np.uint8),
            _shared((self.samples,), np.int64),
            _shared((self.samples, len(self.manifest.factors)), np.float32),
        )
        with (
            staged or nullcontext(),
            workers.Workers(job, min(count or workers.available_cores(), len(sizes))) as pool,
            tqdm(
                total=self.samples,
                desc=f"decoding {split}",
                unit=" images",
                disable=not progress,
                file=sys.stderr,
            ) as bar,
        ):
            for group in staged.in_turn(shards) if staged else [shards]:
                for kind, value in pool.run([shards.index(shard) for shard in group]):
                    if kind == "note":
                        bar.update(value)
        if staged is None:
            Stamps(dataset).add(list(shards))
        room = free_device_memory(device)
        self.home = device if room is not None and job.images.nbytes <= _DEVICE_SHARE * room else torch.device("cpu")
        self._images = torch.from_numpy(job.images).to(self.home)
        self._labels = torch.from_numpy(job.labels).to(self.home)
        self._factors = torch.from_numpy(job.factors).to(self.home) if self.manifest.factors else None

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """See `Reader.gather`."""
        rows = torch.from_numpy(indices)
        if self.home.type == "cuda":
            rows = rows.pin_memory().to(self.home, non_blocking=True)
        return Batch(
            self._take(self._images, rows),
            self._take(self._labels, rows),
            indices,
            None if self._factors is None else self._take(self._factors, rows),
        )

    def _take(self, data: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        taken = data.index_select(0, rows.to(self.home))
        if self.home == self.device:
            return taken
        return (
            taken.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else taken.to(self.device)
        )

    def expect(self, plan: Plan, position: int, stop: int | None) -> None:
        """See `Reader.expect`; the samples are all there."""

    def close(self) -> None:
        """See `Reader.close`."""
