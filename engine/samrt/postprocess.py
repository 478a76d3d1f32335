"""From low-resolution logits to masks of the original size and their figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels
from samrt.geometry import Placement
from samrt.manifest import OutputSpec
from samrt.types import Size

__all__ = [
    "Enlargement",
    "MaskSet",
    "Multimask",
    "best_index",
    "empty_mask_warnings",
    "enlargement",
    "full_size_logits",
    "make_masks",
    "mask_indices",
    "returned_logits",
]

Multimask = bool | Literal["all"]
"""Several masks, a single one, or the mask of every mask token."""


@dataclass(frozen=True, slots=True)
class MaskSet:
    """Masks of one prompt: ``masks (M, H, W)`` bool, ``stability (M,)`` float32,
    ``areas_px (M,)`` int64, ``boxes (M, 4)`` float64 XYXY with exclusive far edges.
    """

    masks: NDArray[np.bool_]
    stability: NDArray[np.float32]
    areas_px: NDArray[np.int64]
    boxes: NDArray[np.float64]


def mask_indices(
    spec: OutputSpec,
    scores: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    multimask: Multimask,
) -> tuple[int, ...]:
    """Which of the decoder's masks the caller gets, in the decoder's order.

    Args:
        spec: the model's rules.
        scores: ``(num_masks,)`` float32 predicted IoU of all masks of one prompt.
        logits: ``(num_masks, h, w)`` float32 of the same masks.
        multimask: several masks, one, or all of them.
    """
    candidates = spec.multimask_indices
    if multimask == "all":
        return tuple(range(spec.num_masks))
    if multimask and spec.multimask == "candidates":
        return candidates
    if not multimask and spec.single_mask == "index":
        return (spec.single_mask_index,)
    if not multimask and spec.single_mask == "best":
        candidates = tuple(range(spec.num_masks))
    return (best_index(spec, scores, logits, candidates),)


def best_index(
    spec: OutputSpec,
    scores: NDArray[np.float32],
    logits: NDArray[np.float32],
    candidates: Sequence[int],
) -> int:
    """Which of some masks the model ranks highest; the first one of equals."""
    ranks = scores
    if spec.mask_choice == "stability":
        ranks = _kernels.stability(logits, _logit_threshold(spec), spec.stability_offset)
    return max(candidates, key=lambda index: float(ranks[index]))


def returned_logits(logits: NDArray[np.float32], spec: OutputSpec) -> NDArray[np.float32]:
    """Low-resolution logits as the caller gets them, within the model's ``logit_limit``."""
    if spec.logit_limit is None:
        return logits
    return np.clip(logits, -spec.logit_limit, spec.logit_limit)


def make_masks(
    logits: NDArray[np.float32], placement: Placement, spec: OutputSpec, *, threads: int
) -> MaskSet:
    """Bring chosen masks to the original size, cut them at the threshold and measure them.

    The resizing is SAM's: from the low-resolution map to the model frame, crop to the part that
    holds the image, then to ``(H, W)`` (``two_step``); models that crop the low-resolution map
    itself use ``direct``. A pixel belongs to the mask if its value is above the threshold; a
    value equal to it does not, also for models whose original code keeps exact zeros. Stability
    is SAM's score: the number of low-resolution pixels above threshold + offset divided by those
    above threshold - offset.

    Args:
        logits: ``(M, h, w)`` float32, finite.
        placement: where the image lies in the model frame.
        spec: the model's output rules.
        threads: threads the kernels may use, at least 1.
    """
    masks = _kernels.masks_from_logits(
        logits,
        **enlargement(placement, spec),
        threshold=spec.threshold,
        probability=spec.threshold_space == "probability",
        threads=threads,
    )
    areas, boxes = _kernels.mask_stats(masks)
    stability = _kernels.stability(logits, _logit_threshold(spec), spec.stability_offset)
    return MaskSet(masks, stability, areas, boxes.astype(np.float64))


def full_size_logits(
    logits: NDArray[np.float32], placement: Placement, spec: OutputSpec, *, threads: int
) -> NDArray[np.float32]:
    """Map ``(M, h, w)`` logits to ``(M, H, W)``; what is cut at ``spec.threshold``.

    Where the model thresholds probabilities, these are returned, resized as such.
    """
    if spec.threshold_space == "probability":
        with np.errstate(over="ignore"):
            logits = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    return _kernels.upscale_logits(logits, **enlargement(placement, spec), threads=threads)


def empty_mask_warnings(areas_px: NDArray[np.int64]) -> tuple[str, ...]:
    """One remark per mask without a single pixel."""
    empty = np.flatnonzero(areas_px == 0)
    return tuple(f"mask {index} is empty: no pixel is above the threshold" for index in empty)


class Enlargement(TypedDict):
    """How low-resolution maps are brought to full size, in the kernels' words."""

    frame: Size
    crop: Size
    out: Size
    interpolation: str


def enlargement(placement: Placement, spec: OutputSpec) -> Enlargement:
    """Size of the map after the first step, the part of it that holds the image, its full size."""
    low, frame, size = spec.low_res_size, placement.frame_size, placement.input_size
    crop = size
    if spec.resize_kind == "direct":
        crop = (
            max(1, int(size[0] * low[0] / frame[0] + 0.5)),
            max(1, int(size[1] * low[1] / frame[1] + 0.5)),
        )
        frame = low
    return {
        "frame": frame,
        "crop": crop,
        "out": placement.original_size,
        "interpolation": spec.resize_interpolation,
    }


def _logit_threshold(spec: OutputSpec) -> float:
    """The threshold on logits, also where the model cuts probabilities."""
    if spec.threshold_space == "logits":
        return spec.threshold
    if spec.threshold <= 0.0 or spec.threshold >= 1.0:
        return -math.inf if spec.threshold <= 0.0 else math.inf
    return math.log(spec.threshold / (1.0 - spec.threshold))
