"""Small anti-aliased drawing tools on numpy canvases, for :mod:`samrt.imaging.overlay`.

A canvas is ``(h, w, 3)`` uint8; coordinates are canvas pixels with ``(0, 0)`` at the outer
corner of the first pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

_DARK: Colour = (12, 14, 18)
_WHITE: Colour = (255, 255, 255)
_POSITIVE: Colour = (0, 150, 90)
_NEGATIVE: Colour = (214, 40, 40)


def blend(part: NDArray[np.float32], colour: Colour, alpha: NDArray[np.float32]) -> None:
    """Mix ``colour`` into ``(h, w, 3)`` float32 in place, by ``(h, w)`` alpha 0..1."""
    part += alpha[:, :, None] * (np.asarray(colour, dtype=np.float32) - part)


def edge_distance(inside: NDArray[np.bool_], reach: float, smooth: float) -> NDArray[np.float32]:
    """Distance of each pixel to the outline of a region, in pixels, up to ``reach``.

    The Euclidean distances to the nearest pixel inside and outside are found by minima over rows,
    then columns; their signed difference crosses zero on the pixel edges. Blurring that (not its
    absolute value) rounds the steps of the pixel grid without moving straight edges.

    Args:
        inside: ``(h, w)`` bool; beyond the border counts as outside.
        reach: distances are cut at this, 1 to 14.
        smooth: standard deviation of the blur in pixels.
    """
    from PIL import Image as PillowImage
    from PIL import ImageFilter

    radius = int(min(max(np.ceil(reach), 1), 14))
    padded = np.pad(inside, radius)
    core = (slice(radius, -radius),) * 2
    to_outside = np.sqrt(_squared_distance(~padded, radius), dtype=np.float32)[core]
    to_inside = np.sqrt(_squared_distance(padded, radius), dtype=np.float32)[core]
    signed = np.where(inside, to_outside - np.float32(0.5), np.float32(0.5) - to_inside)
    gain = np.float32(127.0 / radius)
    coded = np.clip(np.rint(signed * gain) + 128, 1, 255).astype(np.uint8)
    blurred = PillowImage.fromarray(coded).filter(ImageFilter.GaussianBlur(smooth))
    distance: NDArray[np.float32] = np.abs(np.asarray(blurred, dtype=np.float32) - 128) / gain
    return distance


def _squared_distance(seeds: NDArray[np.bool_], radius: int) -> NDArray[np.uint8]:
    """Squared distance to the nearest seed, at most ``radius`` squared (so below 256)."""
    far = np.uint8(radius * radius)
    squared: NDArray[np.uint8] = np.where(seeds, np.uint8(0), far)
    for axis in (0, 1):
        nearest = squared.copy()
        length = squared.shape[axis]
        for step in range(1, min(radius, length)):
            low: list[slice] = [slice(None), slice(None)]
            high: list[slice] = [slice(None), slice(None)]
            low[axis], high[axis] = slice(0, length - step), slice(step, length)
            # far + step squared stays below 2 * 14 ** 2, so cut before adding to stay in a byte
            moved = np.minimum(squared, np.uint8(far - step * step)) + np.uint8(step * step)
            for target, origin in ((tuple(low), tuple(high)), (tuple(high), tuple(low))):
                np.minimum(nearest[target], moved[origin], out=nearest[target])
        squared = nearest
    return squared


def stroke(distance: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Coverage 0..1 of a line of ``width`` pixels around distance 0."""
    cover: NDArray[np.float32] = np.clip(np.float32(width / 2 + 0.5) - distance, 0.0, 1.0)
    return cover


def _fill(
    canvas: NDArray[np.uint8], box: tuple[float, float, float, float], colour: Colour, alpha: float
) -> None:
    """Blend a rectangle, given by rounded edges and cut to the canvas."""
    height, width = canvas.shape[:2]
    x0, x1 = (min(max(round(v), 0), width) for v in (box[0], box[2]))
    y0, y1 = (min(max(round(v), 0), height) for v in (box[1], box[3]))
    part = canvas[y0:y1, x0:x1].astype(np.float32)
    part += np.float32(alpha) * (np.asarray(colour, dtype=np.float32) - part)
    canvas[y0:y1, x0:x1] = np.rint(part).astype(np.uint8)


def dashed_box(
    canvas: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    colour: Colour,
    unit: float,
) -> None:
    """Draw a box as dashes on a dark band; ``unit`` is a thousandth of the longer side."""
    thick = max(1, round(2.0 * unit))
    rim = max(1, round(0.8 * unit))
    height, width = canvas.shape[:2]
    x0, x1 = (min(max(round(v), 0), width - thick) for v in (box[0], box[2] - thick))
    y0, y1 = (min(max(round(v), 0), height - thick) for v in (box[1], box[3] - thick))
    x1, y1 = max(x0, x1), max(y0, y1)
    dash = max(4.0, 9.0 * unit)
    _fill(canvas, (x0 - rim, y0 - rim, x1 + thick + rim, y0 + thick + rim), _DARK, 0.45)
    _fill(canvas, (x0 - rim, y1 - rim, x1 + thick + rim, y1 + thick + rim), _DARK, 0.45)
    _fill(canvas, (x0 - rim, y0 + thick + rim, x0 + thick + rim, y1 - rim), _DARK, 0.45)
    _fill(canvas, (x1 - rim, y0 + thick + rim, x1 + thick + rim, y1 - rim), _DARK, 0.45)
    for start, stop in _dashes(x0, x1 + thick, dash):
        for y in (y0, y1):
            _fill(canvas, (start, y, stop, y + thick), colour, 0.95)
    for start, stop in _dashes(y0, y1 + thick, dash):
        for x in (x0, x1):
            _fill(canvas, (x, start, x + thick, stop), colour, 0.95)


def _dashes(start: float, stop: float, dash: float) -> list[tuple[float, float]]:
    """Dashes of about ``dash`` with gaps of two thirds of it; both ends carry a dash."""
    length = stop - start
    gaps = max(0, round((length - dash) / (dash * 5.0 / 3.0)))
    if gaps == 0:
        return [(start, stop)]
    unit = length / (gaps + 1 + gaps * 2.0 / 3.0)
    step = unit * 5.0 / 3.0
    return [(start + i * step, start + i * step + unit) for i in range(gaps + 1)]


def marker(
    canvas: NDArray[np.uint8], centre: tuple[float, float], *, positive: bool, radius: float
) -> None:
    """Draw a point: a green plus or a red minus on a disc with a white ring."""
    height, width = canvas.shape[:2]
    reach = radius + 3.0
    x0, x1 = max(0, int(centre[0] - reach)), min(width, int(centre[0] + reach) + 2)
    y0, y1 = max(0, int(centre[1] - reach)), min(height, int(centre[1] + reach) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    dx = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(centre[0]))[None, :]
    dy = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(centre[1]))[:, None]
    away = np.hypot(dx, dy)
    part = canvas[y0:y1, x0:x1].astype(np.float32)
    blend(part, _DARK, np.float32(0.6) * _solid(away - (radius + 1.2)))
    blend(part, _WHITE, _solid(away - radius))
    blend(part, _POSITIVE if positive else _NEGATIVE, _solid(away - radius * 0.8))
    arm, half = radius * 0.46, max(0.9, radius * 0.13)
    sign = np.maximum(np.abs(dx) - arm, np.abs(dy) - half)
    if positive:
        sign = np.minimum(sign, np.maximum(np.abs(dx) - half, np.abs(dy) - arm))
    blend(part, _WHITE, _solid(sign))
    canvas[y0:y1, x0:x1] = np.rint(part).astype(np.uint8)


def _solid(signed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coverage 0..1 of a shape from its signed distance, negative inside."""
    cover: NDArray[np.float32] = np.clip(np.float32(0.5) - signed, 0.0, 1.0).astype(np.float32)
    return cover


def plate(
    picture: Image, corner: tuple[float, float], text: str, colour: Colour, unit: float
) -> None:
    """Write a short text on a dark plate above ``corner``, or below it at the picture's top."""
    from PIL import ImageDraw, ImageFont

    size = max(13.0, 17.0 * unit)
    font = ImageFont.load_default(size=size)
    pen = ImageDraw.Draw(picture, "RGBA")
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = round(0.32 * size)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    gap = max(2, round(3 * unit))
    y = corner[1] - height - gap
    if y < 0:
        y = corner[1] + gap
    x = min(max(corner[0], 0), max(0, picture.width - width))
    y = min(max(y, 0), max(0, picture.height - height))
    pen.rounded_rectangle((x, y, x + width, y + height), radius=pad, fill=(*_DARK, 205))
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=(*colour, 255))
