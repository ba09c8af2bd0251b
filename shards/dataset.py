"""Opening a data set: a folder with a manifest, its shards and their sidecars."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError
from shards.integrity import quick_faults
from shards.layout import Layout
from shards.manifest import Manifest, Split


@dataclass(frozen=True)
class Dataset:
    """A data set on the disk whose manifest was read and whose shards were counted.

    Attributes:
        root: its folder.
        manifest: what it is.
    """

    root: Path
    manifest: Manifest

    @property
    def layout(self) -> Layout:
        """How its samples lie in the tars."""
        return Layout.of(self.manifest)

    def split(self, name: str) -> Split:
        """A split by name.

        Raises:
            DataError: there is none of this name, or it is empty; the message lists those there are.
        """
        filled = {key: split for key, split in self.manifest.splits.items() if split.samples}
        if name not in filled:
            state = "is empty" if name in self.manifest.splits else "does not exist"
            raise DataError(
                f"{self.root}: the split {name!r} {state}: it has {', '.join(filled) or 'no samples at all'}"
            )
        return filled[name]

    def shard_sizes(self, split: str) -> list[int]:
        """Samples of each shard of a split, in order: what a `Plan` is made from."""
        return [shard.samples for shard in self.split(split).shards]

    def place(self, split: str, index: int) -> str:
        """Where a sample lies: its shard and its number there, from 0 on, as in `train/000003.tar:17`."""
        for shard in self.split(split).shards:
            if index < shard.samples:
                return f"{shard.name}:{index}"
            index -= shard.samples
        raise IndexError(f"split {split} has no sample {index} past its end")


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Opens the data set in a folder after cheap checks: a sound manifest, every shard there and of its size,
    no shard that the manifest does not know, sidecars that fit. The bytes themselves are checked by whatever
    reads them.

    Raises:
        DataError: the first thing that is wrong, with the shard and the remedy.
    """
    root = Path(path)
    manifest = Manifest.load(root)
    for split in manifest.splits.values():
        for shard in split.shards:
            for fault in quick_faults(root, shard):
                raise DataError(f"{root / fault.shard}: {fault.rule}; {fault.remedy}")
    for extra in extra_shards(root, manifest):
        raise DataError(
            f"{root / extra}: the manifest does not know this shard; remove it, or build the data set again"
        )
    return Dataset(root, manifest)


def extra_shards(root: Path, manifest: Manifest) -> list[str]:
    """Tars in the folders of the splits that the manifest does not list."""
    known = {shard.name for split in manifest.splits.values() for shard in split.shards}
    found = (path for name in manifest.splits for path in sorted((root / name).glob("*.tar")))
    return [name for path in found if (name := path.relative_to(root).as_posix()) not in known]
