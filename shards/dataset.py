"""Opening a data set: a manifest and its shards, in a folder or behind a URL."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from shards import atomic, index, location
from shards.cache import CacheOptions
from shards.errors import DataError
from shards.integrity import quick_faults
from shards.layout import Layout
from shards.manifest import DERIVED_FOLDER, FILE_NAME, Manifest, Shard, Split


@dataclass(frozen=True)
class Dataset:
    """A data set whose manifest was read.

    Attributes:
        location: where its manifest lies, a folder or a URL.
        manifest: what it is.
        cache: where shards are kept that do not lie on this machine.
    """

    location: str | Path
    manifest: Manifest
    cache: CacheOptions = field(default_factory=CacheOptions)

    @property
    def root(self) -> Path:
        """The folder of a data set that is not at a URL."""
        return Path(self.location)

    @property
    def shown(self) -> str:
        """Its location, as messages name it."""
        return location.shown(str(self.location))

    @property
    def home(self) -> str:
        """The folder or URL below which the tars lie."""
        return self.manifest.tars or str(self.location)

    @property
    def remote(self) -> bool:
        """Whether the tars lie at a URL."""
        return location.is_url(self.home)

    @property
    def derived(self) -> Path:
        """The folder on this machine for what is computed from the data set."""
        if location.is_url(str(self.location)):
            return self.cache.folder / DERIVED_FOLDER / self.manifest.digest
        return self.root / DERIVED_FOLDER

    @property
    def layout(self) -> Layout:
        """How its samples lie in the tars."""
        return Layout.of(self.manifest)

    def tar(self, shard: Shard) -> Path:
        """The path of a shard that lies on a disk."""
        return Path(self.home) / shard.name

    def sidecar(self, shard: Shard) -> Path:
        """The path of its sidecar, which is beside the manifest."""
        return index.sidecar(self.root / shard.name)

    def split(self, name: str) -> Split:
        """A split by name.

        Raises:
            DataError: there is none of this name, or it is empty; the message lists those there are.
        """
        filled = {key: split for key, split in self.manifest.splits.items() if split.samples}
        if name not in filled:
            state = "is empty" if name in self.manifest.splits else "does not exist"
            raise DataError(
                f"{self.shown}: the split {name!r} {state}: it has {', '.join(filled) or 'no samples at all'}"
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


def open_dataset(path: str | os.PathLike[str], cache: CacheOptions | None = None) -> Dataset:
    """Opens a data set after cheap checks. In a folder: a sound manifest, every shard there and of its size, no
    shard that the manifest does not know, sidecars that fit. At a URL: a sound manifest. The bytes themselves are
    checked by whatever reads them.

    Args:
        path: a folder, or a URL of any kind that fsspec reads.
        cache: where shards of a URL are kept on this machine.

    Raises:
        DataError: the first thing that is wrong, with the shard and the remedy. UserError: a URL that cannot be
        reached.
    """
    cache = cache or CacheOptions()
    if location.is_url(path):
        return Dataset(str(path), _fetched(str(path), cache), cache)
    dataset = Dataset(Path(path), Manifest.load(path), cache)
    if dataset.remote:
        return dataset
    for split in dataset.manifest.splits.values():
        for shard in split.shards:
            tar = dataset.tar(shard)
            for fault in quick_faults(tar, dataset.sidecar(shard), shard):
                raise DataError(f"{tar}: {fault.rule}; {fault.remedy}")
    for extra in extra_shards(dataset):
        raise DataError(
            f"{dataset.root / extra}: the manifest does not know this shard; remove it, or build the data set again"
        )
    return dataset


def _fetched(url: str, cache: CacheOptions) -> Manifest:
    """The manifest at a URL, which is kept for a later start without a network."""
    from shards.transport import Remote  # its networking packages take a moment, which a folder need not wait for

    kept, place = cache.manifest_of(url), location.shown(location.join(url, FILE_NAME))
    if cache.closed_off:
        try:
            return Manifest.parse(kept.read_bytes(), str(kept))
        except FileNotFoundError:
            raise DataError(
                f"{location.shown(url)}: {cache.closed_off}, and {cache.folder} holds nothing of it; fetch it "
                "first with `infogan shards prefetch`"
            ) from None
    data = Remote(url).read(FILE_NAME)
    if not data.lstrip().startswith(b"{"):
        page = "a web page" if data.lstrip().startswith(b"<") else "something else"
        raise DataError(f"{place}: the server sent {page if data else 'an empty file'}, not a manifest; check the URL")
    manifest = Manifest.parse(data, place)
    if manifest.tars and not location.is_url(manifest.tars):
        raise DataError(f"{place}: names the folder {manifest.tars} of another machine; adopt the tars at their URL")
    atomic.write_bytes(kept, data)
    return manifest


def extra_shards(dataset: Dataset) -> list[str]:
    """Tars in the folders of the splits that the manifest does not list; an adopted set leaves other files alone."""
    manifest, root = dataset.manifest, dataset.root
    if manifest.adopted is not None:
        return []
    known = {shard.name for split in manifest.splits.values() for shard in split.shards}
    found = (path for name in manifest.splits for path in sorted((root / name).glob("*.tar")))
    return [name for path in found if (name := path.relative_to(root).as_posix()) not in known]
