"""Colours that can be told apart, for pictures with many masks."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from samrt.imaging.overlay import PALETTE

__all__ = ["MOST_COLOURS", "distinct"]

MOST_COLOURS = 32
"""More would be too much alike; beyond them they are used again."""

_LEVELS = (0, 51, 102, 153, 204, 255)
_LIGHTNESS = (48.0, 92.0)  # visible on dark and on bright tissue
_LEAST_CHROMA = 22.0  # greys are for the picture itself


def distinct(count: int) -> tuple[tuple[int, int, int], ...]:
    """At most :data:`MOST_COLOURS` RGB colours: the palette, then whatever is farthest from all.

    Distances are Euclidean in CIE L*a*b* (D65); each next colour is the one whose nearest
    neighbour among those taken is farthest, so any first ``n`` are far apart.
    """
    return _ordered()[: max(1, min(count, MOST_COLOURS))]


@cache
def _ordered() -> tuple[tuple[int, int, int], ...]:
    candidates = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    lab = _lab(candidates)
    light = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    usable = light & (np.hypot(lab[:, 1], lab[:, 2]) >= _LEAST_CHROMA)
    candidates, lab = candidates[usable], lab[usable]
    taken = [(r, g, b) for r, g, b in PALETTE]
    start = _lab(np.array(PALETTE))
    nearest = np.linalg.norm(lab[:, None] - start[None], axis=-1).min(axis=1)
    while len(taken) < MOST_COLOURS:
        best = int(nearest.argmax())
        r, g, b = (int(value) for value in candidates[best])
        taken.append((r, g, b))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(taken)


def _lab(rgb: NDArray[np.int64]) -> NDArray[np.float64]:
    """sRGB 0..255 ``(N, 3)`` to CIE L*a*b* of 1976 under D65, by way of XYZ (IEC 61966-2-1)."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[:, 0], f[:, 1], f[:, 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
