"""The parameters of everything mode, checked when they are set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.errors import OptionError
from samrt.everything.grid import layer_grids
from samrt.quoting import one_line

__all__ = ["OUTPUT_MODES", "EverythingOptions"]

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
MAX_POINTS_PER_SIDE = 1024
MAX_CROP_LAYERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EverythingOptions:
    """Parameters in the names and meanings of ``SamAutomaticMaskGenerator``.

    Attributes:
        points_per_side: points along each side of the grid, 1 to 1024; ``None`` with
            ``point_grids``.
        points_per_batch: prompts per decoder call. It bounds memory and does not change results.
        pred_iou_thresh: masks need a predicted IoU above this; 0 and less: no such filter.
        stability_score_thresh: masks need at least this stability; 0 and less: no such filter.
        stability_score_offset: how far the threshold of the logits is moved up and down to see
            how stable a mask is. Of models that threshold probabilities it is an offset of the
            logit of the threshold.
        box_nms_thresh: of two masks of one crop whose boxes have an IoU above this, only the one
            with the higher predicted IoU stays.
        crop_n_layers: layer ``i`` from 1 to this searches ``4 ** i`` crops as well, each encoded on
            its own; at most 5.
        crop_nms_thresh: like ``box_nms_thresh``, between crops; masks of smaller crops win.
        crop_overlap_ratio: overlap of the crops of layer 1 as a share of the image's shorter
            side, from 0, below 1; halved with each further layer.
        crop_n_points_downscale_factor: layer ``i`` has ``points_per_side`` divided by this to the
            power ``i`` points per side.
        point_grids: in place of ``points_per_side``, for the image and each layer an array
            ``(P, 2)`` of points ``(x, y)`` as shares of the width and height, 0 to 1.
        min_mask_region_area: holes and islands of fewer pixels are filled and removed, and boxes
            compared once more; 0: not at all.
        output_mode: form of a mask: ``"binary_mask"``, ``"uncompressed_rle"`` or ``"coco_rle"``.

    Raises:
        OptionError: a value out of range, or both or neither of ``points_per_side`` and
            ``point_grids``.
    """

    points_per_side: int | None
    points_per_batch: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    point_grids: Sequence[ArrayLike] | None
    min_mask_region_area: float
    output_mode: str
    grids: tuple[NDArray[np.float64], ...] = field(init=False, repr=False)
    """The points of the image and of each layer's crops, as shares."""

    def __post_init__(self) -> None:
        _whole("points_per_batch", self.points_per_batch, 1)
        _whole("crop_n_layers", self.crop_n_layers, 0, MAX_CROP_LAYERS)
        _whole("crop_n_points_downscale_factor", self.crop_n_points_downscale_factor, 1)
        for name in (
            "pred_iou_thresh",
            "stability_score_thresh",
            "box_nms_thresh",
            "crop_nms_thresh",
        ):
            _number(name, getattr(self, name), -math.inf)
        _number("stability_score_offset", self.stability_score_offset, 0.0)
        _number("min_mask_region_area", self.min_mask_region_area, 0.0)
        if _number("crop_overlap_ratio", self.crop_overlap_ratio, 0.0) >= 1.0:
            raise OptionError(f"crop_overlap_ratio must be below 1, got {self.crop_overlap_ratio}")
        if self.output_mode not in OUTPUT_MODES:
            raise OptionError(
                f"output_mode must be one of {', '.join(OUTPUT_MODES)}, got {self.output_mode!r}"
            )
        object.__setattr__(self, "grids", self._grids())

    def _grids(self) -> tuple[NDArray[np.float64], ...]:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise OptionError(
                "give exactly one of points_per_side and point_grids: with point_grids, pass "
                "points_per_side=None"
            )
        if self.point_grids is None:
            side = _whole("points_per_side", self.points_per_side, 1, MAX_POINTS_PER_SIDE)
            return layer_grids(side, self.crop_n_layers, self.crop_n_points_downscale_factor)
        grids = tuple(_grid(grid, layer) for layer, grid in enumerate(self.point_grids))
        if len(grids) <= self.crop_n_layers:
            raise OptionError(
                f"got {len(grids)} point_grids, crop_n_layers={self.crop_n_layers} needs "
                f"{self.crop_n_layers + 1}: one for the image and one for each layer"
            )
        return grids


def _whole(name: str, value: object, lowest: int, highest: int | None = None) -> int:
    span = f"from {lowest}" if highest is None else f"from {lowest} to {highest}"
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not good or int(value) < lowest or (highest is not None and int(value) > highest):  # type: ignore[call-overload]
        raise OptionError(f"{name} must be a whole number {span}, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _number(name: str, value: object, lowest: float) -> float:
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    number = float(value) if good else math.nan  # type: ignore[arg-type]
    if not math.isfinite(number) or number < lowest:
        limit = "" if lowest == -math.inf else f" from {lowest:g}"
        raise OptionError(f"{name} must be a finite number{limit}, got {value!r}")
    return number


def _grid(grid: ArrayLike, layer: int) -> NDArray[np.float64]:
    try:
        points = np.array(grid, np.float64)
    except (TypeError, ValueError) as exc:
        reason = one_line(exc)
        raise OptionError(f"point_grids[{layer}] is no array of numbers: {reason}") from None
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise OptionError(f"point_grids[{layer}] must have shape (P, 2), got {points.shape}")
    if not ((points >= 0.0) & (points <= 1.0)).all():
        raise OptionError(f"point_grids[{layer}] must lie between 0 and 1, as shares of the sides")
    points.flags.writeable = False
    return points
