"""Figures of difference between two runs: arrays, and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayFigures", "ArrayTally", "MaskFigures", "MaskTally", "compare_masks", "hd95"]

Mask = NDArray[np.bool_]
_FAR = np.int64(1) << 30
_MOST_BORDER_PIXELS = 20_000


@dataclass(frozen=True, slots=True)
class ArrayFigures:
    """How far an output is from the reference, over all comparisons.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        rms_rel: rms of the difference over the standard deviation of the reference.
        rms_rel_worst: the same within one comparison (an image's embedding, the masks or the
            scores of one prompt), the worst of them; 0 where the reference is constant and met.
        cosine_worst: cosine between reference and result, the worst comparison.
        worst_case: name of the comparison with ``rms_rel_worst``.
        comparisons: their number.
    """

    max_abs: float
    mean_abs: float
    rms_rel: float
    rms_rel_worst: float
    cosine_worst: float
    worst_case: str
    comparisons: int


@dataclass(slots=True)
class ArrayTally:
    """Adds up comparisons of one output; keeps sums, never the arrays."""

    count: int = 0
    comparisons: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    sum_square: float = 0.0
    sum_reference: float = 0.0
    sum_reference_square: float = 0.0
    rms_rel_worst: float = -1.0
    cosine_worst: float = 1.0
    worst_case: str = ""

    def add(self, name: str, reference: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        """Count one comparison; both arrays have the same shape."""
        want = reference.astype(np.float64).reshape(-1)
        have = found.astype(np.float64).reshape(-1)
        gap = have - want
        self.count += gap.size
        self.comparisons += 1
        self.max_abs = max(self.max_abs, float(np.abs(gap).max(initial=0.0)))
        self.sum_abs += float(np.abs(gap).sum())
        self.sum_square += float(gap @ gap)
        self.sum_reference += float(want.sum())
        self.sum_reference_square += float(want @ want)
        relative = _ratio(math.sqrt(float(gap @ gap) / max(gap.size, 1)), float(want.std()))
        if relative > self.rms_rel_worst:
            self.rms_rel_worst, self.worst_case = relative, name
        self.cosine_worst = min(self.cosine_worst, _cosine(want, have))

    def figures(self) -> ArrayFigures:
        """What has been counted so far."""
        count = max(self.count, 1)
        mean = self.sum_reference / count
        spread = math.sqrt(max(self.sum_reference_square / count - mean * mean, 0.0))
        return ArrayFigures(
            max_abs=self.max_abs,
            mean_abs=self.sum_abs / count,
            rms_rel=_ratio(math.sqrt(self.sum_square / count), spread),
            rms_rel_worst=max(self.rms_rel_worst, 0.0),
            cosine_worst=self.cosine_worst,
            worst_case=self.worst_case,
            comparisons=self.comparisons,
        )


def _ratio(error: float, spread: float) -> float:
    """The relative error; of a constant reference the absolute one."""
    return error / spread if spread > 0.0 else error


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    scale = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    if scale == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return min(float(a @ b) / scale, 1.0)


@dataclass(frozen=True, slots=True)
class MaskFigures:
    """One mask against the reference's.

    Attributes:
        iou: intersection over union; 1 if both are empty.
        dice: 2 |A and B| / (|A| + |B|); 1 if both are empty.
        hd95_px: see :func:`hd95`.
        flipped_px: pixels that differ.
        pixels: pixels of the image.
        informative: the reference's mask is neither empty nor the whole image.
    """

    iou: float
    dice: float
    hd95_px: float
    flipped_px: int
    pixels: int
    informative: bool


def compare_masks(reference: Mask, found: Mask) -> MaskFigures:
    """Compare two masks ``(H, W)`` bool of the same size."""
    both = int(np.count_nonzero(reference & found))
    first, second = int(np.count_nonzero(reference)), int(np.count_nonzero(found))
    union = first + second - both
    return MaskFigures(
        iou=both / union if union else 1.0,
        dice=2 * both / (first + second) if union else 1.0,
        hd95_px=0.0 if both == union else hd95(reference, found),
        flipped_px=union - both,
        pixels=reference.size,
        informative=0 < first < reference.size,
    )


def hd95(a: Mask, b: Mask) -> float:
    """Robust Hausdorff distance of two masks ``(H, W)`` in pixels.

    For each border pixel of one mask (a mask pixel with a 4-neighbour outside) the distance to
    the nearest border pixel of the other; the 95th percentile of these; the larger of the two
    directions. 0 if both are empty, the diagonal of the image if one of them is. Of a border of
    more than 20000 pixels (no mask that means anything has one) an even share is measured.
    """
    if not a.any() or not b.any():
        return 0.0 if a.any() == b.any() else math.hypot(*a.shape)
    rows, columns = np.flatnonzero((a | b).any(axis=1)), np.flatnonzero((a | b).any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    border_a, border_b = _border(a[window]), _border(b[window])
    return max(_one_way(border_a, border_b), _one_way(border_b, border_a))


def _border(mask: Mask) -> Mask:
    """Pixels of the mask with a neighbour above, below, left or right outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _one_way(source: Mask, target: Mask) -> float:
    """95th percentile of the distances from pixels of the source to the nearest of the target.

    Exact: the distance within a column first, then columns ever further away, as long as one of
    them can still hold something nearer (Felzenszwalb and Huttenlocher, "Distance Transforms of
    Sampled Functions", 2012, without the lower envelope).
    """
    along = _column_distances(target)
    rows, columns = np.nonzero(source)
    every = -(-rows.size // _MOST_BORDER_PIXELS)
    rows, columns = rows[::every], columns[::every]
    best = np.minimum(along[rows, columns], _FAR) ** 2
    width = source.shape[1]
    for step in range(1, width):
        open_ = np.flatnonzero(best > step * step)
        if not open_.size:
            break
        for side in (columns[open_] - step, columns[open_] + step):
            inside = (side >= 0) & (side < width)
            here = open_[inside]
            square = along[rows[here], side[inside]] ** 2 + step * step
            best[here] = np.minimum(best[here], square)
    return float(np.percentile(np.sqrt(best), 95))


def _column_distances(target: Mask) -> NDArray[np.int64]:
    """Rows to the nearest target pixel in the same column; far where the column has none."""
    height = target.shape[0]
    row = np.arange(height, dtype=np.int64)[:, None]
    above = np.maximum.accumulate(np.where(target, row, -_FAR), axis=0)
    below = np.minimum.accumulate(np.where(target, row, _FAR)[::-1], axis=0)[::-1]
    found: NDArray[np.int64] = np.minimum(row - above, below - row)
    return found


@dataclass(slots=True)
class MaskTally:
    """Adds up masks; ``slack_px`` is what a mask may differ by without being judged by its IoU.

    In a mask of twenty pixels one pixel at the threshold is five percent: such a flip says
    nothing about the model. The true worst IoU is kept beside the judged one.
    """

    slack_px: int
    masks: int = 0
    informative: int = 0
    identical: int = 0
    excused: int = 0
    iou_sum: float = 0.0
    iou_sum_informative: float = 0.0
    iou_worst: float = 1.0
    iou_worst_judged: float = 1.0
    worst_case: str = ""
    dice_sum: float = 0.0
    dice_worst: float = 1.0
    hd95_sum: float = 0.0
    hd95_worst: float = 0.0
    hd95_worst_case: str = ""
    flipped_px: int = 0
    pixels: int = 0
    flipped_share_worst: float = 0.0

    def add(self, name: str, mask: MaskFigures) -> None:
        """Count one mask."""
        self.masks += 1
        self.identical += mask.flipped_px == 0
        self.iou_sum += mask.iou
        self.dice_sum += mask.dice
        self.hd95_sum += mask.hd95_px
        self.flipped_px += mask.flipped_px
        self.pixels += mask.pixels
        if mask.informative:
            self.informative += 1
            self.iou_sum_informative += mask.iou
        if mask.iou < self.iou_worst:
            self.iou_worst, self.worst_case = mask.iou, name
        if mask.flipped_px > self.slack_px:
            self.iou_worst_judged = min(self.iou_worst_judged, mask.iou)
        elif mask.flipped_px:
            self.excused += 1
        self.dice_worst = min(self.dice_worst, mask.dice)
        if mask.hd95_px > self.hd95_worst:
            self.hd95_worst, self.hd95_worst_case = mask.hd95_px, name
        self.flipped_share_worst = max(self.flipped_share_worst, mask.flipped_px / mask.pixels)
