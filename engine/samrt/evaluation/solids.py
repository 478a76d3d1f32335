"""How well two masks of a volume agree: overlap and surface distances in three dimensions.

Dice, Jaccard, HD, HD95 and ASD are those of :mod:`samrt.evaluation.metrics`, between border voxels
(a 6-neighbour outside, as MedPy has them). NSD comes from the package ``surface-distance`` of its
authors (Nikolov et al. 2018, arXiv 1809.04430): the share of both surfaces, by area, within the
tolerance of the other one.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ExtraUnavailableError, OptionError
from samrt.evaluation.metrics import overlap
from samrt.evaluation.surfaces import border_pixels, distances

__all__ = ["SOLID_METRICS", "measure_solid", "need_surface_distance"]

SOLID_METRICS = ("dice", "iou", "nsd", "hd", "hd95", "asd")
"""Keys of :func:`measure_solid`."""

Mask = NDArray[np.bool_]


def need_surface_distance() -> Any:
    """The package ``surface-distance``.

    Raises:
        ExtraUnavailableError: it is not installed.
    """
    try:
        import surface_distance
    except ModuleNotFoundError as exc:
        raise ExtraUnavailableError(
            f"figures of whole volumes need {exc.name}, which is not installed: "
            "pip install 'samrt[eval]', or leave volumes out with --volumes none"
        ) from exc
    return surface_distance


def measure_solid(
    answer: Mask,
    truth: Mask,
    spacing: tuple[float, float, float] | None,
    tolerance: float = 2.0,
) -> dict[str, float | None]:
    """All figures of one answer.

    Args:
        answer: ``(D, H, W)`` bool.
        truth: ``(D, H, W)`` bool.
        spacing: millimetres between slices, rows, columns; ``None``: unknown, counted as voxels.
        tolerance: of NSD, in the unit of the spacing.

    Returns:
        ``dice``, ``iou`` and ``nsd`` from 0 to 1, ``hd``, ``hd95`` and ``asd`` in the unit of the
        spacing; these are ``None`` where exactly one mask, or each, is empty.

    Raises:
        OptionError: shapes that differ, a spacing or tolerance that is not positive and finite.
        ExtraUnavailableError: SciPy or surface-distance is not installed.
    """
    steps = np.asarray(spacing or (1.0, 1.0, 1.0), np.float64)
    if answer.ndim != 3 or answer.shape != truth.shape:
        raise OptionError(
            f"masks have the shapes {answer.shape} and {truth.shape}, expected (D, H, W) twice"
        )
    if steps.shape != (3,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise OptionError(f"spacing must be three positive numbers, got {spacing}")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise OptionError(f"NSD tolerance must be positive, got {tolerance:g}")
    package = need_surface_distance()
    figures: dict[str, float | None] = {}
    figures["dice"], figures["iou"] = overlap(answer, truth)
    a, b = _cropped(answer, truth)
    one, two = bool(a.any()), bool(b.any())
    if not (one and two):
        empty = 0.0 if one or two else 1.0
        return {**figures, "nsd": empty, "hd": None, "hd95": None, "asd": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about its table
        surfaces = package.compute_surface_distances(b, a, steps)
    figures["nsd"] = float(package.compute_surface_dice_at_tolerance(surfaces, tolerance))
    both = _border_distances(a, b, steps)
    figures["hd"] = float(both.max())
    figures["hd95"] = float(np.percentile(both, 95))
    figures["asd"] = float(both.mean())
    return figures


def _cropped(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Both masks without what is empty in both around them; this changes no figure."""
    either = a | b
    place = []
    for axis in range(3):
        held = np.flatnonzero(either.any(axis=tuple(k for k in range(3) if k != axis)))
        place.append(slice(held[0], held[-1] + 1) if held.size else slice(0, 0))
    return a[tuple(place)], b[tuple(place)]


def _border_distances(a: Mask, b: Mask, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from each border voxel to the other border, of both directions together."""
    from scipy.spatial import cKDTree

    one, two = border_pixels(a) * steps, border_pixels(b) * steps
    there, back = distances(one, cKDTree(two)), distances(two, cKDTree(one))
    return np.concatenate([there, back])
