"""Strategy S1: everything mode, its masks matched to the targets by overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.evaluation.metrics import dice
from samrt.predictor import Predictor
from samrt.types import ImageEmbedding

__all__ = ["Generator", "Match", "make_generator", "match_targets"]

Mask = NDArray[np.bool_]


class Generator(Protocol):
    """What a mask generator with the interface of SAM's own offers."""

    def generate(self, image: ImageEmbedding) -> Sequence[Any]:
        """Records with ``segmentation`` and ``predicted_iou`` for an encoded image."""


@dataclass(slots=True)
class Match:
    """What everything mode has for one target.

    Attributes:
        masks: number of masks found in the image.
        oracle: index and mask of the highest Dice.
        deployable: index and mask of the highest predicted IoU in the image; it is the same for
            all targets of an image, since nothing in this mode says which one is meant.
        score: predicted IoU of the latter.
        generate_ms: time for the image, its encoding left out.
    """

    masks: int
    oracle: tuple[int, Mask]
    deployable: tuple[int, Mask]
    score: float | None
    generate_ms: float


def make_generator(engine: Predictor) -> Generator:
    """SAM's automatic mask generator with its defaults (32 x 32 points) on an engine.

    Raises:
        OptionError: this version of samrt has none.
    """
    import samrt

    if "AutomaticMaskGenerator" not in samrt.__all__:
        raise OptionError(
            "S1 (everything mode) is not available: this samrt has no AutomaticMaskGenerator, "
            "leave S1 out of --strategies"
        )
    generator: Generator = samrt.AutomaticMaskGenerator(engine, output_mode="coco_rle")
    return generator


def match_targets(
    generator: Generator, image: ImageEmbedding, truths: Sequence[Mask]
) -> list[Match]:
    """Run everything mode on an image and find what fits each target best.

    Args:
        generator: the mask generator.
        image: the encoded image.
        truths: ``(H, W)`` bool each.
    """
    start = perf_counter()
    records = generator.generate(image)
    spent = (perf_counter() - start) * 1000.0
    empty = np.zeros(image.original_size, np.bool_)
    best = [(-1, -1.0, empty)] * len(truths)
    chosen = (-1, empty)
    score: float | None = None
    for index, record in enumerate(records):
        mask = _mask_of(record["segmentation"], image.original_size)
        predicted = float(record["predicted_iou"])
        if score is None or predicted > score:
            chosen, score = (index, mask), predicted
        for number, truth in enumerate(truths):
            found = dice(mask, truth)
            if found > best[number][1]:
                best[number] = (index, found, mask)
    return [Match(len(records), (index, mask), chosen, score, spent) for index, _, mask in best]


def _mask_of(segmentation: Any, size: tuple[int, ...]) -> Mask:
    if isinstance(segmentation, dict):
        from samrt.imaging.rle import rle_to_mask

        return rle_to_mask(segmentation)
    mask = np.asarray(segmentation, dtype=np.bool_)
    if mask.shape != size:
        raise OptionError(f"everything mode gave a mask of {mask.shape} for an image of {size}")
    return mask
