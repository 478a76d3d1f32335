"""How well two masks agree: overlap and surface distances.

Dice 2|A∩B| / (|A|+|B|) and Jaccard |A∩B| / |A∪B|, both 1 for two empty masks. HD is the largest
distance from a border pixel of one mask to the border of the other, HD95 the 95th percentile and
ASD (average symmetric surface distance) the mean of all those distances of both directions
together; these have no value (``None``) where one mask is empty. NSD is the share of both
outlines that lies within a tolerance of the other one; 0 if exactly one mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.evaluation.surfaces import Outline, Spacing, distances, outline

__all__ = ["METRICS", "MM_METRICS", "Truth", "dice", "ellipse_in", "iou", "measure", "overlap"]

METRICS = ("dice", "iou", "hd", "hd95", "asd", "nsd")
"""Keys of :func:`measure`; distances in pixels of the image."""

MM_METRICS = ("hd_mm", "hd95_mm", "asd_mm")
"""Further keys where the spacing is known."""

Mask = NDArray[np.bool_]


def overlap(a: Mask, b: Mask) -> tuple[float, float]:
    """Dice and Jaccard of two masks of the same shape."""
    both = int(np.count_nonzero(a & b))
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    if total == 0:
        return 1.0, 1.0
    return 2.0 * both / total, both / (total - both)


def dice(a: Mask, b: Mask) -> float:
    """Dice of two masks of the same shape, 0 to 1."""
    return overlap(a, b)[0]


def iou(a: Mask, b: Mask) -> float:
    """Jaccard index of two masks of the same shape, 0 to 1."""
    return overlap(a, b)[1]


class Truth:
    """A reference mask with its outlines, measured against many answers.

    Args:
        mask: ``(H, W)`` bool.
        spacing: millimetres per pixel, row and column; ``None``: unknown.
        tolerance: of NSD, in millimetres if the spacing is known and in pixels if not.

    Raises:
        OptionError: a spacing or tolerance that is not positive and finite.
        ExtraUnavailableError: SciPy is not installed.
    """

    def __init__(self, mask: Mask, spacing: Spacing | None = None, tolerance: float = 2.0) -> None:
        if not (math.isfinite(tolerance) and tolerance > 0):
            raise OptionError(f"NSD tolerance must be positive, got {tolerance:g}")
        if spacing is not None and not all(math.isfinite(s) and s > 0 for s in spacing):
            raise OptionError(f"spacing must be two positive numbers, got {spacing}")
        self.mask = mask
        self.spacing = spacing
        self.tolerance = tolerance
        # Equal spacings only scale the distances; otherwise all is measured twice.
        self.scale = spacing[0] if spacing is not None and spacing[0] == spacing[1] else None
        self.pixels = outline(mask)
        self.physical = None
        if spacing is not None and self.scale is None:
            self.physical = outline(mask, spacing)


def measure(answer: Mask, truth: Truth) -> dict[str, float | None]:
    """All figures of one answer ``(H, W)`` bool; see the module for what they mean."""
    figures: dict[str, float | None] = {}
    figures["dice"], figures["iou"] = overlap(answer, truth.mask)
    lines = outline(answer)
    figures.update(_distances(lines, truth.pixels, ""))
    if truth.spacing is None:
        figures["nsd"] = _nsd(lines, truth.pixels, truth.tolerance)
    elif truth.physical is None and truth.scale is not None:
        figures["nsd"] = _nsd(lines, truth.pixels, truth.tolerance / truth.scale)
        for name in ("hd", "hd95", "asd"):
            value = figures[name]
            figures[f"{name}_mm"] = None if value is None else value * truth.scale
    elif truth.physical is not None:
        lines = outline(answer, truth.spacing)
        figures["nsd"] = _nsd(lines, truth.physical, truth.tolerance)
        figures.update(_distances(lines, truth.physical, "_mm"))
    return figures


def _distances(a: Outline, b: Outline, unit: str) -> dict[str, float | None]:
    names = [f"{name}{unit}" for name in ("hd", "hd95", "asd")]
    if a.border_tree is None or b.border_tree is None:
        return dict.fromkeys(names)
    there, back = distances(a.border, b.border_tree), distances(b.border, a.border_tree)
    both = np.concatenate([there, back])
    values = (float(both.max()), float(np.percentile(both, 95)), float(both.mean()))
    return dict(zip(names, values, strict=True))


def _nsd(a: Outline, b: Outline, tolerance: float) -> float:
    if a.place_tree is None or b.place_tree is None:
        return float(a.place_tree is None and b.place_tree is None)
    near_a = a.lengths[distances(a.places, b.place_tree) <= tolerance].sum()
    near_b = b.lengths[distances(b.places, a.place_tree) <= tolerance].sum()
    return float((near_a + near_b) / (a.lengths.sum() + b.lengths.sum()))


def ellipse_in(box: Sequence[float], size: tuple[int, int]) -> Mask:
    """The ellipse inscribed in a box with inclusive maxima: what no model at all would answer."""
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: size[0], : size[1]]
    u = (x - (x0 + x1) / 2.0) / ((x1 - x0 + 1.0) / 2.0)
    v = (y - (y0 + y1) / 2.0) / ((y1 - y0 + 1.0) / 2.0)
    inside: Mask = u * u + v * v <= 1.0
    return inside
