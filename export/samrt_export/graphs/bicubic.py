"""Bicubic resizing as two small matrix products.

torch's `interpolate(mode="bicubic", align_corners=False)` is Keys' cubic convolution (1981) with
a = -0.75, half-pixel centres and repeated edge pixels.  Being linear and separable, it is a fixed
matrix per axis, which every runtime computes alike, borders included.
"""

from __future__ import annotations

import numpy as np

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.fold import Array64

SHARPNESS = -0.75


def keys_kernel(distance: Array64, a: float = SHARPNESS) -> Array64:
    """Keys' cubic convolution kernel at the given distances in pixels."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def bicubic_matrix(source: int, target: int) -> Array64:
    """(target, source): row i holds the weights of the inputs in output i, no antialiasing."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centre).astype(np.int64) - 1
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    for tap in range(4):
        columns = np.clip(first + tap, 0, source - 1)
        np.add.at(matrix, (rows, columns), keys_kernel(centre - (first + tap)))
    return matrix


def bicubic_double(g: GraphBuilder, x: str, grid: tuple[int, int]) -> str:
    """(1, C, h, w) to (1, C, 2 h, 2 w); `grid` is (h, w)."""
    height, width = grid
    x = g.op("MatMul", x, g.constant(bicubic_matrix(width, 2 * width).T))
    return g.op("MatMul", g.constant(bicubic_matrix(height, 2 * height)), x)
