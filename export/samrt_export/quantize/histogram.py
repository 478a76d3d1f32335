"""Distributions of absolute values, streamed: a histogram that widens, and clips read off it.

Clips are what the largest int8 value stands for.  ``entropy`` is the threshold of the smallest
Kullback-Leibler divergence between the clipped distribution and its 128-level form (Migacz, "8-bit
Inference with TensorRT", GTC 2017); ``mse`` minimises the mean squared rounding and clipping error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LEVELS", "AbsHistogram"]

BINS = 2048
LEVELS = 127
_MOST_VALUES = 1 << 20
_STEPS = 64
_PERCENTILES = (99.9, 99.99, 99.999)
_TINY = 1e-12


@dataclass
class AbsHistogram:
    """How often absolute values occur, in `BINS` equal bins from 0 to `limit`.

    Attributes:
        counts: (BINS,) int64.
        limit: upper end of the last bin; doubled as often as needed.
        largest: largest absolute value seen, of all values.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = 0.0
    largest: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape; of more than a million an even selection.

        Raises:
            ValueError: a value is not finite.
        """
        flat = values.reshape(-1)
        largest = max(float(flat.max(initial=0.0)), -float(flat.min(initial=0.0)))
        if not math.isfinite(largest):
            raise ValueError("a value is not finite")
        if largest <= _TINY:
            return
        self.largest = max(self.largest, largest)
        if self.limit == 0.0:
            self.limit = largest
        while self.limit < largest:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros(BINS // 2, np.int64)])
            self.limit *= 2.0
        step = -(-flat.size // _MOST_VALUES)
        sizes = np.abs(flat[::step]) * np.float32(BINS / self.limit)
        bins = np.minimum(sizes.astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def clips(self) -> dict[str, float]:
        """Method -> clip: ``max``, percentiles, ``mse`` and ``entropy``; of zeros alone all 1."""
        if not self.counts.any():
            names = ("max", *(f"percentile {share:g}" for share in _PERCENTILES), "mse", "entropy")
            return dict.fromkeys(names, 1.0)
        found = {"max": self.largest}
        total = np.cumsum(self.counts)
        for share in _PERCENTILES:
            index = int(np.searchsorted(total, total[-1] * share / 100.0))
            found[f"percentile {share:g}"] = min((index + 1) * self.width, self.largest)
        found["mse"] = self.best_mse()
        found["entropy"] = self._entropy()
        return found

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS

    def best_mse(self) -> float:
        """The clip with the smallest mean squared error."""
        tries = self.largest * np.linspace(1.0 / _STEPS, 1.0, _STEPS)
        errors = [self.error(float(clip)) for clip in tries]
        return float(tries[int(np.argmin(errors))])

    def error(self, clip: float) -> float:
        """Mean squared error of rounding to `LEVELS` steps up to a clip, over the bins' centres."""
        centres = (np.arange(BINS) + 0.5) * self.width
        step = clip / LEVELS
        rounded = np.minimum(np.rint(centres / step), LEVELS) * step
        gaps = (centres - rounded) ** 2
        if self.width < step:  # the bins resolve a step: errors inside are uniform
            gaps = np.where(centres <= clip, step * step / 12.0, gaps)
        return float((gaps * self.counts).sum() / max(int(self.counts.sum()), 1))

    def _entropy(self) -> float:
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        first = min(LEVELS + 1, last)
        ends = np.unique(np.linspace(first, last, _STEPS).astype(int))
        found = [(_divergence(self.counts, int(end)), -int(end)) for end in ends]
        return min(-min(found)[1] * self.width, self.largest)


def _divergence(counts: NDArray[np.int64], end: int) -> float:
    """KL divergence of the first `end` bins, the rest clipped into them, and their 128 levels."""
    wanted = counts[:end].astype(np.float64)
    kept = wanted.copy()
    wanted[-1] += float(counts[end:].sum())
    level = np.minimum(np.arange(end) * (LEVELS + 1) // end, LEVELS)
    filled = kept > 0
    sums = np.bincount(level, weights=kept, minlength=LEVELS + 1)
    sizes = np.bincount(level, weights=filled, minlength=LEVELS + 1)
    spread = np.where(filled, (sums / np.maximum(sizes, 1.0))[level], 0.0)
    wanted, spread = wanted / max(wanted.sum(), _TINY), spread / max(spread.sum(), _TINY)
    some = wanted > 0
    return float((wanted[some] * np.log(wanted[some] / np.maximum(spread[some], _TINY))).sum())
