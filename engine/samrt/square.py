"""Pictures whose pixels are not square, shown to the model in their true proportions.

Models are trained on pictures with square pixels and see whatever they get as such: a coronal
slice through thick slices looks squashed. Here rows or columns are multiplied by a whole factor
before the picture is encoded, linearly between pixel centres, and masks are brought back by
majority, as :mod:`samrt.imaging.volumes.segment` does for volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import PromptError
from samrt.imaging.volumes.segment import Stretch, stretch_for
from samrt.postprocess import Multimask
from samrt.predictor import Predictor
from samrt.preprocess import DEFAULT_MAX_PIXELS
from samrt.prompts import check_prompt
from samrt.types import Prediction, Prompt, Size

__all__ = ["predict_square"]


def predict_square(
    predictor: Predictor,
    image: NDArray[Any],
    prompts: Prompt | Sequence[Prompt],
    *,
    spacing: tuple[float, float],
    window: tuple[float, float] | None = None,
    multimask_output: Multimask = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    refine_steps: int = 0,
) -> list[Prediction]:
    """Answer prompts about a picture that is stretched to square pixels for the model.

    Args:
        predictor: from :func:`samrt.load`.
        image: ``(H, W)`` values, or ``(H, W, 3)`` uint8 RGB.
        prompts: one or many, in pixels of the picture as it is stored; without ``mask_input``.
        spacing: mm between rows and between columns.
        window: values shown black and white; ``None`` for uint8 grey levels.
        multimask_output: see :meth:`samrt.Predictor.decode`.
        max_pixels: largest picture accepted, once it is stretched.
        refine_steps: see :meth:`samrt.Predictor.decode`.

    Returns:
        One prediction per prompt with masks, areas and boxes in pixels of the picture as it is
        stored. ``logits`` belong to the stretched picture and must not be given back as
        ``mask_input`` where the factors are not 1.

    Raises:
        PromptError: a bad prompt, or one with ``mask_input``.
        ImageError: see :meth:`samrt.Predictor.encode`.
        OptionError: a spacing that is not positive and finite, bad ``refine_steps``.
        BackendError: the runtime failed or computed NaN.
    """
    wanted = [prompts] if isinstance(prompts, Prompt) else list(prompts)
    stretch = stretch_for(*spacing)
    size = (image.shape[0], image.shape[1])
    manifest = predictor.manifest
    for prompt in wanted:
        if prompt.mask_input is not None:
            raise PromptError(
                "square pixels do not go with mask_input, whose logits are of the picture as it "
                "is stored: leave one of them out"
            )
        check_prompt(prompt, size, low_res_size=manifest.output.low_res_size, spec=manifest.prompts)
    if stretch == Stretch():
        embedding = predictor.encode(image, window=window, max_pixels=max_pixels)
        return predictor.decode(
            embedding, wanted, multimask_output=multimask_output, refine_steps=refine_steps
        )
    shown = stretch.picture(image)
    if shown.ndim == 3:
        shown = np.rint(shown).astype(np.uint8)
    elif window is None:
        window = (0.0, 255.0)  # stretched grey levels are fractions
    embedding = predictor.encode(shown, window=window, max_pixels=max_pixels)
    asked = [_stretched(prompt, stretch, size) for prompt in wanted]
    found = predictor.decode(
        embedding, asked, multimask_output=multimask_output, refine_steps=refine_steps
    )
    return [_restored(one, prompt, stretch) for one, prompt in zip(found, wanted, strict=True)]


def _stretched(prompt: Prompt, stretch: Stretch, size: Size) -> Prompt:
    """The same prompt in pixels of the stretched picture."""
    coords = prompt.point_coords
    if coords is not None:
        # A point names a pixel by its index; the middle of the pixel stays the middle.
        factors = np.array([stretch.columns, stretch.rows], np.float64)
        last = factors * np.array([size[1], size[0]], np.float64) - 1.0
        coords = np.minimum((coords + 0.5) * factors - 0.5, last)
    box = None if prompt.box is None else stretch.box(prompt.box)
    return Prompt(box=box, point_coords=coords, point_labels=prompt.point_labels)


def _restored(found: Prediction, prompt: Prompt, stretch: Stretch) -> Prediction:
    """The answer on the pixels of the picture as it is stored."""
    masks = np.stack([stretch.restore_mask(mask) for mask in found.masks])
    boxes = np.zeros((len(masks), 4), np.float64)
    for row, mask in zip(boxes, masks, strict=True):
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if ys.size:
            row[:] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return replace(
        found,
        masks=masks,
        areas_px=np.count_nonzero(masks, axis=(1, 2)).astype(np.int64),
        boxes=boxes,
        prompt=prompt,
    )
