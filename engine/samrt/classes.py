"""Masks that are classes: every pixel belongs to the class with the highest logit.

A model with ``output.kind`` ``classes`` returns one low-resolution map per class, the background
among them. The maps are brought to the part of the model frame that holds the image, as
:mod:`samrt.postprocess` does it; there each pixel takes the class of the highest logit, the first
of equals. The map of classes then goes to ``(H, W)`` by taking the nearest sample with the corner
samples onto the corner samples, which is ``scipy.ndimage.zoom(order=0)`` but for the samples
that rounding puts outside there.

The answer has one mask per class of ``multimask_indices``, which leaves the background out; a
class that is nowhere has an empty mask. ``scores`` are mean softmax probabilities of the class
over the pixels of its mask in the frame, 0 for an empty one. In place of logits and their
threshold there is the margin of a class: its logit less the highest of the others, above 0
inside the mask. It makes ``stability`` and ``mask_logits``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels
from samrt.geometry import Placement
from samrt.manifest import OutputSpec
from samrt.postprocess import MaskSet, enlargement

__all__ = ["ClassMap", "class_map", "class_masks"]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which class each pixel of the resized image belongs to.

    Attributes:
        labels: ``(h, w)`` int64, index of the class.
        logits: ``(C, h, w)`` float32.
        scores: ``(C,)`` float32, mean softmax probability of each class where it won.
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


def class_map(
    logits: NDArray[np.float32], placement: Placement, spec: OutputSpec, *, threads: int
) -> ClassMap:
    """Let the classes ``(C, h_low, w_low)`` of one image compete at the size of the resized image.

    Args:
        logits: of all classes, finite.
        placement: where the image lies in the model frame.
        spec: the model's output rules.
        threads: threads the kernel may use, at least 1.
    """
    plan = enlargement(placement, spec)
    plan["out"] = placement.input_size
    values = _kernels.upscale_logits(logits, **plan, threads=threads)
    labels = values.argmax(axis=0)
    # The winner's softmax probability: 1 / sum(exp(logit - highest)).
    certainty = 1.0 / np.exp(values - values.max(axis=0)).sum(axis=0, dtype=np.float64)
    counts = np.bincount(labels.ravel(), minlength=len(values))
    sums = np.bincount(labels.ravel(), weights=certainty.ravel(), minlength=len(values))
    return ClassMap(labels, values, (sums / np.maximum(counts, 1)).astype(np.float32))


def class_masks(
    logits: NDArray[np.float32],
    found: ClassMap,
    keep: Sequence[int],
    placement: Placement,
    spec: OutputSpec,
    *,
    with_logits: bool,
) -> tuple[MaskSet, NDArray[np.float32] | None]:
    """Masks ``(M, H, W)`` of the classes in ``keep``, and with ``with_logits`` their margins."""
    rows, columns = (
        _nearest_corners(before, after)
        for before, after in zip(found.labels.shape, placement.original_size, strict=True)
    )
    labels = found.labels[rows[:, None], columns[None]]
    masks = np.stack([labels == index for index in keep])
    areas, boxes = _kernels.mask_stats(masks)
    margins = np.ascontiguousarray(_margins(logits)[list(keep)])
    stability = _kernels.stability(margins, 0.0, spec.stability_offset)
    full: NDArray[np.float32] | None = None
    if with_logits:
        full = _margins(found.logits)[list(keep)][:, rows[:, None], columns[None]]
    return MaskSet(masks, stability, areas, boxes.astype(np.float64)), full


def _margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each class's logit less the highest of the other classes, ``(C, h, w)``."""
    second, first = np.partition(logits, -2, axis=0)[-2:]
    winner = np.arange(len(logits))[:, None, None] == logits.argmax(axis=0)
    return np.asarray(logits - np.where(winner, second, first), np.float32)


def _nearest_corners(before: int, after: int) -> NDArray[np.intp]:
    """Sample for each of ``after`` places, of which the first and the last keep their place."""
    step = (before - 1) / (after - 1) if after > 1 else 1.0
    place = np.floor(np.arange(after) * step + 0.5).astype(np.intp)
    return np.asarray(np.minimum(place, before - 1))
