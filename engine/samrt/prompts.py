"""Checking of prompts against an image and a model, and their form as decoder input.

A point must lie on the image: ``0 <= x < W`` and ``0 <= y < H``. A box may touch the edges:
``0 <= x0 < x1 <= W`` and ``0 <= y0 < y1 <= H``. Labels in the decoder's input: 1 object, 0
background, 2 top-left and 3 bottom-right corner of a box, -1 padding without meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.errors import PromptError
from samrt.geometry import Placement, box_to_frame, points_to_frame
from samrt.manifest import PromptSpec
from samrt.types import Box, Prompt, Size

__all__ = ["DecoderInput", "check_prompt", "decoder_input", "make_prompt", "prompt_length"]

_PADDING = -1.0
_TOP_LEFT = 2.0
_BOTTOM_RIGHT = 3.0


def make_prompt(
    *,
    box: ArrayLike | None = None,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
    image_size: Size,
    low_res_size: Size | None = None,
    spec: PromptSpec | None = None,
) -> Prompt:
    """Build a prompt and check it against an image and, where given, a model.

    Args:
        box: ``(4,)`` XYXY in image pixels.
        point_coords: ``(P, 2)`` points ``(x, y)`` in image pixels.
        point_labels: ``(P,)`` of 1 (object) and 0 (background).
        mask_input: ``(h, w)`` or ``(1, h, w)`` float low-resolution logits.
        image_size: ``(H, W)`` of the image.
        low_res_size: ``(h, w)`` the model wants for ``mask_input``.
        spec: what the model takes.

    Raises:
        PromptError: malformed, outside the image, or not taken by the model.
    """
    prompt = Prompt(
        box=box,
        point_coords=point_coords,
        point_labels=point_labels,
        mask_input=mask_input,
    )
    check_prompt(prompt, image_size, low_res_size=low_res_size, spec=spec)
    return prompt


def check_prompt(
    prompt: Prompt,
    image_size: Size,
    *,
    low_res_size: Size | None = None,
    spec: PromptSpec | None = None,
) -> None:
    """Check a prompt against an image and, where given, a model; see :func:`make_prompt`."""
    if prompt.box is not None:
        _check_box(prompt.box, image_size)
    if prompt.point_coords is not None:
        _check_points(prompt.point_coords, image_size)
    mask = prompt.mask_input
    if mask is not None and low_res_size is not None and mask.shape != tuple(low_res_size):
        raise PromptError(
            f"mask_input has shape {mask.shape}, the model wants {tuple(low_res_size)}: "
            "pass Prediction.logits[i] of an earlier prediction with the same model"
        )
    if spec is not None:
        _check_supported(prompt, spec)


def _check_box(box: Box, image_size: Size) -> None:
    x0, y0, x1, y1 = box
    height, width = image_size
    text = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if x1 < x0 or y1 < y0:
        raise PromptError(f"{text} is inverted: give (x0, y0, x1, y1) with x0 < x1 and y0 < y1")
    if x1 == x0 or y1 == y0:
        raise PromptError(f"{text} is empty: x0 < x1 and y0 < y1 are needed")
    cut = (min(max(x0, 0), width), min(max(y0, 0), height), min(x1, width), min(y1, height))
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise PromptError(
            f"{text} lies outside the image of width {width} and height {height}: "
            "give pixels of the original image"
        )
    if cut != box:
        clipped = ", ".join(f"{value:g}" for value in cut)
        raise PromptError(
            f"{text} reaches beyond the image of width {width} and height {height}: "
            f"clip it to ({clipped})"
        )


def _check_points(coords: NDArray[np.float64], image_size: Size) -> None:
    height, width = image_size
    inside = (coords >= 0).all(axis=1) & (coords[:, 0] < width) & (coords[:, 1] < height)
    if not inside.all():
        index = int(np.flatnonzero(~inside)[0])
        x, y = coords[index]
        raise PromptError(
            f"point {index} ({x:g}, {y:g}) lies outside the image: "
            f"0 <= x < {width} and 0 <= y < {height} are needed, as (x, y)"
        )


def _check_supported(prompt: Prompt, spec: PromptSpec) -> None:
    coords, labels = prompt.point_coords, prompt.point_labels
    if not spec.takes_prompts and not prompt.is_empty:
        raise PromptError(
            "this model takes no prompts, it segments the whole image: "
            "call predict without arguments or decode with Prompt.empty()"
        )
    taken = [name for name in ("box", "points", "mask") if getattr(spec, name)]
    given = {
        "box": prompt.box is not None,
        "points": coords is not None,
        "mask": prompt.mask_input is not None,
    }
    for name, present in given.items():
        if present and not getattr(spec, name):
            noun = {"box": "boxes", "points": "points", "mask": "mask inputs"}[name]
            raise PromptError(f"this model does not take {noun}: it takes {' and '.join(taken)}")
    if spec.takes_prompts and prompt.is_empty:
        raise PromptError(f"empty prompt: this model takes {' and '.join(taken)}")
    rows = _own_rows(prompt)
    if spec.pad_to is not None and rows > spec.pad_to:
        raise PromptError(
            f"the prompt has {rows} rows, this model takes at most {spec.pad_to}: "
            "a point is one row, a box two"
        )
    if coords is None or labels is None:
        return
    if prompt.box is not None and not spec.box_and_points:
        raise PromptError("this model does not take a box together with points: give one of them")
    if not spec.negative_points and (labels == 0).any():
        raise PromptError("this model does not take background points: use labels of 1 only")
    if spec.max_points is not None and len(coords) > spec.max_points:
        raise PromptError(f"got {len(coords)} points, this model takes at most {spec.max_points}")


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """Prompts of one decoder call, in order.

    Attributes:
        point_coords: ``(N, P, 2)`` float32, ``(x, y)`` in model-frame pixels.
        point_labels: ``(N, P)`` float32, see the module's text.
        mask_input: ``(N, 1, h, w)`` float32, zeros where there is none.
        has_mask_input: ``(N,)`` float32, 1 where ``mask_input`` counts.
    """

    point_coords: NDArray[np.float32]
    point_labels: NDArray[np.float32]
    mask_input: NDArray[np.float32]
    has_mask_input: NDArray[np.float32]

    def feeds(self) -> dict[str, NDArray[Any]]:
        """Return the four arrays under the names of the decoder's inputs."""
        return {
            "point_coords": self.point_coords,
            "point_labels": self.point_labels,
            "mask_input": self.mask_input,
            "has_mask_input": self.has_mask_input,
        }


def decoder_input(
    prompts: Sequence[Prompt], placement: Placement, spec: PromptSpec, low_res_size: Size
) -> DecoderInput:
    """Write checked prompts as decoder input.

    Points come first, then the two corners of the box. A prompt without a box gets one padding
    point at (0, 0) with label -1 where the model was trained so (``padding_point``). All prompts
    are then filled up with such points to the same length, at least ``pad_to``.

    Args:
        prompts: at least one prompt.
        placement: where the image lies in the model frame.
        spec: how the model wants its prompts.
        low_res_size: ``(h, w)`` of a mask input.
    """
    rows = [_point_rows(prompt, placement, spec) for prompt in prompts]
    count = max(spec.pad_to or 1, *(len(row) for row in rows))
    table = np.zeros((len(rows), count, 3), np.float32)
    table[:, :, 2] = _PADDING
    for slot, row in zip(table, rows, strict=True):
        slot[: len(row)] = row
    masks = np.zeros((len(prompts), 1, *low_res_size), np.float32)
    has_mask = np.zeros(len(prompts), np.float32)
    for index, prompt in enumerate(prompts):
        if prompt.mask_input is not None:
            masks[index, 0] = prompt.mask_input
            has_mask[index] = 1.0
    return DecoderInput(
        point_coords=np.ascontiguousarray(table[:, :, :2]),
        point_labels=np.ascontiguousarray(table[:, :, 2]),
        mask_input=masks,
        has_mask_input=has_mask,
    )


def prompt_length(prompt: Prompt, spec: PromptSpec) -> int:
    """Rows that a prompt takes in a decoder call of its own, at least 1."""
    own = _own_rows(prompt) + (0 if prompt.box is not None else int(spec.padding_point))
    return max(own, spec.pad_to or 1)


def _own_rows(prompt: Prompt) -> int:
    """Points, and two for a box."""
    points = 0 if prompt.point_coords is None else len(prompt.point_coords)
    return points + (0 if prompt.box is None else 2)


def _point_rows(prompt: Prompt, placement: Placement, spec: PromptSpec) -> NDArray[np.float64]:
    """Rows ``(x, y, label)`` of one prompt in the model frame."""
    parts: list[NDArray[np.float64]] = []
    if prompt.point_coords is not None and prompt.point_labels is not None:
        coords = points_to_frame(prompt.point_coords, placement.scale)
        parts.append(np.column_stack([coords, prompt.point_labels]))
    if prompt.box is not None:
        corners = box_to_frame(prompt.box, placement, spec.box_transform)
        parts.append(np.column_stack([corners, [_TOP_LEFT, _BOTTOM_RIGHT]]))
    elif spec.padding_point:
        parts.append(np.array([[0.0, 0.0, _PADDING]]))
    return np.concatenate(parts) if parts else np.zeros((0, 3))
