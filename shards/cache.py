"""A bounded folder of shards on a disk of this machine, shared by every process and every run on it.

    <path>/<data digest>/<sha256>.tar    a shard, whole and verified: it appears by a rename
                        /<sha256>.idx    its sidecar, made from the verified tar
                        /<sha256>.ok     how the tar lay on the disk when it was verified; one touched since is
                                         hashed again
    <path>/urls/<hash of a URL>.json     the manifest last seen there, for `offline`
    <path>/derived/<data digest>/        what others computed from the data set
    <path>/locks/, leases/               see below

One lock per shard (of 4,096, by its sha256) lets one process download it while the others wait for it. A process
writes into its lease which shards it reads now and which it will need, in their order; the lease is locked for as
long as the process lives. Room is made, under one more lock, by removing shards that nobody needs, the longest
unused first, then those that are needed last; never one that is read now. Locks and leases of a killed process end
with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shards import atomic, index, location, small_json
from shards.errors import UserError
from shards.integrity import stamp_of
from shards.locks import FileLock
from shards.manifest import DERIVED_FOLDER, Shard

_GB = 1_000_000_000
_SPARE = 64 << 20  # bytes of the disk that are left to others
SCRATCH = "scratch"  # for what is fetched to be looked at once
_FOLDERS = ("locks", "leases", "urls", SCRATCH, DERIVED_FOLDER)


@dataclass(frozen=True)
class CacheOptions:
    """Where shards of other places are kept on this machine.

    `path`: a folder on a local disk; environment variables are expanded; `$XDG_CACHE_HOME/infogan/shards` where empty.
    `limit_gb`: how much it may hold, in units of 10^9 bytes. `offline`: use what it holds, and no network;
    INFOGAN_OFFLINE says the same of all caches.
    """

    path: str = ""
    limit_gb: float = 50.0
    offline: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.limit_gb < 1e9:
            raise ValueError(f"limit_gb: {self.limit_gb}: must be above 0")

    @property
    def closed_off(self) -> str:
        """What forbids the network, in words; empty where it may be used."""
        if self.offline:
            return "data.cache.offline is set"
        return "INFOGAN_OFFLINE is set" if location.network_forbidden() else ""

    @property
    def folder(self) -> Path:
        """The folder that `path` means on this machine."""
        if not self.path:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infogan" / "shards"
        expanded = os.path.expanduser(os.path.expandvars(self.path))
        if "$" in expanded:
            raise UserError(f"data.cache.path: {self.path}: an environment variable in it is not set on this machine")
        return Path(expanded)

    def manifest_of(self, url: str) -> Path:
        """Where the manifest that was last seen at a URL is kept."""
        return self.folder / "urls" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"


@contextlib.contextmanager
def scratch(options: CacheOptions) -> Iterator[Path]:
    """An empty folder for what is looked at once, removed after it; a killed process's is removed by the next."""
    parent = options.folder / SCRATCH
    with atomic.explained(parent):
        parent.mkdir(parents=True, exist_ok=True)
        atomic.clean_stale(parent)
        folder = atomic.temporary_name(parent / "fetched")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class NoRoom(Exception):
    """Everything in the cache is read now, or needed sooner."""


class Cache:
    """The shards of one data set in the cache folder, as one process uses them.

    Raises:
        UserError: a folder that cannot be written, or has no locks.
    """

    def __init__(self, options: CacheOptions, digest: str, stop: threading.Event) -> None:
        self.root, self.limit = options.folder.resolve(), round(options.limit_gb * _GB)
        self.folder, self.digest, self._stop = self.root / digest, digest, stop
        with atomic.explained(self.root):
            for folder in (self.folder, *(self.root / name for name in _FOLDERS)):
                folder.mkdir(parents=True, exist_ok=True)
            self._lease = self.root / "leases" / f"{atomic.HOST}-{os.getpid()}-{secrets.token_hex(6)}.json"
            self._alive = FileLock(self._lease)
            with self._alone():
                self._alive.attempt()
                atomic.clean_stale(self.folder)

    def close(self) -> None:
        """Ends the lease: nothing is kept for this process any more."""
        self._lease.unlink(missing_ok=True)
        self._alive.release()

    def path(self, shard: Shard) -> Path:
        """Where a shard lies, once it is there."""
        return self.folder / f"{shard.sha256}.tar"

    def has(self, shard: Shard) -> bool:
        """Whether a verified shard lies there, untouched since."""
        path = self.path(shard)
        try:
            return bool(small_json.content(_stamp(path)) == stamp_of(path, index.sidecar(path)))
        except (OSError, ValueError):
            return False

    def get(
        self,
        shard: Shard,
        cost: int,
        rank: int,
        download: Callable[[IO[bytes]], None],
        examine: Callable[[Path], None],
    ) -> None:
        """Sees to it that a shard is there, downloading it if no process has.

        Args:
            cost: bytes that it will take, with what belongs to it.
            rank: how many shards are needed before it; those are not removed for its sake.
            download: writes the shard into an open file, or raises.
            examine: writes the sidecar of a tar, or raises `DataError`.

        Raises:
            NoRoom: nothing may be removed for it. UserError: the disk is full.
        """
        path = self.path(shard)
        with FileLock(self.root / "locks" / shard.sha256[:3], self._stop):
            if self.has(shard):
                return
            if not self._sound(path, shard):
                with atomic.explained(path), self._room(path, shard.bytes, cost, rank) as file:
                    download(file)
            with atomic.explained(path):
                examine(path)
                stamp = json.dumps(stamp_of(path, index.sidecar(path)))
                atomic.write_bytes(_stamp(path), stamp.encode(), flush=False)

    def _sound(self, path: Path, shard: Shard) -> bool:
        """Whether the right bytes lie there already, without a stamp that fits: after a kill, or a touch."""
        if not path.is_file():
            return False
        with index.mapped(path) as data:
            if hashlib.sha256(data).hexdigest() == shard.sha256:
                return True
        _remove(path)
        return False

    @contextlib.contextmanager
    def _room(self, path: Path, size: int, cost: int, rank: int) -> Iterator[IO[bytes]]:
        """A file that takes its whole size on the disk at once, so that others see it and a full disk shows now."""
        with contextlib.ExitStack() as stack:
            with self._alone():
                self._make_room(cost, rank)
                file = stack.enter_context(atomic.file(path))
                _allocate(file, size)
            yield file

    def _make_room(self, wanted: int, rank: int) -> None:
        atomic.clean_stale(self.folder)
        sizes, used = self._contents()
        missing = max(used + wanted - self.limit, wanted + _SPARE - shutil.disk_usage(self.root).free)
        if missing <= 0:
            return
        order, pinned = self._needs()
        idle = [name for name in sizes if name not in pinned and order.get(name, rank + 1) > rank]
        idle.sort(key=lambda name: (name in order, -order.get(name, 0), _last_use(self.root / name)))
        if sum(sizes[name] for name in idle) < missing:
            raise NoRoom
        for name in idle:
            if missing <= 0:
                return
            _remove(self.root / name)
            missing -= sizes[name]

    def _contents(self) -> tuple[dict[str, int], int]:
        """Bytes of each shard in the cache with what belongs to it, by `<digest>/<sha256>.tar`; bytes in all."""
        sizes, used = dict[str, int](), 0
        for folder in self.root.iterdir():
            if folder.name in _FOLDERS or not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    size = entry.stat().st_size
                    used += size
                    if not atomic.is_temporary(entry.name):
                        name = f"{folder.name}/{Path(entry.name).stem}.tar"
                        sizes[name] = sizes.get(name, 0) + size
        return sizes, used

    def _needs(self) -> tuple[dict[str, int], set[str]]:
        """What the living processes need: how soon each shard is (in shards), and those that are read now."""
        order, pinned = dict[str, int](), set[str]()
        for document in self._leases():
            pinned.update(document["pinned"])
            for place, name in enumerate(document["wanted"]):
                order[name] = min(place, order.get(name, place))
        return order, pinned

    def _leases(self) -> Iterator[dict[str, Any]]:
        for path in sorted((self.root / "leases").iterdir()):
            if path != self._lease and self._over(path):
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(OSError, ValueError):
                yield small_json.mapping(path)

    def _over(self, lease: Path) -> bool:
        """Whether the process of a lease is gone. One of another machine is a day later: its locks may not reach us."""
        if not lease.name.startswith(f"{atomic.HOST}-"):
            with contextlib.suppress(FileNotFoundError):
                return time.time() - lease.stat().st_mtime > atomic.STALE_ELSEWHERE
        lock = FileLock(lease)
        free = lock.attempt()
        lock.release()
        return free

    def lease(self, pinned: Sequence[Shard], wanted: Sequence[Shard], reserved: int, group: str) -> None:
        """Says which shards are read from now on, and which will be needed, in this order.

        Args:
            reserved: the most bytes that this process will have pinned at a time.
            group: processes of one group pin the same shards, so that their bytes count once.

        Raises:
            UserError: together with what others have reserved it is more than the limit.
        """
        document = {
            "pinned": [self._name(shard) for shard in pinned],
            "wanted": [self._name(shard) for shard in wanted],
            "reserved": reserved,
            "group": f"{self.digest} {group}",
        }
        with atomic.explained(self._lease), self._alone():
            others = {
                other["group"]: other["reserved"]
                for other in self._leases()
                if other["group"] != document["group"] and other["reserved"]
            }
            if reserved and reserved + sum(others.values()) > self.limit:
                raise UserError(
                    f"data.cache: other runs on this machine need {gigabytes(sum(others.values()))} of {self.root} and "
                    f"this one needs {gigabytes(reserved)}, but data.cache.limit_gb is {gigabytes(self.limit)}: raise "
                    "it, or give this run a data.cache.path of its own"
                )
            # In place, so that the lock stays: who reads a lease holds the lock of the folder, as we do.
            self._lease.write_text(json.dumps(document), encoding="utf-8")

    def _name(self, shard: Shard) -> str:
        return f"{self.digest}/{shard.sha256}.tar"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with FileLock(self.root / "locks" / "folder", self._stop):
            yield

    def require(self, wanted: int, what: str, remedy: str) -> None:
        """Refuses what cannot fit, whatever is removed.

        Raises:
            UserError: `wanted` bytes are more than the limit, or than the disk has.
        """
        disk = shutil.disk_usage(self.root).free + self._contents()[1] - _SPARE
        if wanted > self.limit:
            raise UserError(
                f"data.cache: {what} {gigabytes(wanted)}, but data.cache.limit_gb is {gigabytes(self.limit)}: {remedy}"
            )
        if wanted > disk:
            raise UserError(
                f"data.cache: {what} {gigabytes(wanted)}, but the disk of {self.root} has room for {gigabytes(disk)}: "
                f"free some space, set data.cache.path to another disk, or {remedy}"
            )


def gigabytes(count: float) -> str:
    """A number of bytes in GB (10^9), as `limit_gb` is given."""
    return f"{count / _GB:.3g} GB"


def _allocate(file: IO[bytes], size: int) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise


def _stamp(tar: Path) -> Path:
    return tar.with_suffix(".ok")


def touch(tar: Path) -> None:
    """Notes that a shard in the cache is used now."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(_stamp(tar))


def _last_use(tar: Path) -> float:
    try:
        return _stamp(tar).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(tar: Path) -> None:
    """The stamp goes first: what is left after a kill is hashed before it is used."""
    for path in (_stamp(tar), index.sidecar(tar), tar):
        path.unlink(missing_ok=True)
