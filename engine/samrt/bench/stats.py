"""What a list of times says: percentiles with bounds, spread, missed deadlines.

A percentile of few samples is a guess. MLPerf Inference ("early stopping", mlcommons/inference_
policies) asks how many samples it takes to say with 99 % confidence that a share ``p`` of all
queries is faster than some sample. If ``t`` of ``n`` queries may be slower, that is the smallest
``n`` for which a query's chance of ``p`` would leave at most ``t`` slower ones in less than 1 % of
all runs::

    sum over k = 0..t of C(n, k) (1 - p)^k p^(n - k)  <=  0.01

With ``t = 1``: 11 for p50, 64 for p90, 130 for p95, 662 for p99. Below that number a percentile
is not given. Above it comes with its bound: the ``t``-th slowest sample for the largest ``t`` that
the number of samples allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

__all__ = ["PERCENTILES", "allowed_slower", "least_samples", "summary"]

PERCENTILES: Mapping[str, float] = {
    "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999,
}  # fmt: skip
_RISK = 0.01


def _chance_of_few(count: int, most: int, share: float) -> float:
    """P[at most ``most`` of ``count`` queries are slower], each being faster with ``share``."""
    slow, fast = math.log1p(-share), math.log(share)
    total = 0.0
    for k in range(min(most, count) + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(ways + k * slow + (count - k) * fast)
    return total


@cache
def least_samples(share: float, slower: int = 1) -> int:
    """Fewest samples of which ``slower`` may lie above the ``share`` percentile."""
    count = slower + 1
    step = 1
    while _chance_of_few(count, slower, share) > _RISK:
        count += step
        step *= 2
    low, high = slower, count
    while high - low > 1:
        middle = (low + high) // 2
        if _chance_of_few(middle, slower, share) > _RISK:
            low = middle
        else:
            high = middle
    return high


def allowed_slower(share: float, count: int) -> int:
    """Most samples ``t`` that may be slower; 0 where there are too few samples for any."""
    if count < least_samples(share):
        return 0
    low, high = 1, count
    while high - low > 1:
        middle = (low + high) // 2
        if _chance_of_few(count, middle, share) <= _RISK:
            low = middle
        else:
            high = middle
    return low


def _percentile(ordered: Sequence[float], share: float) -> dict[str, Any]:
    """Nearest rank and its bound; no value where there are too few samples."""
    count = len(ordered)
    slower = allowed_slower(share, count)
    if not slower:
        return {"value": None, "bound": None, "needs": least_samples(share)}
    rank = max(1, math.ceil(share * count))
    return {
        "value": ordered[rank - 1],
        "bound": ordered[count - slower],
        "needs": least_samples(share),
    }


def summary(times_ms: Sequence[float], deadline_ms: float | None = None) -> dict[str, Any]:
    """Describe times in the order in which they were taken.

    Args:
        times_ms: at least one time in ms.
        deadline_ms: time after which an answer is late.

    Returns:
        ``count``, ``mean``, ``std``, ``min``, ``median``, ``max``; ``jitter``, the mean absolute
        difference of successive times; ``drift``, the median of the second half over that of the
        first, ``None`` below eight samples; ``percentiles``, each with ``value`` and ``bound``
        (99 % confidence) or ``None``, and the number of samples it ``needs``; ``deadline`` with
        ``ms``, ``misses`` and ``share``, or ``None``.
    """
    values = np.asarray(times_ms, np.float64)
    ordered = [float(v) for v in np.sort(values)]
    half = len(values) // 2
    late = None
    if deadline_ms is not None:
        misses = int((values > deadline_ms).sum())
        late = {"ms": deadline_ms, "misses": misses, "share": misses / len(values)}
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "min": ordered[0],
        "median": float(np.median(values)),
        "max": ordered[-1],
        "jitter": float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0,
        "drift": float(np.median(values[half:]) / np.median(values[:half])) if half >= 4 else None,
        "percentiles": {name: _percentile(ordered, share) for name, share in PERCENTILES.items()},
        "deadline": late,
    }
