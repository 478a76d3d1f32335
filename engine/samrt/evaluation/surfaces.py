"""Outlines of masks and the distances between them. Needs SciPy.

Two kinds of outline, each after the tool that made its figure known:

* border pixels, mask pixels with a 4-neighbour outside (in volumes voxels with a 6-neighbour;
  beyond the image is outside), for the Hausdorff distance, its 95th percentile and the average
  distance, as MedPy has them;
* outline elements between 2 x 2 pixels, weighted by the length of the line that passes there, for
  the normalised surface Dice of Nikolov et al. 2018 (arXiv 1809.04430), as the package
  ``surface-distance`` has it.

Distances are to the nearest element, found exactly with a k-d tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ExtraUnavailableError

__all__ = ["Outline", "border_pixels", "distances", "elements", "need_scipy", "outline"]

Spacing = tuple[float, float]
Points = NDArray[np.float64]


def need_scipy() -> None:
    """Check that SciPy is there.

    Raises:
        ExtraUnavailableError: it is not.
    """
    try:
        import scipy.spatial  # noqa: F401
    except ModuleNotFoundError as exc:
        raise ExtraUnavailableError(
            f"samrt eval needs {exc.name}, which is not installed: pip install 'samrt[eval]'"
        ) from exc


def border_pixels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``(N, axes)`` indices of mask pixels with a neighbour outside along one of the axes.

    Four neighbours of a pixel of ``(H, W)`` count, six of a voxel of ``(D, H, W)``.
    """
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for side in (slice(None, -2), slice(2, None)):
            place = [slice(1, -1)] * mask.ndim
            place[axis] = side
            inner &= padded[tuple(place)]
    return np.argwhere(mask & ~inner)


def elements(mask: NDArray[np.bool_], spacing: Spacing) -> tuple[Points, Points]:
    """Outline elements of a mask.

    Args:
        mask: ``(H, W)`` bool.
        spacing: size of a pixel, row and column.

    Returns:
        ``(N, 2)`` places in units of the spacing, one per 2 x 2 neighbourhood that holds both
        kinds of pixels, and ``(N,)`` length of the outline there. A neighbourhood with one
        pixel of the other kind is cut by a diagonal, with two side by side by a straight line
        along them, with two at opposite corners by two diagonals.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    code = padded[:-1, :-1] * 8 + padded[:-1, 1:] * 4 + padded[1:, :-1] * 2 + padded[1:, 1:]
    places = np.argwhere((code != 0) & (code != 15))
    row, column = spacing
    diagonal = 0.5 * math.hypot(row, column)
    lengths = np.full(16, diagonal)
    lengths[[0, 15]] = 0.0
    lengths[[3, 12]] = column  # lower or upper two pixels: a horizontal line
    lengths[[5, 10]] = row
    lengths[[6, 9]] = 2.0 * diagonal
    weights: Points = lengths[code[places[:, 0], places[:, 1]]]
    return places.astype(np.float64) * np.asarray(spacing, np.float64), weights


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A mask's outlines, ready to be measured against; see :func:`outline`.

    Attributes:
        border: ``(N, 2)`` border pixels in units of the spacing.
        border_tree: k-d tree of them, ``None`` for an empty mask.
        places, lengths: outline elements, see :func:`elements`.
        place_tree: k-d tree of the places.
    """

    border: Points
    border_tree: Any
    places: Points
    lengths: Points
    place_tree: Any


def outline(mask: NDArray[np.bool_], spacing: Spacing = (1.0, 1.0)) -> Outline:
    """Both outlines of an ``(H, W)`` bool mask."""
    from scipy.spatial import cKDTree

    border = border_pixels(mask).astype(np.float64) * np.asarray(spacing, np.float64)
    places, lengths = elements(mask, spacing)
    if not len(border):
        return Outline(border, None, places, lengths, None)
    return Outline(border, cKDTree(border), places, lengths, cKDTree(places))


def distances(points: Points, tree: Any) -> Points:
    """``(N,)`` distance of each point to the nearest one in the tree."""
    found: Points = tree.query(points, k=1, workers=1)[0]
    return found
