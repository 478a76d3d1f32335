"""Zoom: small structures are segmented in a part of the image that is encoded on its own.

A model sees an image at the size of its frame. What is small in a large image is then a few
pixels, and a mask of a quarter of the frame's size cannot follow its outline. With zoom a window
around the box is cut from the original pixels, encoded, asked, and the mask is put back.

The window is a square around the middle of the box, ``factor`` times as long as the longer side
of the box and at least ``least_side`` pixels. It is moved into the image where it reaches beyond
it, cut where the image is shorter, and made larger where points of the prompt lie outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError, PromptError
from samrt.postprocess import Multimask
from samrt.predictor import Predictor
from samrt.preprocess import (
    DEFAULT_MAX_PIXELS,
    ImageSource,
    ModelImage,
    Window,
    cut,
    load_image,
)
from samrt.prompts import check_prompt
from samrt.types import Box, ImageEmbedding, Prediction, Prompt, Size

__all__ = ["ZOOM_MODES", "Zoom", "ZoomRule", "predict_zoomed", "zoom_window"]

Zoom = Literal["off", "auto", "on"]
ZOOM_MODES: tuple[Zoom, ...] = ("off", "auto", "on")
PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoomRule:
    """How large the window is, and when ``auto`` zooms.

    The size is the best, by a little, of those that ``benchmarks/zoom.py --rules`` compares with
    ``tiny``: from narrower windows the surroundings are missing. ``auto`` is a choice and no
    default, because the gain differs by kind of image: see ``benchmarks/results/zoom.json``.

    Attributes:
        factor: side of the window over the longer side of the box, more than 1.
        least_side: shortest side of the window in pixels.
        small_share: ``auto`` zooms where the box covers less than this share of the image.
        least_gain: ``auto`` zooms only where the window is shown at least this much larger.

    Raises:
        OptionError: a value out of range.
    """

    factor: float = 3.0
    least_side: int = 160
    small_share: float = 0.01
    least_gain: float = 1.5

    def __post_init__(self) -> None:
        if not (np.isfinite(self.factor) and self.factor > 1.0):
            raise OptionError(f"factor must be more than 1, got {self.factor}")
        if self.least_side < 8:
            raise OptionError(f"least_side must be at least 8 pixels, got {self.least_side}")
        if not 0.0 <= self.small_share <= 1.0:
            raise OptionError(f"small_share must be between 0 and 1, got {self.small_share}")
        if not (np.isfinite(self.least_gain) and self.least_gain >= 1.0):
            raise OptionError(f"least_gain must be at least 1, got {self.least_gain}")


def zoom_window(prompt: Prompt, size: Size, rule: ZoomRule) -> PixelBox:
    """The part ``(x0, y0, x1, y1)`` of an image ``(H, W)`` to encode; far edges exclusive.

    It holds the box and every point of the prompt, which must lie in the image.

    Raises:
        PromptError: the prompt has no box.
    """
    if prompt.box is None:
        raise PromptError("zoom needs a box, which says where to look and how large it is")
    x0, y0, x1, y1 = prompt.box
    side = max(rule.factor * max(x1 - x0, y1 - y0), float(rule.least_side))
    left, right = _span(x0, x1, side, size[1])
    top, bottom = _span(y0, y1, side, size[0])
    if prompt.point_coords is not None:
        low, high = prompt.point_coords.min(axis=0), prompt.point_coords.max(axis=0)
        left, right = min(left, int(low[0])), max(right, int(high[0]) + 1)
        top, bottom = min(top, int(low[1])), max(bottom, int(high[1]) + 1)
    return (left, top, right, bottom)


def _span(near: float, far: float, side: float, limit: int) -> tuple[int, int]:
    """Whole pixels ``[low, high)`` of this length around an edge of the box, inside the image."""
    length = min(int(np.ceil(side)), limit)
    low = min(max(int(np.floor((near + far - length) / 2 + 0.5)), 0), limit - length)
    return min(low, int(np.floor(near))), max(low + length, int(np.ceil(far)))


def is_small(prompt: Prompt, size: Size, rule: ZoomRule) -> bool:
    """Whether ``auto`` zooms: a small box, no earlier mask, and a window that is really larger."""
    if prompt.box is None or prompt.mask_input is not None:
        return False
    x0, y0, x1, y1 = prompt.box
    if (x1 - x0) * (y1 - y0) >= rule.small_share * size[0] * size[1]:
        return False
    window = zoom_window(prompt, size, rule)
    longest = max(window[2] - window[0], window[3] - window[1])
    return max(size) >= rule.least_gain * longest


def predict_zoomed(
    predictor: Predictor,
    image: ImageSource,
    prompts: Prompt | Sequence[Prompt],
    *,
    zoom: Zoom = "auto",
    rule: ZoomRule | None = None,
    multimask_output: Multimask = False,
    embedding: ImageEmbedding | None = None,
    window: Window | None = None,
    image_format: str = "RGB",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    refine_steps: int = 0,
) -> list[Prediction]:
    """Answer prompts, each in a part of the image around its box where that is wanted.

    Every zoomed prompt costs a run of the encoder.

    Args:
        predictor: from :func:`samrt.load`.
        image: see :meth:`samrt.Predictor.encode`.
        prompts: one or many.
        zoom: ``"on"`` zooms at every prompt, ``"auto"`` at those whose box is small, see
            :class:`ZoomRule`; ``"off"`` never.
        rule: size of the window; ``None``: the default rule.
        multimask_output: see :meth:`samrt.Predictor.decode`.
        embedding: of the whole image, if there is one already, for prompts that do not zoom.
        window: see ``encode``.
        image_format: see ``encode``.
        max_pixels: see ``encode``.
        refine_steps: see ``decode``.

    Returns:
        One prediction per prompt, in the frame of the image. ``Prediction.zoom``, where it is set,
        is the part that was encoded: the mask is empty outside of it, and ``logits`` belong to it
        and not to the image, so they must not be given back as ``mask_input``.

    Raises:
        OptionError: an unknown ``zoom``, bad ``refine_steps``.
        PromptError: a bad prompt, or with ``"on"`` one without a box or with ``mask_input``.
        ImageError: see ``encode``; or ``embedding`` is of an image of another size.
        BundleError: ``embedding`` belongs to another model.
        BackendError: the runtime failed or computed NaN.
    """
    if zoom not in ZOOM_MODES:
        raise OptionError(f"zoom must be one of {', '.join(ZOOM_MODES)}, got {zoom!r}")
    wanted = [prompts] if isinstance(prompts, Prompt) else list(prompts)
    chosen = ZoomRule() if rule is None else rule
    source = load_image(
        image,
        window=window,
        image_format=image_format,
        max_pixels=max_pixels,
        threads=predictor.info.threads,
    )
    zoomed = _zoomed(predictor, wanted, source.size, zoom, chosen)
    answers: dict[int, Prediction] = {}
    plain = [index for index in range(len(wanted)) if not zoomed[index]]
    if plain:
        whole = predictor.encode_loaded(source) if embedding is None else embedding
        if whole.original_size != source.size:
            (h, w), (height, width) = whole.original_size, source.size
            raise ImageError(
                f"the embedding is of an image of {h} x {w}, this one has {height} x {width} "
                "(rows x columns): encode this one"
            )
        found = predictor.decode(
            whole,
            [wanted[index] for index in plain],
            multimask_output=multimask_output,
            refine_steps=refine_steps,
        )
        answers.update(zip(plain, found, strict=True))
    for index, prompt in enumerate(wanted):
        if zoomed[index]:
            part = zoom_window(prompt, source.size, chosen)
            answers[index] = _answer(
                predictor, source, prompt, part, multimask_output, refine_steps
            )
    return [answers[index] for index in range(len(wanted))]


def _zoomed(
    predictor: Predictor, prompts: Sequence[Prompt], size: Size, zoom: Zoom, rule: ZoomRule
) -> list[bool]:
    """Which prompts zoom; all are checked first."""
    manifest = predictor.manifest
    for number, prompt in enumerate(prompts):
        try:
            check_prompt(
                prompt, size, low_res_size=manifest.output.low_res_size, spec=manifest.prompts
            )
            if zoom == "on" and prompt.mask_input is not None:
                raise PromptError(
                    "zoom does not go with mask_input, which belongs to the whole image: "
                    "leave one of them out"
                )
            if zoom == "on":
                zoom_window(prompt, size, rule)
        except PromptError as exc:
            raise exc if len(prompts) == 1 else PromptError(f"prompt {number}: {exc}") from None
    if zoom == "auto":
        return [is_small(prompt, size, rule) for prompt in prompts]
    return [zoom == "on"] * len(prompts)


def _answer(
    predictor: Predictor,
    source: ModelImage,
    prompt: Prompt,
    part: PixelBox,
    multimask: Multimask,
    refine_steps: int,
) -> Prediction:
    """Encode the part, ask, and put the answer back into the frame of the image."""
    embedding = predictor.encode_loaded(cut(source, part))
    found = predictor.decode(
        embedding, _moved(prompt, part), multimask_output=multimask, refine_steps=refine_steps
    )[0]
    start = perf_counter()
    x0, y0, x1, y1 = part
    masks = np.zeros((len(found.masks), *source.size), np.bool_)
    masks[:, y0:y1, x0:x1] = found.masks
    shift = np.array([x0, y0, x0, y0], np.float64)
    boxes = np.where(found.areas_px[:, None] > 0, found.boxes + shift, found.boxes)
    remarks = [
        f"mask {index} reaches the edge of the part that zoom has cut out and may go on beyond it"
        for index, mask in enumerate(found.masks)
        if _is_cut(mask, part, source.size)
    ]
    spent = (perf_counter() - start) * 1000.0
    timings = replace(found.timings, postprocess_ms=(found.timings.postprocess_ms or 0.0) + spent)
    return replace(
        found,
        masks=masks,
        boxes=boxes,
        prompt=prompt,
        timings=timings,
        warnings=(*found.warnings, *remarks),
        zoom=part,
    )


def _moved(prompt: Prompt, part: PixelBox) -> Prompt:
    """The same prompt in the frame of the part."""
    x0, y0, x1, y1 = part
    box: Box | None = None
    if prompt.box is not None:
        a, b, c, d = prompt.box
        box = (a - x0, b - y0, min(c - x0, float(x1 - x0)), min(d - y0, float(y1 - y0)))
    coords = None if prompt.point_coords is None else prompt.point_coords - np.array([x0, y0])
    return Prompt(box=box, point_coords=coords, point_labels=prompt.point_labels)


def _is_cut(mask: NDArray[np.bool_], part: PixelBox, size: Size) -> bool:
    """Whether a mask touches an edge of the part that is no edge of the image."""
    x0, y0, x1, y1 = part
    return bool(
        (x0 > 0 and mask[:, 0].any())
        or (y0 > 0 and mask[0].any())
        or (x1 < size[1] and mask[:, -1].any())
        or (y1 < size[0] and mask[-1].any())
    )
