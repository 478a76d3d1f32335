"""The masks that everything mode has found: run lengths and figures, no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels
from samrt.types import Size

__all__ = ["Findings", "Masks", "join"]

Indices = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Masks of an image, as columns of equal length.

    Attributes:
        counts: run lengths ``(K,)`` uint32 of each mask in the image, COCO's.
        boxes: ``(N, 4)`` int64 XYXY in pixels of the image, ``x1`` and ``y1`` the last pixel.
        scores: ``(N,)`` float32 predicted IoU.
        stability: ``(N,)`` float32.
        points: ``(N, 2)`` float64, the point ``(x, y)`` that was asked, in pixels of the image.
        crops: ``(N, 4)`` int64 XYXY of the crop, far edges exclusive.
    """

    counts: list[NDArray[np.uint32]]
    boxes: NDArray[np.int64]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    points: NDArray[np.float64]
    crops: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def none(cls) -> Masks:
        """No masks."""
        boxes, scores = np.zeros((0, 4), np.int64), np.zeros(0, np.float32)
        return cls([], boxes, scores, scores, np.zeros((0, 2)), boxes)

    def take(self, wanted: Indices) -> Masks:
        """The masks of these indices, or where this is true."""
        order = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted
        return Masks(
            [self.counts[index] for index in order],
            self.boxes[order],
            self.scores[order],
            self.stability[order],
            self.points[order],
            self.crops[order],
        )


def join(parts: list[Masks]) -> Masks:
    """All masks of several tables, in order."""
    if not parts:
        return Masks.none()
    return Masks(
        [counts for part in parts for counts in part.counts],
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.stability for part in parts]),
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.crops for part in parts]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What one image gave.

    Attributes:
        masks: the masks.
        size: ``(H, W)`` of the image.
        timings_ms: time in ``encode``, ``decode`` (prompts to low-resolution masks), ``masks``
            (full size, figures, run lengths) and ``filter``, in milliseconds.
        prompts: number of points that were asked.
        warnings: remarks about the image and the model.
    """

    masks: Masks
    size: Size
    timings_ms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    prompts: int = 0
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.masks)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """One mask as ``(H, W)`` bool."""
        return _kernels.rle_decode(self.masks.counts[index], self.size)

    def area(self, index: int) -> int:
        """Pixels of one mask."""
        return int(self.masks.counts[index][1::2].sum(dtype=np.uint64))

    def by_area(self) -> list[int]:
        """Indices of the masks, largest first; for drawing, so that small ones stay visible."""
        return sorted(range(len(self)), key=self.area, reverse=True)

    def records(self, output_mode: str) -> Iterator[dict[str, Any]]:
        """The masks in SAM's form, see :meth:`samrt.AutomaticMaskGenerator.generate`."""
        masks = self.masks
        for index in range(len(masks)):
            x0, y0, x1, y1 = (int(v) for v in masks.boxes[index])
            a0, b0, a1, b1 = (int(v) for v in masks.crops[index])
            yield {
                "segmentation": self._segmentation(index, output_mode),
                "area": self.area(index),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "predicted_iou": float(masks.scores[index]),
                "point_coords": [[float(v) for v in masks.points[index]]],
                "stability_score": float(masks.stability[index]),
                "crop_box": [a0, b0, a1 - a0, b1 - b0],
            }

    def _segmentation(self, index: int, output_mode: str) -> Any:
        if output_mode == "binary_mask":
            return self.mask(index)
        counts = self.masks.counts[index]
        if output_mode == "coco_rle":
            text = _kernels.rle_to_string(counts).decode("ascii")
            return {"size": list(self.size), "counts": text}
        return {"size": list(self.size), "counts": counts.tolist()}
