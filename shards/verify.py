"""Finds everything that is wrong with a data set, and says it in one line each."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards import atomic, index, workers
from shards.dataset import extra_shards
from shards.errors import DataError
from shards.integrity import REBUILD, STAMPS, Fault, data_faults, quick_faults
from shards.layout import DatasetDigest, Layout, sample_digest
from shards.manifest import BUILD_FOLDER, DERIVED_FOLDER, FILE_NAME, SKIPPED, Manifest, Shard

__all__ = ["Fault", "verify"]


def verify(path: str | os.PathLike[str], deep: bool = True, progress: bool = True) -> list[Fault]:
    """Checks a data set whole.

    Args:
        deep: also read every byte and decode every sample; without it only what a look at the folder shows.

    Returns:
        All faults, the manifest's first; empty for a sound data set. A manifest that cannot be read is the
        only fault.
    """
    root = Path(path)
    try:
        manifest = Manifest.load(root)
    except DataError as error:
        return [Fault(FILE_NAME, "", str(error).removesuffix(f"; {REBUILD}"), REBUILD)]
    faults = list(_folder_faults(root, manifest))
    for split in manifest.splits.values():
        for shard in split.shards:
            faults += quick_faults(root, shard)
    if deep:
        faults += _deep_faults(root, manifest, progress)
    return faults


def _folder_faults(root: Path, manifest: Manifest) -> Iterator[Fault]:
    """Files that should not be there, and an unfinished build."""
    for name in extra_shards(root, manifest):
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
            elif name not in known and name not in manifest.splits and file.suffix != ".tar":
                yield Fault(name, "", "the manifest does not know this file", "remove it")


def _deep_faults(root: Path, manifest: Manifest, progress: bool) -> list[Fault]:
    tasks = [
        (split, shard)
        for split, part in manifest.splits.items()
        for shard in part.shards
        if (root / shard.name).is_file()
    ]
    found: dict[str, tuple[list[Fault], bytes]] = {}
    count = max(1, min(workers.available_cores(), len(tasks)))
    with (
        workers.Workers(_Examine(root, manifest), count) as pool,
        tqdm(total=manifest.samples, desc="verifying", unit=" images", disable=not progress, file=sys.stderr) as bar,
    ):
        for kind, value in pool.run(tasks):
            if kind == "note":
                bar.update(value)
            else:
                found[value[0]] = value[1:]
    faults, digest = list[Fault](), DatasetDigest()
    for split in manifest.splits.values():
        for shard in split.shards:
            shard_faults, digests = found.get(shard.name, ([], b""))
            faults += shard_faults
            digest.update(digests)
    if (
        digest.hexdigest() != manifest.digest
        and not faults
        and len(found) == sum(len(s.shards) for s in manifest.splits.values())
    ):
        faults.append(Fault(FILE_NAME, "digest", "the digest does not fit the samples", REBUILD))
    return faults


@dataclass
class _Examine:
    """Reads one shard: all its faults, and the digests of its samples."""

    root: Path
    manifest: Manifest

    def __call__(self, task: tuple[str, Shard], note: Callable[[Any], None]) -> tuple[str, list[Fault], bytes]:
        split, shard = task
        layout = Layout.of(self.manifest)
        with index.mapped(self.root / shard.name) as data:
            faults = list(data_faults(self.root, shard, layout, data))
            digests = bytearray()
            for fault, digest in _samples(data, split, shard, layout):
                if fault is not None:
                    faults.append(fault)
                digests += digest
        note(shard.samples)
        return shard.name, faults, bytes(digests)


def _samples(data: memoryview, split: str, shard: Shard, layout: Layout) -> Iterator[tuple[Fault | None, bytes]]:
    """Decodes every sample as far as the tar can be walked: its fault, if it has one, and its digest."""
    members: list[index.Member] = []
    with contextlib.suppress(DataError):  # `data_faults` has named it; what comes before is decoded all the same
        members.extend(index.walk(data))
    if next(layout.faults(members), None) is not None:
        return  # members are missing or out of place, and named: rows of the sidecar are no samples then
    table, width = index.entries(members), len(layout.extensions)
    for i in range(len(members) // width):
        try:
            decoded = layout.read(data, 0, table[i * width : (i + 1) * width])
        except DataError as error:
            yield Fault(shard.name, members[i * width].name.partition(".")[0], str(error), REBUILD), b""
            continue
        yield None, sample_digest(split, decoded, layout)
