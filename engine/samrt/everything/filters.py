"""Which masks go: those cut off by a crop's edge, doubles, small regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels, _kernels_runs
from samrt.everything.grid import Crop
from samrt.types import Size

__all__ = ["EDGE_DISTANCE", "ends_at_crop_edge", "inclusive", "keep_best", "without_small_regions"]

EDGE_DISTANCE = 20.0
"""Pixels from a crop's edge within which a box counts as touching it, as in SAM."""


def inclusive(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Boxes whose far edges are the last pixels, as SAM compares them; zeros for an empty mask."""
    filled = boxes[:, 2:] > boxes[:, :2]
    return boxes - np.concatenate([np.zeros_like(filled), filled], axis=1).astype(np.int64)


def ends_at_crop_edge(boxes: NDArray[np.int64], crop: Crop, size: Size) -> NDArray[np.bool_]:
    """Which boxes come near an edge of the crop that is no edge of the image.

    Args:
        boxes: ``(N, 4)`` inclusive, in pixels of the image.
        crop: where the masks come from.
        size: ``(H, W)`` of the image.
    """
    whole = np.array([0, 0, size[1], size[0]])
    near_crop = np.abs(boxes - np.array(crop.box)) <= EDGE_DISTANCE
    near_image = np.abs(boxes - whole) <= EDGE_DISTANCE
    return np.asarray((near_crop & ~near_image).any(axis=1))


def keep_best(
    boxes: NDArray[np.int64], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Indices that stay, by falling score: no two with a box IoU above the threshold.

    Args:
        boxes: ``(N, 4)`` inclusive; areas are taken as if they were exclusive, as SAM does.
        scores: ``(N,)``.
        threshold: largest IoU allowed.
    """
    if not len(boxes):
        return np.zeros(0, np.int64)
    return _kernels_runs.box_nms(boxes.astype(np.float32), scores.astype(np.float32), threshold)


def without_small_regions(
    counts: NDArray[np.uint32], size: Size, min_area: float
) -> tuple[NDArray[np.uint32], NDArray[np.int64], bool]:
    """Fill small holes, then remove small islands, of one mask.

    Returns:
        Run lengths, inclusive box ``(4,)``, and whether anything was changed.
    """
    mask = _kernels.rle_decode(counts, size)
    mask, filled = _kernels.remove_small_regions(mask, min_area, "holes")
    mask, removed = _kernels.remove_small_regions(mask, min_area, "islands")
    _, boxes = _kernels.mask_stats(mask[None])
    changed = filled or removed
    return (_kernels.rle_encode(mask) if changed else counts), inclusive(boxes)[0], changed
