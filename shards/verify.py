"""Finds everything that is wrong with a data set, and says it in one line each."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from shards import atomic, index, location, workers
from shards.cache import CacheOptions, scratch
from shards.dataset import Dataset, extra_shards, open_dataset
from shards.errors import DataError
from shards.integrity import REBUILD, STAMPS, Fault, data_faults, quick_faults
from shards.layout import DatasetDigest, Layout, sample_digest
from shards.manifest import BUILD_FOLDER, DERIVED_FOLDER, FILE_NAME, SKIPPED, Manifest, Shard

if TYPE_CHECKING:
    from shards.transport import Remote

__all__ = ["Fault", "verify"]


def verify(
    path: str | os.PathLike[str], deep: bool = True, progress: bool = True, cache: CacheOptions | None = None
) -> list[Fault]:
    """Checks a data set whole.

    Args:
        path: its folder, or its URL. From a URL every byte is fetched afresh, whatever the cache holds.
        deep: also read every byte and decode every sample; without it only what a look at the folder shows.
        cache: whose folder takes the shards of a URL while they are read, one or two per core.

    Returns:
        All faults, the manifest's first; empty for a sound data set. A manifest that cannot be read is the
        only fault.

    Raises:
        UserError: a URL that cannot be reached.
    """
    cache = cache or CacheOptions()
    try:
        dataset = (
            open_dataset(path, cache) if location.is_url(path) else Dataset(Path(path), Manifest.load(path), cache)
        )
    except DataError as error:
        return [Fault(FILE_NAME, "", str(error).removesuffix(f"; {REBUILD}"), REBUILD)]
    if dataset.remote:
        return _remote_faults(dataset, deep, progress)
    faults = list(_folder_faults(dataset))
    for split in dataset.manifest.splits.values():
        for shard in split.shards:
            faults += quick_faults(dataset.tar(shard), dataset.sidecar(shard), shard)
    if deep:
        found = _Examined(dataset, lambda shard: (dataset.tar(shard), dataset.sidecar(shard)))
        found.examine((task for task in _tasks(dataset) if dataset.tar(task[1]).is_file()), progress)
        faults += found.faults()
    return faults


def _tasks(dataset: Dataset) -> Iterator[tuple[str, Shard]]:
    for split, part in dataset.manifest.splits.items():
        for shard in part.shards:
            yield split, shard


def _remote_faults(dataset: Dataset, deep: bool, progress: bool) -> list[Fault]:
    """What is wrong with the tars and sidecars at a URL."""
    from shards.transport import Remote  # its networking packages take a moment, which a folder need not wait for

    remote = Remote(dataset.home)
    if not deep:
        return [fault for _, shard in _tasks(dataset) for fault in _size_faults(remote, shard)]
    with scratch(dataset.cache) as folder:
        found = _Examined(dataset, lambda shard: _fetched_place(dataset, folder, shard))
        found.examine(_arriving(remote, found), progress, passing=True)
    return found.faults()


def _size_faults(remote: Remote, shard: Shard) -> Iterator[Fault]:
    try:
        size = remote.size(shard.name)
    except DataError:
        yield Fault(shard.name, "", "the shard is missing", "upload it again")
        return
    if size is not None and size != shard.bytes:
        yield Fault(shard.name, "", f"the shard has {size} bytes, the manifest says {shard.bytes}", "upload it again")


def _fetched_place(dataset: Dataset, folder: Path, shard: Shard) -> tuple[Path, Path]:
    tar = folder / f"{shard.sha256}.tar"
    at_url = location.is_url(str(dataset.location))
    return tar, index.sidecar(tar) if at_url else dataset.sidecar(shard)


def _arriving(remote: Remote, found: _Examined) -> Iterator[tuple[str, Shard]]:
    """Fetches one shard after the other, each when a worker is free for it, and its sidecar if that is there too."""
    from shards.transport import SMALL  # see above

    for split, shard in _tasks(found.dataset):
        tar, sidecar = found.place(shard)
        try:
            with atomic.file(tar) as file:
                remote.download(shard, file, threading.Event())
            if sidecar.parent == tar.parent:
                entries = shard.samples * len(found.dataset.layout.extensions)
                name = index.sidecar(Path(shard.name)).as_posix()
                atomic.write_bytes(sidecar, remote.read(name, max(SMALL, entries * index.ENTRY.itemsize)))
        except DataError as error:
            rule, _, remedy = str(error).partition(": ")[2].partition("; ")
            found.of[shard.name] = [Fault(shard.name, "", rule, remedy)], b""
            tar.unlink(missing_ok=True)
            continue
        yield split, shard


def _folder_faults(dataset: Dataset) -> Iterator[Fault]:
    """Files that should not be there, and an unfinished build; what else lies beside adopted tars is not ours."""
    root, manifest = dataset.root, dataset.manifest
    for name in extra_shards(dataset):
        yield Fault(name, "", "the manifest does not know this shard", f"remove it, or {REBUILD}")
    if (root / BUILD_FOLDER).exists():
        yield Fault(
            BUILD_FOLDER,
            "",
            "a build was cut off here",
            "run the same `shards build` once more: it tidies up",
        )
    shards = {shard.name for split in manifest.splits.values() for shard in split.shards}
    known = {
        FILE_NAME,
        BUILD_FOLDER,
        STAMPS,
        SKIPPED,
        DERIVED_FOLDER,
        *shards,
        *(str(Path(name).with_suffix(".idx")) for name in shards),
    }
    for folder in (root, *(root / name for name in manifest.splits)):
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = file.relative_to(root).as_posix()
            if atomic.is_temporary(file.name):
                yield Fault(name, "", "an unfinished write was left behind", "remove it")
            elif name in known or name in manifest.splits or file.suffix == ".tar" or manifest.adopted is not None:
                continue
            else:
                yield Fault(name, "", "the manifest does not know this file", "remove it")


class _Examined:
    """What reading the shards of a data set found; `place` says where a shard and its sidecar lie."""

    def __init__(self, dataset: Dataset, place: Callable[[Shard], tuple[Path, Path]]) -> None:
        self.dataset, self.place = dataset, place
        self.of: dict[str, tuple[list[Fault], bytes]] = {}  # shard's name -> its faults, the digests of its samples

    def examine(self, tasks: Iterable[tuple[str, Shard]], progress: bool, passing: bool = False) -> None:
        """Reads shards in parallel; `passing` ones are removed once they were read."""
        manifest = self.dataset.manifest
        shards = {shard.name: shard for _, shard in _tasks(self.dataset)}
        count = max(1, min(workers.available_cores(), len(shards)))
        with (
            workers.Workers(_Examine(self.dataset, self.place), count) as pool,
            tqdm(
                total=manifest.samples, desc="verifying", unit=" images", disable=not progress, file=sys.stderr
            ) as bar,
        ):
            for kind, value in pool.run(tasks):
                if kind == "note":
                    bar.update(value)
                    continue
                name, *result = value
                self.of[name] = tuple(result)
                for path in self.place(shards[name]) if passing else ():
                    if path.parent == self.place(shards[name])[0].parent:
                        path.unlink(missing_ok=True)

    def faults(self) -> list[Fault]:
        """All that was found, in the manifest's order."""
        faults, digest = list[Fault](), DatasetDigest()
        tasks = list(_tasks(self.dataset))
        for _, shard in tasks:
            shard_faults, digests = self.of.get(shard.name, ([], b""))
            faults += shard_faults
            digest.update(digests)
        if digest.hexdigest() != self.dataset.manifest.digest and not faults and len(self.of) == len(tasks):
            faults.append(Fault(FILE_NAME, "digest", "the digest does not fit the samples", REBUILD))
        return faults


@dataclass
class _Examine:
    """Reads one shard: all its faults, and the digests of its samples."""

    dataset: Dataset
    place: Callable[[Shard], tuple[Path, Path]]

    def __call__(self, task: tuple[str, Shard], note: Callable[[Any], None]) -> tuple[str, list[Fault], bytes]:
        split, shard = task
        tar, sidecar = self.place(shard)
        with index.mapped(tar) as data:
            faults = list(data_faults(tar, sidecar, shard, self.dataset.layout, data))
            digests = bytearray()
            for fault, digest in _samples(data, split, shard, self.dataset.layout):
                if fault is not None:
                    faults.append(fault)
                digests += digest
        note(shard.samples)
        return shard.name, faults, bytes(digests)


def _samples(data: memoryview, split: str, shard: Shard, layout: Layout) -> Iterator[tuple[Fault | None, bytes]]:
    """Decodes every sample as far as the tar can be walked: its fault, if it has one, and its digest."""
    members: list[index.Member] = []
    with contextlib.suppress(DataError):  # `data_faults` has named it; what comes before is decoded all the same
        if layout.adopted is None:
            members.extend(index.walk(data))
        else:
            members.extend(layout.walk(data))
    if next(layout.faults(members), None) is not None:
        return  # members are missing or out of place, and named: rows of the sidecar are no samples then
    table, width = index.entries(members), len(layout.extensions)
    for i in range(len(members) // width):
        key = layout.key(members[i * width].name)
        try:
            decoded = layout.read(data, 0, table[i * width : (i + 1) * width], key)
        except DataError as error:
            yield Fault(shard.name, key, str(error), REBUILD), b""
            continue
        yield None, sample_digest(split, decoded, layout)
