"""Raw images -> verified WebDataset tars -> batches. Knows nothing of generators or critics.

    from shards import build, open_source, open_dataset, open_reader, BatchStream, Plan
    from shards.verify import verify

    build(open_source("digits"), "data/digits")
    dataset = open_dataset("data/digits")
    reader = open_reader(dataset, "train")
    with BatchStream(reader, Plan(dataset.shard_sizes("train"), seed=0), batch=128) as stream:
        batch = next(stream)  # batch.images: uint8 [128, 1, 28, 28]

    assert verify("data/digits") == []

Names are imported when they are first used: the command line must not wait for torch. (`verify` is also a
module's name, so it is imported from there.)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.cache import CacheOptions
    from shards.dataset import Dataset, open_dataset
    from shards.errors import DataError, UserError
    from shards.loader import Batch, BatchStream, IndexedReader, Reader, RemoteReader, ResidentReader, open_reader
    from shards.manifest import ImageSpec, Manifest, Shard, Split
    from shards.plan import Plan
    from shards.sources import Sample, Source, UnreadableImage, open_source, option, register
    from shards.staging import prefetch
    from shards.verify import Fault
    from shards.writer import build

_HOMES = {
    "shards.cache": ("CacheOptions",),
    "shards.dataset": ("Dataset", "open_dataset"),
    "shards.errors": ("DataError", "UserError"),
    "shards.loader": (
        "Batch",
        "BatchStream",
        "IndexedReader",
        "Reader",
        "RemoteReader",
        "ResidentReader",
        "open_reader",
    ),
    "shards.manifest": ("ImageSpec", "Manifest", "Shard", "Split"),
    "shards.plan": ("Plan",),
    "shards.staging": ("prefetch",),
    "shards.sources": ("Sample", "Source", "UnreadableImage", "open_source", "option", "register"),
    "shards.verify": ("Fault",),
    "shards.writer": ("build",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "BatchStream",
    "CacheOptions",
    "DataError",
    "Dataset",
    "Fault",
    "ImageSpec",
    "IndexedReader",
    "Manifest",
    "Plan",
    "Reader",
    "RemoteReader",
    "ResidentReader",
    "Sample",
    "Shard",
    "Source",
    "Split",
    "UnreadableImage",
    "UserError",
    "build",
    "open_dataset",
    "open_reader",
    "open_source",
    "option",
    "prefetch",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shards' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
