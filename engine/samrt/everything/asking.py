"""One decoder call of everything mode: points in, masks that pass the filters out."""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels_runs
from samrt.decoding import placement_of
from samrt.everything.filters import ends_at_crop_edge, inclusive
from samrt.everything.findings import Masks
from samrt.everything.grid import Crop
from samrt.everything.options import EverythingOptions
from samrt.geometry import Placement
from samrt.manifest import OutputSpec
from samrt.model import Model
from samrt.postprocess import enlargement, mask_indices
from samrt.prompts import decoder_input
from samrt.types import ImageEmbedding, Prompt, Size

__all__ = ["Clock", "ask"]

_OBJECT = 1


class Clock:
    """Adds up the time of named steps in milliseconds, in ``spent``."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("encode", "decode", "masks", "filter"), 0.0)

    def time(self, step: str) -> _Lap:
        """A context that adds its duration to a step."""
        return _Lap(self.spent, step)


class _Lap:
    def __init__(self, spent: dict[str, float], step: str) -> None:
        self._spent, self._step, self._start = spent, step, 0.0

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent[self._step] += (perf_counter() - self._start) * 1000.0


def ask(
    model: Model,
    embedding: ImageEmbedding,
    points: NDArray[np.float64],
    crop: Crop,
    size: Size,
    options: EverythingOptions,
    clock: Clock,
) -> Masks:
    """Ask about points of a crop, each as a prompt of its own for several masks.

    A mask stays if its predicted IoU is above ``pred_iou_thresh``, its stability at full size is at
    least ``stability_score_thresh``, and it does not end near an edge of the crop inside the image.
    The order is SAM's; masks are only enlarged after the first test.

    Args:
        model: the opened bundle.
        embedding: of the crop.
        points: ``(P, 2)`` float64 ``(x, y)`` in pixels of the crop.
        crop: where the embedding comes from.
        size: ``(H, W)`` of the image.
        options: the filters.
        clock: gets the times of ``decode`` and ``masks``.

    Returns:
        The masks in the frame of the image.
    """
    manifest = model.bundle.manifest
    spec, placement = manifest.output, placement_of(embedding)
    with clock.time("decode"):
        prompts = [Prompt(point_coords=[point], point_labels=[_OBJECT]) for point in points]
        tokens = decoder_input(prompts, placement, manifest.prompts, spec.low_res_size)
        logits, scores = model.run_decoder(embedding.features, tokens)
    with clock.time("masks"):
        prompt, mask = _candidates(spec, logits, scores)
        if options.pred_iou_thresh > 0.0:
            good = scores[prompt, mask] > np.float32(options.pred_iou_thresh)
            prompt, mask = prompt[good], mask[good]
        if not len(prompt):
            return Masks.none()
        runs = _runs(logits[prompt, mask], placement, spec, options, model.info.threads)
        origin = np.array(crop.box[:2])
        boxes = inclusive(runs.boxes) + np.tile(origin, 2)
        at_edge = ends_at_crop_edge(boxes, crop, size)
        counts: list[NDArray[np.uint32]] = []
        kept: list[int] = []
        for index, own in enumerate(runs.counts):
            if own is not None and not at_edge[index]:
                counts.append(_placed(own, crop, size))
                kept.append(index)
        return Masks(
            counts,
            boxes[kept],
            scores[prompt, mask][kept],
            runs.stability[kept],
            points[prompt[kept]] + origin,
            np.tile(np.array(crop.box, np.int64), (len(kept), 1)),
        )


def _runs(
    logits: NDArray[np.float32],
    placement: Placement,
    spec: OutputSpec,
    options: EverythingOptions,
    threads: int,
) -> _kernels_runs.MaskRuns:
    outer, inner = _levels(spec, options.stability_score_offset)
    least = options.stability_score_thresh
    return _kernels_runs.mask_runs(
        logits,
        **enlargement(placement, spec),
        threshold=spec.threshold,
        inner=inner,
        outer=outer,
        probability=spec.threshold_space == "probability",
        min_stability=least if least > 0.0 else -1.0,
        threads=threads,
    )


def _placed(counts: NDArray[np.uint32], crop: Crop, size: Size) -> NDArray[np.uint32]:
    if crop.size == size:
        return counts
    return _kernels_runs.place_runs(counts, crop.size, (crop.box[1], crop.box[0]), size)


def _levels(spec: OutputSpec, offset: float) -> tuple[float, float]:
    """The lower and the upper level of the stability score, in the space of the threshold."""
    if spec.threshold_space == "logits":
        return spec.threshold - offset, spec.threshold + offset
    if not 0.0 < spec.threshold < 1.0:
        return spec.threshold, spec.threshold
    middle = math.log(spec.threshold / (1.0 - spec.threshold))
    outer, inner = (1.0 / (1.0 + math.exp(-(middle + move))) for move in (-offset, offset))
    return min(outer, spec.threshold), max(inner, spec.threshold)


def _candidates(
    spec: OutputSpec, logits: NDArray[np.float32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and mask number of every mask that a prompt for several masks gives."""
    if spec.multimask == "candidates":
        chosen = np.array(spec.multimask_indices, np.int64)
        prompts = np.repeat(np.arange(len(scores)), len(chosen))
        return prompts, np.tile(chosen, len(scores))
    pairs = [
        (prompt, mask)
        for prompt in range(len(scores))
        for mask in mask_indices(spec, scores[prompt], logits[prompt], multimask=True)
    ]
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]
