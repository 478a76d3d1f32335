"""Percentiles are given only where there are enough samples, and with their bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samrt.bench.stats import PERCENTILES, allowed_slower, least_samples, summary


@pytest.mark.parametrize(
    ("share", "count"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_the_floors_are_mlperfs(share: float, count: int) -> None:
    assert least_samples(share) == count
    assert allowed_slower(share, count - 1) == 0
    assert allowed_slower(share, count) == 1


@pytest.mark.parametrize("count", [64, 100, 500, 2000])
def test_more_samples_allow_more_slow_ones_by_the_exact_sum(count: int) -> None:
    def chance(slower: int) -> float:
        return sum(math.comb(count, k) * 0.1**k * 0.9 ** (count - k) for k in range(slower + 1))

    slower = allowed_slower(0.9, count)
    assert chance(slower) <= 0.01 < chance(slower + 1)
    assert least_samples(0.9, slower) <= count < least_samples(0.9, slower + 1)


def test_the_bound_holds_in_99_of_100_runs() -> None:
    """The true percentile of drawn times lies above the bound at most once in a hundred times."""
    rng = np.random.default_rng(3)
    truth = -math.log(0.1)  # p90 of the exponential distribution
    draws = np.sort(rng.exponential(size=(4000, 130)), axis=1)
    bounds = draws[:, 130 - allowed_slower(0.9, 130)]
    assert float((bounds < truth).mean()) <= 0.01


def test_a_percentile_below_its_floor_is_refused() -> None:
    found = summary(list(range(1, 65)))["percentiles"]
    assert found["p90"] == {"value": 58, "bound": 64.0, "needs": 64}
    for name in ("p95", "p99", "p99.9"):
        assert found[name]["value"] is None
        assert found[name]["bound"] is None
    assert list(found) == list(PERCENTILES)
    assert summary([1.0])["percentiles"]["p50"] == {"value": None, "bound": None, "needs": 11}


def test_spread_jitter_drift_and_deadline() -> None:
    found = summary([1.0, 3.0, 1.0, 3.0, 2.0, 6.0, 2.0, 6.0], deadline_ms=2.5)
    assert (found["min"], found["max"], found["mean"], found["median"]) == (1.0, 6.0, 3.0, 2.5)
    assert found["jitter"] == pytest.approx((2 + 2 + 2 + 1 + 4 + 4 + 4) / 7)
    assert found["std"] == pytest.approx(float(np.std([1, 3, 1, 3, 2, 6, 2, 6], ddof=1)))
    assert found["drift"] == 2.0
    assert found["deadline"] == {"ms": 2.5, "misses": 4, "share": 0.5}
    alone = summary([2.0])
    assert (alone["std"], alone["jitter"], alone["drift"], alone["deadline"]) == (0, 0, None, None)
