"""The remote reader: shards streamed whole into the cache of this machine ahead of need, and read there.

The plan says which shards come next. The window that the stream stands in is pinned; what follows it is fetched by
threads of the first process of each machine, as far as half of the cache goes, while the others wait for what they
need. So each shard is downloaded once per machine, and once the cache is ahead nobody waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from shards.cache import gigabytes
from shards.dataset import Dataset
from shards.indexed import Gatherer
from shards.manifest import Shard
from shards.plan import Plan
from shards.readers import Batch
from shards.staging import Staged


class RemoteReader:
    """A split read through the cache, from a URL or from a folder that is far away.

    Args:
        device: where batches come to lie.
        count: worker processes; 0 decodes in the thread that gathers.

    Raises:
        UserError: a URL that cannot be read, or a cache folder that cannot be used.
    """

    prefetch = True

    def __init__(self, dataset: Dataset, split: str, *, device: torch.device, count: int = 0) -> None:
        self.manifest, self.device = dataset.manifest, device
        self.samples = dataset.split(split).samples
        self._shown, self._split, self._shards = dataset.shown, split, dataset.split(split).shards
        self._staged = Staged(dataset)
        self._gatherer = Gatherer(dataset, split, device, count, self._staged.place, passing=True)
        self._turn = threading.Lock()
        self._window: tuple[int, int] | None = None

    def expect(self, plan: Plan, position: int, stop: int | None) -> None:
        """See `Reader.expect`.

        Raises:
            UserError: two windows of shards do not fit the cache.
        """
        here = plan.window_at(position)
        if here == self._window:
            return
        with self._turn:  # another thread may be gathering what it holds beside the window
            if self._window is None:
                self._claim(plan)
            self._window = here
            current, coming = self._course(plan, position, stop)
            self._staged.pin(current, [*current, *coming])
            if self._staged.ahead is not None:
                self._staged.ahead.want([*current, *coming], len(current))

    def _claim(self, plan: Plan) -> None:
        """Reserves the cache for two windows, the one that is read and the next, and starts to fetch ahead."""
        costs = sorted(map(self._staged.cost, self._shards), reverse=True)
        needed = sum(costs[: 2 * plan.window])
        whole = plan.window >= len(costs)
        fits = max((w for w in range(1, plan.window) if sum(costs[: 2 * w]) <= self._staged.cache.limit), default=0)
        smaller = f", or set data.window={fits}, which is another order of the images" if fits else ""
        self._staged.cache.require(
            needed,
            f"{self._shown}: the {len(costs)} shards of {self._split} that are shuffled together take"
            if whole
            else f"{self._shown}: two windows of {plan.window} shards, the one that is read and the next, take up to",
            f"raise data.cache.limit_gb to {gigabytes(needed * 1.01).removesuffix(' GB')}{smaller}",
        )
        self._staged.reserve(needed, f"{self._split}" if whole else f"{self._split} {plan.window} {plan.seed}")
        if os.environ.get("LOCAL_RANK", "0") == "0":
            self._staged.look_ahead()

    def _course(self, plan: Plan, position: int, stop: int | None) -> tuple[list[Shard], list[Shard]]:
        """The shards of the window at `position`, and those after it in their order, as many as the cache holds."""
        current: list[Shard] = []
        coming: dict[str, Shard] = {}
        room = self._staged.cache.limit
        for window in plan.windows(position):
            shards = [self._shards[number] for number in window.shards]
            if not current:
                current = shards
                room -= sum(map(self._staged.cost, shards))
                continue
            fresh = [shard for shard in shards if shard not in current and shard.sha256 not in coming]
            room -= sum(map(self._staged.cost, fresh))
            if room < 0 or not fresh or (stop is not None and window.begin >= stop):
                return current, list(coming.values())
            coming |= {shard.sha256: shard for shard in fresh}
        raise AssertionError("windows have no end")

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """See `Reader.gather`; waits for shards that are not there yet. Safe from several threads."""
        with self._turn:
            owners = np.searchsorted(self._gatherer.ends, indices, side="right")
            groups = list(self._groups(np.unique(owners)))
            if len(groups) == 1:
                with self._staged.held(groups[0][1]):
                    return self._gatherer.gather(indices)
            parts, rows = [], []
            for numbers, shards in groups:
                rows.append(np.flatnonzero(np.isin(owners, numbers)))
                with self._staged.held(shards):
                    parts.append(self._gatherer.gather(indices[rows[-1]]))
            return _joined(parts, np.concatenate(rows), indices)

    def _groups(self, numbers: NDArray[np.int64]) -> Iterator[tuple[list[int], list[Shard]]]:
        """Shards to be held at a time. What is pinned or there already, at once; the rest one by one, since one who
        waits for room while holding more than was reserved could wait for another who does the same."""
        at_once = [n for n in numbers.tolist() if self._staged.at_hand(self._shards[n])]
        if at_once:
            yield at_once, [self._shards[n] for n in at_once]
        for n in sorted(set(numbers.tolist()) - set(at_once)):
            yield [n], [self._shards[n]]

    def close(self) -> None:
        """See `Reader.close`."""
        self._staged.stop.set()
        with self._turn:
            self._staged.close()
            self._gatherer.close()


def _joined(parts: Sequence[Batch], rows: NDArray[np.int64], indices: NDArray[np.int64]) -> Batch:
    """One batch of several, whose samples belong to the rows `rows` in turn."""
    back = torch.from_numpy(np.argsort(rows)).to(parts[0].images.device)
    factors = [part.factors for part in parts if part.factors is not None]
    return Batch(
        torch.cat([part.images for part in parts])[back],
        torch.cat([part.labels for part in parts])[back],
        indices,
        torch.cat(factors)[back] if factors else None,
    )
