"""Every kernel of :mod:`samrt._kernels_runs` in plain NumPy; see :mod:`samrt.reference`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samrt._kernels_runs import MaskRuns
from samrt.reference import mask_stats, rle_decode, rle_encode, upscale_logits

__all__ = ["box_nms", "mask_runs", "place_runs"]

Size = tuple[int, int]


def mask_runs(
    logits: NDArray[np.float32],
    *,
    frame: Size,
    crop: Size,
    out: Size,
    interpolation: str = "bilinear",
    threshold: float = 0.0,
    inner: float = 1.0,
    outer: float = -1.0,
    probability: bool = False,
    min_stability: float = 0.0,
) -> MaskRuns:
    """See :func:`samrt._kernels_runs.mask_runs`."""
    if probability:
        with np.errstate(over="ignore"):
            logits = (1 / (1 + np.exp(-logits))).astype(np.float32)
    full = upscale_logits(logits, frame=frame, crop=crop, out=out, interpolation=interpolation)
    above_inner = (full > np.float32(inner)).sum(axis=(1, 2))
    above_outer = (full > np.float32(outer)).sum(axis=(1, 2))
    stability = np.asarray(above_inner / np.maximum(above_outer, 1), np.float32)
    masks = full > np.float32(threshold)
    stable = stability >= np.float32(min_stability)
    areas, boxes = mask_stats(masks & stable[:, None, None])
    counts = [rle_encode(m) if keep else None for m, keep in zip(masks, stable, strict=True)]
    return MaskRuns(stability, areas, boxes, counts)


def place_runs(counts: NDArray[np.uint32], size: Size, at: Size, whole: Size) -> NDArray[np.uint32]:
    """See :func:`samrt._kernels_runs.place_runs`."""
    mask = np.zeros(whole, np.bool_)
    mask[at[0] : at[0] + size[0], at[1] : at[1] + size[1]] = rle_decode(counts, size)
    return rle_encode(mask)


def box_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """See :func:`samrt._kernels_runs.box_nms`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            iou = shared / (areas[kept] + areas[index] - shared)
        if not (iou.astype(np.float64) > threshold).any():
            kept.append(int(index))
    return np.array(kept, np.int64)
