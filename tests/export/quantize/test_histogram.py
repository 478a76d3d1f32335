"""Streamed distributions and the clips read off them."""

from __future__ import annotations

import numpy as np
import pytest

from samrt_export.quantize.histogram import BINS, AbsHistogram

from .conftest import normal


def test_it_widens_without_losing_counts() -> None:
    once, parts = AbsHistogram(), AbsHistogram()
    values = normal(0, 9000)
    values[-1] = 37.0
    once.add(values)
    for start in range(0, 9000, 1000):
        parts.add(values[start : start + 1000])
    assert parts.counts.sum() == once.counts.sum() == 9000
    assert parts.largest == once.largest == 37.0
    assert parts.limit >= 37.0
    for share in (99.9, 99.99):
        name = f"percentile {share:g}"
        assert parts.clips()[name] == pytest.approx(once.clips()[name], abs=2 * parts.width)


def test_clips_of_a_flat_distribution_are_its_end() -> None:
    histogram = AbsHistogram()
    histogram.add(np.linspace(-2, 2, 100_000, dtype=np.float32))
    for name, clip in histogram.clips().items():
        assert clip == pytest.approx(2.0, rel=0.03), name


def test_a_far_outlier_is_clipped_where_that_is_better() -> None:
    histogram = AbsHistogram()
    values = normal(1, 400_000)
    values[:3] = 60.0
    histogram.add(values)
    clips = histogram.clips()
    assert clips["max"] == 60.0
    assert clips["mse"] < 45
    assert clips["percentile 99.9"] < 5
    assert clips["entropy"] < 60.0
    assert histogram.error(clips["mse"]) < 0.7 * histogram.error(clips["max"])
    exact = np.clip(np.rint(values / (clips["mse"] / 127)), -127, 127) * clips["mse"] / 127
    measured = float(np.mean((values - exact) ** 2))
    assert histogram.error(clips["mse"]) == pytest.approx(measured, rel=0.1)


def test_many_values_are_thinned_out_but_the_largest_is_seen() -> None:
    histogram = AbsHistogram()
    values = np.ones(3_000_001, np.float32)
    values[1] = -9.0
    histogram.add(values)
    assert histogram.largest == 9.0
    assert histogram.counts.sum() <= 1 << 20
    assert histogram.counts.shape == (BINS,)


def test_nothing_but_zeros() -> None:
    histogram = AbsHistogram()
    histogram.add(np.zeros(10, np.float32))
    clips = histogram.clips()
    assert set(clips.values()) == {1.0}
    assert len(clips) == 6


def test_nan_and_infinity_are_errors() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            AbsHistogram().add(np.array([1.0, bad], np.float32))
