"""Sizes and coordinates between the image and the model frame; NumPy only.

The image is ``(H, W)`` pixels, the model frame ``(S_h, S_w)``. With ``longest_side`` the image is
scaled by one factor so that it just fits and lies in the top-left corner; with ``stretch`` it
fills the frame. A coordinate ``x`` of the image becomes ``x * scale_x`` in the frame, as in the
original SAM (its decoder adds the half pixel itself).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.types import Box, Size

__all__ = ["Placement", "box_to_frame", "frame_warnings", "place", "points_to_frame"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in the model frame.

    Attributes:
        original_size: ``(H, W)`` of the image.
        input_size: ``(h, w)`` of the resized image, each at least 1 and at most the frame.
        frame_size: ``(S_h, S_w)``.
        scale: ``(sy, sx)`` model pixels per image pixel: ``input_size / original_size``.
    """

    original_size: Size
    input_size: Size
    frame_size: Size
    scale: tuple[float, float]


def place(original_size: Size, frame_size: Size, kind: str) -> Placement:
    """Work out the resized size and the scale.

    ``longest_side``: the factor is ``min(S_h / H, S_w / W)`` and each side becomes
    ``int(side * factor + 0.5)``, the rounding of SAM's ``ResizeLongestSide``; the scale of the
    coordinates is the quotient of the sizes, as there. Sides of very elongated images that would
    round to 0 become 1.

    Raises:
        OptionError: unknown ``kind``.
    """
    height, width = original_size
    if kind == "stretch":
        resized = frame_size
    elif kind == "longest_side":
        factor = _factor(original_size, frame_size)
        resized = (
            min(max(int(height * factor + 0.5), 1), frame_size[0]),
            min(max(int(width * factor + 0.5), 1), frame_size[1]),
        )
    else:
        raise OptionError(f"resize kind must be 'longest_side' or 'stretch', got {kind!r}")
    scale = (resized[0] / height, resized[1] / width)
    return Placement(original_size, resized, frame_size, scale)


def frame_warnings(placement: Placement, cropped_from: Size | None) -> tuple[str, ...]:
    """A remark if a cropped frame makes the image smaller than the model's own frame would."""
    if cropped_from is None:
        return ()
    own = place(placement.original_size, cropped_from, "longest_side")
    if own.input_size == placement.input_size:
        return ()
    (h, w), (rh, rw), (oh, ow) = placement.original_size, placement.input_size, own.input_size
    frame = placement.frame_size
    return (
        f"this model encodes only {frame[0]}x{frame[1]} of its frame of {cropped_from[0]}x"
        f"{cropped_from[1]}: the image of {h}x{w} was resized to {rh}x{rw}, where the exact model "
        f"has {oh}x{ow}; use a model exported without --crop-padding, or for this shape",
    )


def points_to_frame(coords: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
    """Scale ``(P, 2)`` points ``(x, y)`` from image pixels to model-frame pixels, float64."""
    factors = np.array([scale[1], scale[0]], np.float64)
    scaled: NDArray[np.float64] = np.asarray(coords, np.float64) * factors
    return scaled


def box_to_frame(box: Box, placement: Placement, transform: str) -> NDArray[np.float64]:
    """Corners of a box in model-frame pixels, float64 ``(2, 2)``: top-left, bottom-right.

    ``transform``: ``scale`` multiplies by the quotients of the sizes, as for points.
    ``truncate`` then drops the fractions, for models that were trained with whole-numbered
    boxes. ``truncate_longest`` multiplies both axes by the one factor of ``longest_side``,
    ``min(S_h / H, S_w / W)``, which the rounded sizes only come near to, and drops the fractions.

    Raises:
        OptionError: unknown ``transform``.
    """
    corners = np.array(box, np.float64).reshape(2, 2)
    if transform == "scale":
        return points_to_frame(corners, placement.scale)
    if transform == "truncate":
        return np.trunc(points_to_frame(corners, placement.scale))
    if transform == "truncate_longest":
        return np.trunc(corners * _factor(placement.original_size, placement.frame_size))
    raise OptionError(
        f"box transform must be 'scale', 'truncate' or 'truncate_longest', got {transform!r}"
    )


def _factor(size: Size, frame: Size) -> float:
    """The largest enlargement of ``size`` that fits into the frame."""
    return min(frame[0] / size[0], frame[1] / size[1])
