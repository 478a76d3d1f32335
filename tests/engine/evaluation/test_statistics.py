"""Means and intervals whose unit is the image."""

from __future__ import annotations

import numpy as np
import pytest

from samrt.evaluation.statistics import estimate, mean_of, quantiles


def test_mean_and_missing_values() -> None:
    found = estimate(np.array([1.0, np.nan, 3.0]), np.array([0, 1, 2]))
    assert (found.mean, found.n, found.cases) == (2.0, 2, 2)
    nothing = estimate(np.array([np.nan]), np.array([0]))
    assert nothing.as_list() == [None, None, None, 0]


def test_one_image_has_no_interval() -> None:
    assert estimate(np.array([0.2, 0.6]), np.array([4, 4])).as_list() == [0.4, None, None, 2]


def test_the_interval_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.0, 1.0, 400)
    found = estimate(values, np.arange(400), draws=4000)
    assert found.lo is not None
    assert found.hi is not None
    half = 1.96 * values.std() / 20
    assert found.lo == pytest.approx(values.mean() - half, abs=0.012)
    assert found.hi == pytest.approx(values.mean() + half, abs=0.012)


def test_targets_of_one_image_are_not_independent() -> None:
    """Ten copies of each value: the interval stays that of the images."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 1.0, 60)
    single = estimate(values, np.arange(60), draws=4000)
    copies = estimate(np.repeat(values, 10), np.repeat(np.arange(60), 10), draws=4000)
    assert single.lo is not None
    assert copies.lo is not None
    assert copies.lo == pytest.approx(single.lo, abs=0.02)
    as_if_free = estimate(np.repeat(values, 10), np.arange(600), draws=4000)
    assert as_if_free.lo is not None
    assert as_if_free.lo > single.lo + 0.1


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        effect = rng.normal(0.0, 1.0, 40)
        values = np.repeat(effect, 3) + rng.normal(0.0, 0.5, 120)
        found = estimate(values, np.repeat(np.arange(40), 3), draws=400)
        assert found.lo is not None
        assert found.hi is not None
        hits += found.lo <= 0.0 <= found.hi
    assert 0.90 < hits / 300 < 0.985


def test_it_is_the_same_every_time_and_depends_on_the_seed() -> None:
    values, images = np.linspace(0, 1, 30), np.arange(30)
    assert estimate(values, images).as_list() == estimate(values, images).as_list()
    assert estimate(values, images, seed=5).as_list() != estimate(values, images).as_list()


def test_sets_count_the_same() -> None:
    small = estimate(np.array([1.0, 1.0]), np.array([0, 1]))
    large = estimate(np.zeros(50), np.arange(50))
    both = mean_of({"a": small, "b": large})
    assert (both.mean, both.n, both.cases) == (0.5, 52, 52)
    assert (both.lo, both.hi) == (0.5, 0.5)
    single = estimate(np.array([0.4]), np.array([0]))
    assert mean_of({"a": single}).as_list() == [0.4, None, None, 1]
    assert mean_of({}).as_list() == [None, None, None, 0]


def test_sets_vary_by_themselves() -> None:
    values = np.random.default_rng(3).random(50)
    one = estimate(values, np.arange(50))
    mean = mean_of({name: one for name in "abcd"})
    assert one.hi is not None
    assert one.lo is not None
    assert mean.hi is not None
    assert mean.lo is not None
    assert mean.hi - mean.lo == pytest.approx((one.hi - one.lo) / 2, rel=0.2)


def test_times() -> None:
    assert quantiles([]) == {"n": 0}
    assert quantiles([1.0, 2.0, 9.0])["p50"] == 2.0
