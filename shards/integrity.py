"""What can be wrong with a shard, found by reading it once.

`check_shard` compares a tar with the manifest (size, sha256), walks its headers, checks the members against
the layout of the data set, and the sidecar against the tar. Training runs it on every shard it reads before
the first update, `verify` on all of them and more.

Hashing a large set at every start would take long, so the indexed reader remembers what it checked in a stamp
per shard: size, modification time, change time and inode of tar and sidecar, and the manifest's seal. What a
stamp can miss: a disk that returns other bytes than were written, without anyone having written. `verify`
reads every byte again and does not miss it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shards import atomic, index
from shards.errors import DataError, UserError
from shards.layout import Layout
from shards.manifest import Shard, seal

if TYPE_CHECKING:
    from shards.dataset import Dataset

STAMPS = ".verified.json"
REBUILD = "build the data set again"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where (shard and member, or a file), what, and what to do."""

    shard: str
    member: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.shard}, {self.member}" if self.member else self.shard
        return f"{place}: {self.rule}; {self.remedy}"


def quick_faults(tar: Path, sidecar: Path, shard: Shard) -> Iterator[Fault]:
    """What a look at a shard and its sidecar shows: missing, of a wrong size, a sidecar that does not fit."""
    try:
        size = tar.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        yield Fault(shard.name, "", "the shard is missing", f"restore it or {REBUILD}")
        return
    if size != shard.bytes:
        yield Fault(shard.name, "", f"the shard has {size} bytes, the manifest says {shard.bytes}", REBUILD)
    try:
        index.load(tar, sidecar)
    except DataError as error:
        yield Fault(shard.name, sidecar.name, str(error).rsplit(": ", 1)[0], REBUILD)


def tar_faults(shard: Shard, layout: Layout, data: memoryview) -> tuple[list[Fault], NDArray[np.void] | None]:
    """What the bytes of a shard show: faults of its sha256, tar structure and members; and what its sidecar has to
    hold, as far as that can be known."""
    faults = list[Fault]()
    found = hashlib.sha256(data).hexdigest()
    if found != shard.sha256:
        rule = f"its sha256 is {found[:12]}..., the manifest says {shard.sha256[:12]}..."
        faults.append(Fault(shard.name, "", rule, REBUILD))
    try:
        members = layout.walk(data)
    except DataError as error:
        return [*faults, Fault(shard.name, "", str(error), REBUILD)], None
    faults += [Fault(shard.name, member, rule, REBUILD) for member, rule in layout.faults(members)]
    samples = len({layout.key(member.name) for member in members})
    if samples != shard.samples:
        rule = f"it holds {samples} samples, the manifest says {shard.samples}"
        faults.append(Fault(shard.name, "", rule, REBUILD))
    return faults, index.entries(members)


def data_faults(tar: Path, sidecar: Path, shard: Shard, layout: Layout, data: memoryview) -> Iterator[Fault]:
    """`tar_faults`, and a sidecar that does not fit."""
    faults, wanted = tar_faults(shard, layout, data)
    yield from faults
    if wanted is None:
        return
    try:
        table = index.load(tar, sidecar)
    except DataError:
        return  # `quick_faults` has named it
    if not np.array_equal(table, wanted):
        yield Fault(shard.name, sidecar.name, "the sidecar does not fit the tar", REBUILD)


def require_sound(tar: Path, sidecar: Path, shard: Shard, layout: Layout, data: memoryview) -> None:
    """Raises `DataError` with the first fault of the shard that lies at `tar` and whose bytes are `data`."""
    for fault in data_faults(tar, sidecar, shard, layout, data):
        raise DataError(f"{tar}{', ' + fault.member if fault.member else ''}: {fault.rule}; {fault.remedy}")


def stamp_of(tar: Path, sidecar: Path) -> list[int]:
    """How a tar and its sidecar lie on the disk: size, times of change, and inode of each."""
    return [
        value for s in (tar.stat(), sidecar.stat()) for value in (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
    ]


class Stamps:
    """Which shards of a data set on the disk were read and found sound, as they lie there now."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._seal = dataset, seal(dataset.manifest.document())
        self._path = self._place(dataset.root)
        self._stamps: dict[str, list[int]] = self._load()

    def _place(self, root: Path) -> Path:
        """Beside the data, or, where that cannot be written, in the user's cache."""
        if os.access(root, os.W_OK):
            return root / STAMPS
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "infogan" / f"verified-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"

    def _load(self) -> dict[str, list[int]]:
        try:
            document = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        fits = isinstance(document, dict) and document.get("seal") == self._seal
        stamps: Any = document.get("shards") if fits else None
        return stamps if isinstance(stamps, dict) else {}

    def _now(self, shard: Shard) -> list[int]:
        return stamp_of(self._dataset.tar(shard), self._dataset.sidecar(shard))

    def current(self, shard: Shard) -> bool:
        """Whether the shard was checked and neither it nor its sidecar was touched since."""
        return self._stamps.get(shard.name) == self._now(shard)

    def add(self, shards: list[Shard]) -> None:
        """Remembers shards as sound; where that cannot be written, the next start reads them once more."""
        self._stamps.update({shard.name: self._now(shard) for shard in shards})
        try:
            atomic.write_json(self._path, {"seal": self._seal, "shards": self._stamps})
        except (OSError, UserError):
            return
