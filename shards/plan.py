"""The order of data: which sample stands at which position of an endless stream of epochs.

The order is a pure function of (seed, epoch). Each epoch permutes the shards, cuts that sequence into windows
of W shards, and permutes the samples inside each window. So a reader that streams shards touches W at a time,
and all readers, however many processes there are, agree on the order; one integer, the images seen, is all
that a resume needs.

The permutation inside a window is computed, not stored: a Feistel network (a keyed bijection on 2^n numbers,
built from a hash that need not be invertible) with cycle-walking, that is, applied again until it lands
inside the window (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"); a small one is sorted by
the same hash. Memory is that of the shard list, whatever the number of images.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError

_ROUNDS = 8
_SORTED = 1024  # up to here a whole permutation is cheaper than the network, and exactly uniform
_CACHED_EPOCHS = 3


@dataclass(frozen=True)
class _Epoch:
    """The shards of one epoch in their order, with the sums that locate a sample.

    Attributes:
        shards: [S] int64, shard numbers in the epoch's order.
        ends: [S] int64, samples up to and including each, in that order.
        window_begins, window_ends: [number of windows] int64, sample positions in the epoch.
    """

    shards: NDArray[np.int64]
    ends: NDArray[np.int64]
    window_begins: NDArray[np.int64]
    window_ends: NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Shards whose samples are shuffled together: where in the stream they begin, and their numbers."""

    begin: int
    shards: tuple[int, ...]


class Plan:
    """The order of a split's samples.

    Args:
        shard_sizes: samples of each shard, in the manifest's order.
        seed: any integer.
        window: shards that are shuffled together, W; None for all of them.

    Raises:
        UserError: no shards, an empty one, or a window below 1.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, window: int | None = None) -> None:
        self.sizes = np.asarray(shard_sizes, np.int64)
        if self.sizes.ndim != 1 or len(self.sizes) == 0 or self.sizes.min() < 1:
            raise UserError("a plan needs at least one shard, and at least one sample in each")
        if window is not None and window < 1:
            raise UserError(f"window is {window}: at least 1 shard is needed")
        self.seed = int(seed)
        self.window = len(self.sizes) if window is None else min(int(window), len(self.sizes))
        self.samples = int(self.sizes.sum())
        self._begins = np.cumsum(self.sizes) - self.sizes  # where each shard's samples begin in the split
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """The samples at positions [start, start + count) of the stream: int64 [count]."""
        if start < 0 or count < 0:
            raise UserError(f"positions {start} to {start + count} are asked for: they begin at 0")
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.samples)
            here = min(count, self.samples - offset)
            parts.append(self._in_epoch(epoch, offset, here))
            start, count = start + here, count - here
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def window_at(self, position: int) -> tuple[int, int]:
        """(epoch, window) that a position of the stream lies in."""
        epoch, offset = divmod(position, self.samples)
        return epoch, int(np.searchsorted(self._epoch(epoch).window_ends, offset, side="right"))

    def windows(self, position: int) -> Iterator[Window]:
        """The window that a position lies in, and those after it, without end."""
        epoch, number = self.window_at(position)
        while True:
            order = self._epoch(epoch)
            for w in range(number, len(order.window_ends)):
                shards = order.shards[w * self.window : (w + 1) * self.window]
                yield Window(epoch * self.samples + int(order.window_begins[w]), tuple(shards.tolist()))
            epoch, number = epoch + 1, 0

    def _in_epoch(self, epoch: int, offset: int, count: int) -> NDArray[np.int64]:
        order = self._epoch(epoch)
        parts = []
        while count > 0:
            w = int(np.searchsorted(order.window_ends, offset, side="right"))
            begin, end = int(order.window_begins[w]), int(order.window_ends[w])
            here = min(count, end - offset)
            key = _key(self.seed, epoch, f"window {w}")
            places = begin + permute(np.arange(offset - begin, offset - begin + here), end - begin, key)
            slot = np.searchsorted(order.ends, places, side="right")
            shard = order.shards[slot]
            within = places - (order.ends[slot] - self.sizes[shard])
            parts.append(self._begins[shard] + within)
            offset, count = offset + here, count - here
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            number = len(self.sizes)
            shards = permute(np.arange(number), number, _key(self.seed, epoch, "shards"))
            ends = np.cumsum(self.sizes[shards])
            window_ends = ends[np.minimum(np.arange(self.window, number + self.window, self.window), number) - 1]
            window_begins = np.concatenate([np.zeros(1, np.int64), window_ends[:-1]])
            self._epochs[epoch] = _Epoch(shards, ends, window_begins, window_ends)
            while len(self._epochs) > _CACHED_EPOCHS:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]


def _key(seed: int, epoch: int, purpose: str) -> NDArray[np.uint64]:
    """One key per round, from a cryptographic hash of what the permutation is for."""
    state = hashlib.blake2b(f"infogan-plan-1|{seed}|{epoch}|{purpose}".encode("ascii"), digest_size=64).digest()
    return np.frombuffer(state, "<u8")[:_ROUNDS].astype(np.uint64)


def permute(positions: NDArray[np.int64], size: int, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where a keyed permutation of [0, size) sends each position.

    Args:
        positions: int64 [n], each in [0, size).
        key: uint64, one per round.

    Returns:
        int64 [n].
    """
    if size <= _SORTED:
        order = np.argsort(_mix(_mix(np.arange(size, dtype=np.uint64), key[0]), key[1]))
        return order[positions]
    bits = (size - 1).bit_length()
    values = _feistel(positions.astype(np.uint64), bits, key)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _feistel(values[outside], bits, key)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _feistel(values: NDArray[np.uint64], bits: int, key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection on [0, 2^bits): its two halves, one bit apart where bits is odd, are hashed in turn."""
    low_bits = bits // 2
    high_bits = bits - low_bits
    low = values & np.uint64((1 << low_bits) - 1)
    high = values >> np.uint64(low_bits)
    low_mask, high_mask = np.uint64((1 << low_bits) - 1), np.uint64((1 << high_bits) - 1)
    for i, round_key in enumerate(key):
        if i % 2 == 0:
            high = high ^ (_mix(low, round_key) & high_mask)
        else:
            low = low ^ (_mix(high, round_key) & low_mask)
    return (high << np.uint64(low_bits)) | low


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """A 64-bit hash: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) on value + key."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
