"""Means with bootstrap confidence intervals whose unit is the case: an image or a volume.

Targets of one image are alike, so whole cases are drawn with replacement, not targets
(Field and Welsh 2007, J. R. Stat. Soc. B 69:369, "cluster bootstrap"). Intervals are percentiles
of the means of the draws. With fewer than two cases there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "Estimate", "estimate", "mean_of", "quantiles"]

DRAWS = 1000
_LEVEL = 0.95
_CELLS = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of ``n`` targets of ``cases`` cases and its 95 % interval; ``None`` if unknown.

    ``draws`` holds the means of the bootstrap draws, for means of means.
    """

    mean: float | None
    lo: float | None
    hi: float | None
    n: int
    cases: int
    draws: Floats | None = None

    def as_list(self) -> list[float | int | None]:
        """JSON-ready: mean, lower and upper end, number of targets."""
        return [_rounded(self.mean), _rounded(self.lo), _rounded(self.hi), self.n]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def estimate(
    values: Floats, cases: NDArray[np.int64], *, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """Mean and interval of values that belong to cases.

    Args:
        values: ``(N,)`` float64; NaN stands for a value that does not exist and is left out.
        cases: ``(N,)`` int64, which case each value belongs to.
        seed: of the draws.
        draws: number of draws.
    """
    there = ~np.isnan(values)
    if not there.any():
        return Estimate(None, None, None, 0, 0)
    numbers = values[there]
    names, index = np.unique(cases[there], return_inverse=True)
    mean = float(numbers.mean())
    if len(names) < 2:
        return Estimate(mean, None, None, len(numbers), 1)
    sums = np.bincount(index, weights=numbers, minlength=len(names)).astype(np.float64)
    counts = np.bincount(index, minlength=len(names)).astype(np.float64)
    means = _bootstrap(sums, counts, seed, draws)
    lo, hi = _interval(means)
    return Estimate(mean, lo, hi, len(numbers), len(names), means)


def _bootstrap(sums: Floats, counts: Floats, seed: int, draws: int) -> Floats:
    """Mean of each draw of as many cases as there are."""
    rng = np.random.default_rng([seed, len(sums)])
    size = len(sums)
    means = np.empty(draws, np.float64)
    step = max(1, _CELLS // size)
    for start in range(0, draws, step):
        drawn = rng.integers(0, size, (min(step, draws - start), size))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _interval(means: Floats) -> tuple[float, float]:
    tail = (1.0 - _LEVEL) / 2.0
    lo, hi = np.quantile(means, (tail, 1.0 - tail))
    return float(lo), float(hi)


def mean_of(parts: Mapping[str, Estimate]) -> Estimate:
    """Mean of the means of several sets, each counting the same.

    The interval comes from draws within each set; a set of one case counts as fixed.
    """
    known = {name: part for name, part in parts.items() if part.mean is not None}
    if not known:
        return Estimate(None, None, None, 0, 0)
    n = sum(part.n for part in known.values())
    cases = sum(part.cases for part in known.values())
    mean = math.fsum(part.mean or 0.0 for part in known.values()) / len(known)
    if not any(part.draws is not None for part in known.values()):
        return Estimate(mean, None, None, n, cases)
    rows = []
    for number, part in enumerate(known.values()):
        if part.draws is None:
            rows.append(np.full(DRAWS, part.mean))
        else:  # sets drawn with one seed would rise and fall together
            rows.append(np.random.default_rng(number).permutation(part.draws))
    means = np.mean(rows, axis=0)
    lo, hi = _interval(means)
    return Estimate(mean, lo, hi, n, cases, means)


def quantiles(values: Sequence[float]) -> dict[str, float | int]:
    """``n``, ``mean``, ``p50`` and ``p90`` of times in milliseconds."""
    if not values:
        return {"n": 0}
    p50, p90 = np.quantile(values, (0.5, 0.9))
    return {
        "n": len(values),
        "mean": round(float(np.mean(values)), 3),
        "p50": round(float(p50), 3),
        "p90": round(float(p90), 3),
    }
