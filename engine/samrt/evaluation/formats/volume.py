"""Slices of label volumes as targets, shared by NIfTI and NPZ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.dataset import SMALLEST_AREA, tight_box

__all__ = ["MOST_VOXELS", "as_labels", "label_counts", "slice_targets", "to_bytes", "window_of"]

MOST_VOXELS = 1_000_000_000
PERCENTILES = (0.5, 99.5)


def slice_targets(
    labels: NDArray[Any],
) -> Iterator[tuple[int, int, int, tuple[int, int, int, int] | None]]:
    """``(slice, label, pixels, box)`` of each label above 0 in each slice of ``(D, H, W)``.

    The box is ``None`` where there are at most ``SMALLEST_AREA`` pixels.
    """
    for number, plane in enumerate(labels):
        values, counts = np.unique(plane, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value > 0:
                box = tight_box(plane == value) if count > SMALLEST_AREA else None
                yield number, int(value), int(count), box


def label_counts(labels: NDArray[Any]) -> list[tuple[int, int]]:
    """``(label, voxels)`` of each label above 0 in a volume."""
    values, counts = np.unique(labels, return_counts=True)
    return [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if v > 0]


def as_labels(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels as whole numbers in the smallest type that holds them.

    Raises:
        DatasetError: fractions, NaN, or negative values.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise DatasetError(f"{where} holds values that are no labels: whole numbers expected")
    elif values.dtype.kind not in "ui":
        raise DatasetError(f"{where} has dtype {values.dtype}: whole numbers expected")
    if values.size == 0 or values.min() < 0 or values.max() > 65535:
        raise DatasetError(f"{where} is empty or holds labels outside 0 to 65535")
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)


def to_bytes(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """One slice through a window to uint8, rounding half up."""
    lo, hi = window
    if hi <= lo:
        return np.zeros(values.shape, np.uint8)
    share = np.clip((values.astype(np.float64) - lo) / (hi - lo), 0.0, 1.0)
    return np.floor(share * 255.0 + 0.5).astype(np.uint8)


def window_of(values: NDArray[Any], rule: Any, where: str) -> tuple[float, float]:
    """Turn a window or rule into two numbers for a whole volume; ``None``: percentiles.

    Raises:
        DatasetError: NaN in the volume, or no numbers.
    """
    if isinstance(rule, tuple):
        return rule
    if values.dtype.kind not in "uif":
        raise DatasetError(f"{where} has dtype {values.dtype}: grey values expected")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DatasetError(f"{where} holds NaN or infinite values: pass --window or repair it")
    lo, hi = float(values.min()), float(values.max())
    if rule != "minmax":
        low, high = (float(v) for v in np.percentile(values, PERCENTILES))
        if low < high:
            return low, high
    return lo, hi
