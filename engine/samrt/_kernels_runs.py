"""The part of :mod:`samrt._kernels` that the automatic mode works with: many masks, as run lengths.

The rules are those of :mod:`samrt._kernels`; :mod:`samrt.reference_runs` has the same functions in
plain NumPy. Run lengths are COCO's: column by column, the first run outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from samrt import _native
else:
    from samrt._kernels import _native

__all__ = ["MaskRuns", "box_nms", "mask_runs", "place_runs"]

Size = tuple[int, int]


class MaskRuns(NamedTuple):
    """Masks as run lengths, with their figures.

    ``stability`` (M,) float32 in [0, 1]; ``areas`` (M,) int64 in pixels; ``boxes`` (M, 4) int64 x0,
    y0, x1, y1 with x1 and y1 exclusive; ``counts``, for each mask, its run lengths (K,) uint32, or
    ``None`` for a mask that was not stable enough, whose area and box are then zero.
    """

    stability: NDArray[np.float32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    counts: list[NDArray[np.uint32] | None]


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
    threads: int = 1,
) -> MaskRuns:
    """Masks of low-resolution ``logits`` (M, h, w) float32, one at a time, straight to run lengths.

    A mask is where :func:`samrt._kernels.upscale_logits` is above ``threshold``. Its stability is
    the number of full-size samples above ``inner`` over that above ``outer`` (Segment Anything's
    stability score, which it takes after the resizing), 0 where there are none. Masks below
    ``min_stability`` are dropped before their runs are made. With ``probability`` all three levels
    are probabilities, as in :func:`samrt._kernels.masks_from_logits`.

    No stack of full-size masks is made: each thread needs ``H * W`` bytes. Raises ValueError unless
    ``outer <= threshold <= inner``.
    """
    return MaskRuns(
        *_native.mask_runs(
            logits,
            frame=frame,
            crop=crop,
            out=out,
            interpolation=interpolation,
            threshold=threshold,
            inner=inner,
            outer=outer,
            probability=probability,
            min_stability=min_stability,
            threads=threads,
        )
    )


def place_runs(counts: NDArray[np.uint32], size: Size, at: Size, whole: Size) -> NDArray[np.uint32]:
    """Run lengths of a mask of ``size`` (h, w), put at row and column ``at`` of ``whole`` (H, W).

    The rest of the whole is outside. Raises ValueError if the counts do not sum to ``h * w`` or the
    part does not lie within the whole.
    """
    return _native.place_runs(counts, size, at, whole)


def box_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Indices (K,) of the boxes that greedy non-maximum suppression keeps, by falling score.

    ``boxes`` (N, 4) float32 x0, y0, x1, y1, ``scores`` (N,) float32. A box goes if its IoU with one
    that was kept is above ``threshold``; of equal scores the earlier comes first. All arithmetic is
    float32, as in torchvision's ``nms``. A box without area never goes.
    """
    return _native.box_nms(boxes, scores, threshold)
