"""The shards of a data set as they come to lie in the cache of this machine, from wherever they are."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from tqdm import tqdm

from shards import atomic, index, location
from shards import cache as caches
from shards.cache import Cache, NoRoom
from shards.dataset import Dataset
from shards.errors import DataError, UserError
from shards.integrity import tar_faults
from shards.locks import Stopped
from shards.manifest import Shard

if TYPE_CHECKING:
    from shards.transport import Remote

PARALLEL = 4  # shards that one process downloads at a time
_POLL_S = 0.2  # seconds between two looks for room that others hold
_CLOSING_S = 5.0  # seconds that a download may take to notice that it is not wanted any more


def _remote(dataset: Dataset) -> Remote:
    from shards.transport import Remote  # its networking packages take a moment, which local data need not wait for

    return Remote(location.as_url(dataset.home))


class Staged:
    """A data set whose shards are fetched into the cache when they are wanted; one per reader.

    Use it as a context manager, or call `close`.

    Raises:
        UserError: a URL that cannot be read, or a cache folder that cannot be used.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.stop = dataset, threading.Event()
        self._remote = None if dataset.remote and dataset.cache.closed_off else _remote(dataset)
        self.cache = Cache(dataset.cache, dataset.manifest.digest, self.stop)
        self._change = threading.Lock()
        self._pinned: dict[str, Shard] = {}  # by sha256: what is read now
        self._there: set[str] = set()  # those of them that were seen to be there
        self._wanted: Sequence[Shard] = ()
        self._refused: dict[str, DataError] = {}
        self._reserved, self._group = 0, ""
        self.ahead: Ahead | None = None

    def look_ahead(self) -> Ahead:
        """Starts the threads that fetch what comes next."""
        self.ahead = self.ahead or Ahead(self)
        return self.ahead

    def reserve(self, count: int, group: str) -> None:
        """Claims bytes of the cache for what this process will have pinned at a time; see `Cache.lease`."""
        self._reserved, self._group = count, group
        self.pin((), ())

    def place(self, shard: Shard) -> tuple[Path, Path]:
        """The tar and the sidecar of a shard in the cache."""
        tar = self.cache.path(shard)
        return tar, index.sidecar(tar)

    def pin(self, shards: Iterable[Shard], wanted: Sequence[Shard]) -> None:
        """Keeps exactly these shards from being removed, and says which are wanted next, in their order."""
        with self._change:
            self._pinned = {shard.sha256: shard for shard in shards}
            self._there &= self._pinned.keys()
            self._wanted = wanted
            self._tell()

    @contextlib.contextmanager
    def held(self, shards: Sequence[Shard]) -> Iterator[None]:
        """Shards that are there, and stay, within the block; those that were not pinned before are free after it."""
        with self._change:
            added = [shard for shard in shards if shard.sha256 not in self._pinned]
            self._pinned |= {shard.sha256: shard for shard in added}
            if added:
                self._tell()
        try:
            if self.ahead is not None:
                self.ahead.raise_failure()
            for shard in shards:
                if shard.sha256 not in self._there:
                    self.fetch(shard)
            yield
        finally:
            with self._change:
                for shard in added:
                    self._pinned.pop(shard.sha256, None)
                    self._there.discard(shard.sha256)
                if added:
                    self._tell()

    def at_hand(self, shard: Shard) -> bool:
        """Whether a shard is pinned, or there without being pinned."""
        return shard.sha256 in self._pinned or self.cache.has(shard)

    def _tell(self) -> None:
        self.cache.lease(tuple(self._pinned.values()), self._wanted, self._reserved, self._group)

    def fetch(self, shard: Shard) -> None:
        """Sees to it that a shard which is read now is there, waiting for room that others hold for the moment.

        Raises:
            DataError, UserError: it cannot be had.
        """
        while True:
            with contextlib.suppress(NoRoom):
                self.fetch_ahead(shard, -1, self._download_now)
                break
            if self.stop.wait(_POLL_S):
                raise Stopped
        with self._change:
            if shard.sha256 in self._pinned:
                self._there.add(shard.sha256)
        caches.touch(self.cache.path(shard))

    def fetch_ahead(self, shard: Shard, rank: int, download: Callable[[Shard, IO[bytes]], None] | None = None) -> None:
        """Fetches a shard that is wanted after `rank` others. Raises `NoRoom` where it would push those out."""
        if not self.cache.has(shard):
            self.cache.get(
                shard,
                self.cost(shard),
                rank,
                lambda file: (download or self._download)(shard, file),
                lambda tar: self._examine(shard, tar),
            )

    def _download_now(self, shard: Shard, file: IO[bytes]) -> None:
        """For who cannot go on without: what was just tried, for as long as patience lasts, is not tried once more."""
        if self.ahead is not None:
            self.ahead.raise_unreachable()
        self._download(shard, file)

    def _download(self, shard: Shard, file: IO[bytes]) -> None:
        if self._remote is None:
            raise DataError(
                f"{self.dataset.shown}: {self.dataset.cache.closed_off}, and {self.cache.root} does not hold "
                f"{shard.name}; fetch it first with `infogan shards prefetch`"
            )
        if shard.sha256 in self._refused:
            raise self._refused[shard.sha256]
        try:
            self._remote.download(shard, file, self.stop)
        except DataError as error:  # final: who else asks for it need not ask the server again
            self._refused[shard.sha256] = error
            raise

    def _examine(self, shard: Shard, tar: Path) -> None:
        """Compares a tar that has arrived with the manifest, and makes its sidecar."""
        with index.mapped(tar) as data:
            faults, table = tar_faults(shard, self.dataset.layout, data)
        for fault in faults:
            raise DataError(location.shown(location.join(self.dataset.home, str(fault))))
        assert table is not None
        atomic.write_bytes(index.sidecar(tar), table.tobytes(), flush=False)

    def in_turn(self, shards: Sequence[Shard]) -> Iterator[Sequence[Shard]]:
        """Shards in order, a few at a time: they are there until the next ones are asked for, which come meanwhile.

        Raises:
            DataError, UserError: one cannot be had, or is larger than the cache.
        """
        largest = max(map(self.cost, shards))
        self.cache.require(largest, f"the largest shard of {self.dataset.shown} takes", "raise it")
        size = max(1, min(2 * PARALLEL, self.cache.limit // (3 * largest)))
        groups = [shards[begin : begin + size] for begin in range(0, len(shards), size)]
        ahead = self.look_ahead()
        for group, following in zip_longest(groups, groups[1:], fillvalue=()):
            ahead.want([*group, *following], len(group))
            with self.held(group):
                yield group

    def cost(self, shard: Shard) -> int:
        """Bytes that a shard takes in the cache, with its sidecar and its stamp."""
        return shard.bytes + shard.samples * len(self.dataset.layout.extensions) * index.ENTRY.itemsize + 4096

    def close(self) -> None:
        """Stops what is being fetched, and frees all shards."""
        self.stop.set()
        if self.ahead is not None:
            self.ahead.close()
        self.cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Ahead:
    """Threads that fetch the shards which come next, soonest first."""

    def __init__(self, staged: Staged) -> None:
        self._staged, self._stop = staged, staged.stop
        self._change = threading.Condition()
        self._todo: list[tuple[int, Shard]] = []
        self._wants = 0  # how often that was replaced
        self._failure: DataError | None = None
        self._unreachable: UserError | None = None  # a server that is down; what is there already can still be read
        self._threads = [threading.Thread(target=self._work, name="fetch ahead", daemon=True) for _ in range(PARALLEL)]
        for thread in self._threads:
            thread.start()

    def want(self, shards: Sequence[Shard], now: int) -> None:
        """Replaces what is to be fetched: the first `now` shards are read already."""
        room, todo = self._staged.cache.limit // 2, []
        for rank, shard in enumerate(shards):
            if rank >= now and (room := room - self._staged.cost(shard)) < 0:
                break
            todo.append((-1 if rank < now else rank, shard))
        with self._change:
            self._todo, self._wants = todo, self._wants + 1
            self._change.notify_all()

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._change:
                if not self._todo:
                    self._change.wait(_POLL_S)
                    continue
                (rank, shard), wants = self._todo.pop(0), self._wants
            try:
                self._staged.fetch_ahead(shard, rank)
                self._unreachable = None
            except Stopped:
                return
            except DataError as error:
                self._failure = error
                return
            except (NoRoom, UserError) as error:
                if not isinstance(error, NoRoom):
                    self._unreachable = error
                with self._change:
                    if self._wants == wants:
                        self._todo.insert(0, (rank, shard))
                self._stop.wait(_POLL_S)

    def raise_failure(self) -> None:
        """Raises what makes the rest of the data unreadable, before training gets there."""
        if self._failure is not None:
            raise self._failure

    def raise_unreachable(self) -> None:
        """Raises how the last shard could not be had, while that has not changed."""
        if self._unreachable is not None:
            raise self._unreachable

    def close(self) -> None:
        """Waits for the threads, a little, once `stop` is set."""
        for thread in self._threads:
            thread.join(_CLOSING_S)


def prefetch(dataset: Dataset, splits: Iterable[str] | None = None, progress: bool = True) -> Path:
    """Fetches whole splits of a data set into the cache of this machine, so that later reads need no network.

    Args:
        splits: names; all of them by default.

    Returns:
        The cache's folder.

    Raises:
        UserError: they do not fit the cache, or the URL cannot be reached. DataError: a shard that differs.
    """
    filled = [name for name, part in dataset.manifest.splits.items() if part.samples]
    names = filled if splits is None else list(splits)
    shards = [shard for name in names for shard in dataset.split(name).shards]
    total = sum(shard.bytes for shard in shards)
    bar = tqdm(total=total, desc="fetching", unit="B", unit_scale=True, disable=not progress, file=sys.stderr)
    with Staged(dataset) as staged, bar:
        needed = sum(map(staged.cost, shards))
        staged.cache.require(needed, f"{', '.join(names)} of {dataset.shown} take", "raise it, or name fewer splits")
        staged.reserve(needed, f"all of {', '.join(names)}")
        staged.pin(shards, ())
        staged.look_ahead().want(shards, len(shards))
        for shard in shards:
            with staged.held([shard]):
                bar.update(shard.bytes)
    return staged.cache.root
