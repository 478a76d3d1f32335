"""The picture a person checks: the image with masks, contours, prompts and scores on it.

Each mask is a translucent tint that lets grey detail through, inside an anti-aliased contour
with a dark halo. Line widths follow the size of the result, which is brought to 768..2048
pixels on its longer side. Colours can be told apart by colour-blind people.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging import _draw
from samrt.types import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PALETTE", "OverlayItem", "draw_masks", "draw_overlay"]

PALETTE = (
    (0, 176, 255),
    (255, 164, 0),
    (0, 204, 126),
    (255, 92, 44),
    (240, 116, 196),
    (250, 228, 40),
    (104, 120, 255),
    (222, 222, 222),
)
"""Sky, orange, green, vermilion, pink, yellow, blue, light grey; used in turn."""

_FILL_ALPHA = 0.27
_HALO_ALPHA = 0.7
_HALO = (12, 14, 18)
_MOST_LABELS = 24


@dataclass(frozen=True, slots=True, eq=False)
class OverlayItem:
    """One answer to draw.

    Attributes:
        mask: ``(H, W)`` bool.
        prompt: box and points to draw; ``None`` draws none.
        score: predicted IoU for the label; ``None`` writes none.
    """

    mask: NDArray[np.bool_]
    prompt: Prompt | None = None
    score: float | None = None


def draw_overlay(
    image: NDArray[np.uint8],
    items: Sequence[OverlayItem],
    *,
    min_side: int = 768,
    max_side: int = 2048,
) -> Image:
    """Draw masks and prompts over an image.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8, RGB.
        items: what to draw; later ones lie above earlier ones.
        min_side: a picture whose longer side is shorter is enlarged to it.
        max_side: a picture whose longer side is longer is shrunk to it.

    Returns:
        A Pillow image of mode RGB.

    Raises:
        ImageError: the image is no uint8 picture or a mask has another size.
    """
    from PIL import Image as PillowImage

    canvas, scale = _canvas(image, min_side, max_side)
    unit = max(canvas.shape[:2]) / 1000.0
    for item in items:
        _check_mask(item.mask, image)
    for index, item in enumerate(items):
        _draw_mask(canvas, item.mask, scale, PALETTE[index % len(PALETTE)], unit)
    for index, item in enumerate(items):
        if item.prompt is not None:
            _draw_prompt(canvas, item.prompt, scale, PALETTE[index % len(PALETTE)], unit)
    picture = PillowImage.fromarray(canvas)
    if len(items) <= _MOST_LABELS:
        _write_scores(picture, items, scale, unit)
    return picture


def draw_masks(
    image: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    colours: Sequence[tuple[int, int, int]],
    *,
    min_side: int = 768,
    max_side: int = 2048,
) -> Image:
    """Draw many masks over an image, one after the other: only one need exist at a time.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8, RGB.
        masks: ``(H, W)`` bool each; later ones lie above earlier ones.
        colours: RGB, one for each mask.
        min_side: see :func:`draw_overlay`.
        max_side: see :func:`draw_overlay`.

    Returns:
        A Pillow image of mode RGB.

    Raises:
        ImageError: the image is no uint8 picture or a mask has another size.
    """
    from PIL import Image as PillowImage

    canvas, scale = _canvas(image, min_side, max_side)
    unit = max(canvas.shape[:2]) / 1000.0
    for mask, colour in zip(masks, colours, strict=True):
        _check_mask(mask, image)
        _draw_mask(canvas, mask, scale, colour, unit)
    return PillowImage.fromarray(canvas)


def _canvas(
    image: NDArray[np.uint8], min_side: int, max_side: int
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The image as RGB at the size to draw at, and the factors along x and y."""
    from PIL import Image as PillowImage

    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ImageError(f"overlay needs a uint8 image, got {image.dtype} of shape {image.shape}")
    height, width = image.shape[:2]
    longest = max(height, width)
    factor = min(max(1.0, min_side / longest), max_side / longest)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = PillowImage.fromarray(image).convert("RGB")
    if size != (width, height):
        picture = picture.resize(size, PillowImage.Resampling.BICUBIC)
    return np.array(picture), (size[0] / width, size[1] / height)


def _check_mask(mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        raise ImageError(f"mask has shape {mask.shape}, the image ({height}, {width})")


def _draw_mask(
    canvas: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    unit: float,
) -> None:
    """Tint the inside, then draw the contour with its halo; only the mask's part is touched."""
    line = max(2.0, 2.7 * unit)
    region = _region(mask, scale, canvas.shape, margin=round(3 * line) + 4)
    if region is None:
        return
    rows, cols = region
    cover = _resample(mask, scale, rows, cols)
    part = canvas[rows, cols].astype(np.float32)
    _draw.blend(part, colour, _FILL_ALPHA * cover)
    inside = cover >= (0.5 if scale[0] >= 1.0 else 0.35)
    # Vessels and other thin things get thinner lines, or nothing else would be seen of them.
    line = min(line, max(1.1, 0.22 * _thickness(inside)))
    halo = 1.9 * line + 0.6
    distance = _draw.edge_distance(inside, halo / 2 + 2.0, smooth=0.45 * line)
    _draw.blend(part, _HALO, _HALO_ALPHA * _draw.stroke(distance, halo))
    _draw.blend(part, colour, _draw.stroke(distance, line))
    canvas[rows, cols] = np.rint(part).astype(np.uint8)


def _thickness(inside: NDArray[np.bool_]) -> float:
    """Twice the area over the length of the outline: the radius of a disc, the width of a tube."""
    steps = int(np.count_nonzero(inside[1:] != inside[:-1]))
    steps += int(np.count_nonzero(inside[:, 1:] != inside[:, :-1]))
    # An outline drawn along pixel edges is 4 / pi times as long as the smooth one on average.
    return 2.0 * int(np.count_nonzero(inside)) / max(1.0, steps * math.pi / 4)


def _region(
    mask: NDArray[np.bool_], scale: tuple[float, float], shape: tuple[int, ...], margin: int
) -> tuple[slice, slice] | None:
    """Rows and columns of the canvas that the mask touches, widened by ``margin``."""
    ys = np.flatnonzero(mask.any(axis=1))
    if not ys.size:
        return None
    xs = np.flatnonzero(mask.any(axis=0))
    spans = []
    for found, factor, limit in ((ys, scale[1], shape[0]), (xs, scale[0], shape[1])):
        low = int(found[0] * factor) - margin
        high = int((found[-1] + 1) * factor) + margin + 1
        spans.append(slice(max(low, 0), min(high, limit)))
    return spans[0], spans[1]


def _resample(
    mask: NDArray[np.bool_], scale: tuple[float, float], rows: slice, cols: slice
) -> NDArray[np.float32]:
    """Share of each canvas pixel that the mask covers, float32 0..1.

    An enlarged mask loses the steps of its pixels, unless that would change its area by more
    than 3 %, as it would with thin things.
    """
    from PIL import Image as PillowImage
    from PIL import ImageFilter

    height, width = mask.shape
    box = (
        cols.start / scale[0],
        rows.start / scale[1],
        min(cols.stop / scale[0], width),
        min(rows.stop / scale[1], height),
    )
    size = (cols.stop - cols.start, rows.stop - rows.start)
    source = PillowImage.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    soft = source.resize(size, PillowImage.Resampling.BILINEAR, box=box)
    cover: NDArray[np.float32] = np.asarray(soft, dtype=np.float32) / np.float32(255.0)
    if scale[0] < 1.3:
        return cover
    blurred = np.asarray(soft.filter(ImageFilter.GaussianBlur(0.9 * scale[0])), dtype=np.float32)
    ramp = (blurred / np.float32(255.0) - np.float32(0.5)) * np.float32(2.0 * scale[0])
    smooth: NDArray[np.float32] = np.clip(ramp + np.float32(0.5), 0.0, 1.0)
    true = float(cover.sum())
    return smooth if abs(float(smooth.sum()) - true) <= 0.03 * true else cover


def _draw_prompt(
    canvas: NDArray[np.uint8],
    prompt: Prompt,
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    unit: float,
) -> None:
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        corners = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
        _draw.dashed_box(canvas, corners, _lighter(colour), unit)
    if prompt.point_coords is not None and prompt.point_labels is not None:
        for (x, y), label in zip(prompt.point_coords, prompt.point_labels, strict=True):
            centre = ((x + 0.5) * scale[0], (y + 0.5) * scale[1])
            _draw.marker(canvas, centre, positive=bool(label == 1), radius=max(8.5, 11.5 * unit))


def _lighter(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    r, g, b = ((value + 255) // 2 for value in colour)
    return r, g, b


def _write_scores(
    picture: Image, items: Sequence[OverlayItem], scale: tuple[float, float], unit: float
) -> None:
    """Small score plates: at the prompt's box where there is one, else at the mask."""
    for index, item in enumerate(items):
        if item.score is None:
            continue
        text = f"{item.score:.2f}" if len(items) == 1 else f"{index}: {item.score:.2f}"
        anchor = _anchor(item)
        if anchor is not None:
            place = (anchor[0] * scale[0], anchor[1] * scale[1])
            _draw.plate(picture, place, text, _lighter(PALETTE[index % len(PALETTE)]), unit)


def _anchor(item: OverlayItem) -> tuple[float, float] | None:
    """Top-left corner of the prompt's box, else of the mask, in image pixels."""
    if item.prompt is not None and item.prompt.box is not None:
        return item.prompt.box[0], item.prompt.box[1]
    ys = np.flatnonzero(item.mask.any(axis=1))
    if not ys.size:
        return None
    return float(np.flatnonzero(item.mask.any(axis=0))[0]), float(ys[0])
