"""The order of data: a shuffle of every epoch that nobody stores."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from shards.errors import UserError
from shards.plan import Plan, permute

SIZES = [7, 1, 30, 12, 25, 3]
CHI_SQUARE_SIGMAS = 4.5  # of a normal approximation: a fair order fails about 1 in 300,000 times


@pytest.mark.parametrize("window", [None, 1, 2, 4, 6, 100])
def test_each_image_is_seen_once_per_epoch(window: int | None) -> None:
    plan = Plan(SIZES, seed=3, window=window)
    n = sum(SIZES)
    for epoch in range(5):
        assert sorted(plan.indices(epoch * n, n)) == list(range(n))


@pytest.mark.parametrize("window", [None, 2])
def test_any_cut_of_the_stream_gives_the_same_stream(window: int | None) -> None:
    n = sum(SIZES)
    whole = Plan(SIZES, seed=0, window=window).indices(0, 5 * n)
    fresh = Plan(SIZES, seed=0, window=window)
    dice = np.random.RandomState(0)
    for _ in range(200):
        start = int(dice.randint(0, 5 * n))
        count = int(dice.randint(0, min(2 * n, 5 * n - start) + 1))
        np.testing.assert_array_equal(fresh.indices(start, count), whole[start : start + count])


def test_a_window_holds_only_its_shards() -> None:
    sizes = [10] * 12
    plan = Plan(sizes, seed=1, window=3)
    shards = plan.indices(0, 120) // 10
    for begin in range(0, 120, 30):
        assert len(set(shards[begin : begin + 30])) == 3


def test_the_order_never_changes_between_versions() -> None:
    # Frozen: a checkpoint of an older version must resume on the same images.
    assert Plan([5, 5], seed=0).indices(0, 20).tolist() == [
        7,
        5,
        6,
        0,
        9,
        3,
        2,
        8,
        4,
        1,
        8,
        7,
        0,
        6,
        5,
        4,
        3,
        2,
        1,
        9,
    ]
    assert Plan([4, 3, 5], seed=7, window=2).indices(6, 12).tolist() == [11, 9, 1, 2, 0, 3, 4, 1, 6, 0, 5, 2]
    assert Plan([10**9], seed=42).indices(10**9 - 2, 4).tolist() == [
        898806614,
        769868708,
        191492220,
        445467436,
    ]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    n = 1000
    orders = [tuple(Plan([n], seed=s).indices(e * n, n)) for s in range(4) for e in range(4)]
    assert len(set(orders)) == 16
    for a in range(16):
        for b in range(a):
            same = sum(x == y for x, y in zip(orders[a], orders[b], strict=True))
            assert same < 10  # two random orders agree in one place on average


def chi_square_is_fair(counts: np.ndarray) -> bool:
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return bool(abs(statistic - freedom) < CHI_SQUARE_SIGMAS * np.sqrt(2 * freedom))


@pytest.mark.parametrize("n", [2, 3, 10, 61, 1100])
def test_every_sample_comes_at_every_place_equally_often(n: int) -> None:
    epochs = 3000 if n < 1000 else 1000
    orders = Plan([n], seed=5).indices(0, n * epochs).reshape(epochs, n)
    counts = np.zeros((n, n))
    for place in range(n):
        counts[place] = np.bincount(orders[:, place], minlength=n)
    # Rows and columns both sum to `epochs`, so the freedom is (n - 1)^2, not n^2 - 1.
    statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    freedom = (n - 1) ** 2
    assert abs(statistic - freedom) < CHI_SQUARE_SIGMAS * np.sqrt(2 * freedom) + 1


@pytest.mark.parametrize("n", [5, 10, 1500])
def test_neighbours_are_independent(n: int) -> None:
    epochs = 3000 if n < 1000 else 1000
    orders = Plan([n], seed=9).indices(0, n * epochs).reshape(epochs, n)
    gaps = (orders[:, 1:] - orders[:, :-1]) % n
    counts = np.bincount(gaps.ravel(), minlength=n)[1:].astype(float)
    assert chi_square_is_fair(counts)


def test_all_orders_of_a_tiny_set_occur_equally_often() -> None:
    epochs = 3000
    orders = Plan([4], seed=2).indices(0, 4 * epochs).reshape(epochs, 4)
    codes, counts = np.unique(orders @ np.array([64, 16, 4, 1]), return_counts=True)
    assert len(codes) == 24
    assert chi_square_is_fair(counts.astype(float))


def test_a_long_order_shows_no_correlation() -> None:
    n = 100_003
    order = Plan([n], seed=0).indices(0, n).astype(float)
    places = np.arange(n, dtype=float)
    for a, b in ((order, places), (order[1:], order[:-1]), (order[128:], order[:-128])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(n)


def test_a_billion_images_cost_the_memory_of_a_thousand() -> None:
    tracemalloc.start()
    plan = Plan([4096] * 250_000, seed=0)
    assert plan.samples == 1_024_000_000
    first = plan.indices(0, 10_000)
    far = plan.indices(5 * plan.samples + 123_456_789, 10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(first)) == len(set(far)) == 10_000
    assert max(first) > 900_000_000
    assert peak < 40e6  # the list of 250,000 shards, a few times


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 1024, 1025, 4096, 4097])
def test_permute_is_a_permutation_of_any_size(n: int) -> None:
    key = np.arange(8, dtype=np.uint64)
    assert sorted(permute(np.arange(n), n, key)) == list(range(n))


def test_a_million_positions_take_less_than_a_second() -> None:
    plan = Plan([4096] * 300, seed=0)
    plan.indices(0, 10)
    begun = time.process_time()
    plan.indices(100, 1_000_000)
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(("sizes", "window"), [([], None), ([3, 0], None), ([3], 0)])
def test_impossible_plans_are_refused(sizes: list[int], window: int | None) -> None:
    with pytest.raises(UserError):
        Plan(sizes, seed=0, window=window)
