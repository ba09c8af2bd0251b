"""Throughput, and when a training process next looks up from its work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Throughput of this process, and when to look up from work next."""

    def __init__(self, check_interval: float) -> None:
        self.check_interval = check_interval
        self._begun = self._interval_begun = time.perf_counter()
        self._updates = self._images = 0
        self._waited = self._waited_before = 0.0
        self._next_check = 1

    def tick(self, batch: int, waited: float) -> None:
        """Count one update; `waited`: seconds spent waiting for data since the start."""
        self._updates += 1
        self._images += batch
        self._waited = waited

    def take(self) -> dict[str, float]:
        """Images per second, and the share of the time that went into waiting for data, since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._interval_begun, 1e-9)
        found = {
            "time/images_per_s": self._images / seconds,
            "time/data_wait": (self._waited - self._waited_before) / seconds,
        }
        self._interval_begun, self._images, self._waited_before = now, 0, self._waited
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the block's time: pictures, scores and checkpoints are not training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self._begun += spent
            self._interval_begun += spent

    def check_due(self) -> bool:
        return self._updates >= self._next_check

    def stride(self) -> int:
        """Updates until about `check_interval` seconds from now."""
        seconds_per_update = (time.perf_counter() - self._begun) / max(self._updates, 1)
        return max(1, int(self.check_interval / max(seconds_per_update, 1e-9)))

    def next_check(self, stride: int) -> None:
        self._next_check = self._updates + stride
