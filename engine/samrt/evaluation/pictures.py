"""Small pictures of single cases: where an answer agrees with the truth and where it does not."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from samrt.imaging import _draw
from samrt.types import Prompt

__all__ = ["COLOURS", "case_picture", "data_uri", "error_panel", "plain_panel", "png_bytes"]

COLOURS = {"agreed": (0, 190, 140), "missed": (255, 150, 0), "extra": (226, 60, 190)}
"""Tints of an error map; they differ for colour-blind people as well."""

_ALPHA = {"agreed": 0.38, "missed": 0.72, "extra": 0.62}
_GROUND = (17, 20, 26)
_GAP = 4
_CONTEXT = 1.7
_LEAST_SIDE = 48

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int, int]


def window_of(masks: Sequence[Mask], box: Sequence[float], size: tuple[int, int]) -> Window:
    """Part of an image to show: around a box, wide enough for the bulk of all masks.

    Returns:
        ``(left, top, right, bottom)``, exclusive at the end, on the image.
    """
    x0, y0, x1, y1 = box
    side = max(_CONTEXT * max(x1 - x0 + 1, y1 - y0 + 1), _LEAST_SIDE)
    centre = ((x0 + x1) / 2.0, (y0 + y1) / 2.0)
    for mask in masks:
        rows, columns = np.nonzero(mask)
        if rows.size:
            for values, at in ((columns, centre[0]), (rows, centre[1])):
                low, high = np.percentile(values, (2, 98))
                side = max(side, min(2.1 * max(at - low, high - at), 4.0 * side))
    spans = []
    for at, length in zip(centre, (size[1], size[0]), strict=True):
        half = min(side, length) / 2.0
        low = min(max(at - half, 0.0), length - 2 * half)
        spans.append((int(low), min(length, int(np.ceil(low + 2 * half)))))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _fit(window: Window, tile: int) -> tuple[float, int, int]:
    """Enlargement of a window and its size in a tile."""
    width, height = window[2] - window[0], window[3] - window[1]
    factor = tile / max(width, height)
    return factor, max(1, round(width * factor)), max(1, round(height * factor))


def plain_panel(image: Rgb, window: Window, tile: int) -> Rgb:
    """``(tile, tile, 3)``: a part of an image, enlarged or shrunk, on dark ground."""
    from PIL import Image

    _, width, height = _fit(window, tile)
    picture = Image.fromarray(image).convert("RGB").crop(window)
    shown = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    panel = np.empty((tile, tile, 3), np.uint8)
    panel[:] = _GROUND
    top, left = (tile - height) // 2, (tile - width) // 2
    panel[top : top + height, left : left + width] = shown
    return panel


def _cover(mask: Mask, window: Window, tile: int) -> NDArray[np.float32]:
    from PIL import Image

    _, width, height = _fit(window, tile)
    source = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).crop(window)
    soft = np.asarray(source.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    cover = np.zeros((tile, tile), np.float32)
    top, left = (tile - height) // 2, (tile - width) // 2
    cover[top : top + height, left : left + width] = soft / np.float32(255.0)
    return cover


def error_panel(
    image: Rgb,
    truth: Mask,
    answer: Mask,
    window: Window,
    tile: int,
    *,
    prompt: Prompt | None = None,
) -> Rgb:
    """``(tile, tile, 3)``: agreed, missed and extra pixels tinted, the prompt drawn on top."""
    panel = plain_panel(image, window, tile)
    part = panel.astype(np.float32)
    layers = {"agreed": truth & answer, "missed": truth & ~answer, "extra": answer & ~truth}
    for name, mask in layers.items():
        if mask.any():
            _draw.blend(part, COLOURS[name], np.float32(_ALPHA[name]) * _cover(mask, window, tile))
    panel = np.rint(part).astype(np.uint8)
    if prompt is not None:
        _draw_prompt(panel, prompt, window, tile)
    return panel


def _draw_prompt(panel: Rgb, prompt: Prompt, window: Window, tile: int) -> None:
    factor, width, height = _fit(window, tile)
    left, top = (tile - width) // 2, (tile - height) // 2

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - window[0]) * factor + left, (y - window[1]) * factor + top

    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        corners = (*place(x0, y0), *place(x1 + 1, y1 + 1))
        _draw.dashed_box(panel, corners, (235, 240, 248), 0.75)
    if prompt.point_coords is not None and prompt.point_labels is not None:
        for (x, y), label in zip(prompt.point_coords, prompt.point_labels, strict=True):
            _draw.marker(panel, place(x + 0.5, y + 0.5), positive=bool(label == 1), radius=6.5)


def case_picture(panels: Sequence[Rgb]) -> Rgb:
    """Panels of one height side by side with a thin gap."""
    gap = np.empty((panels[0].shape[0], _GAP, 3), np.uint8)
    gap[:] = 255
    parts: list[Rgb] = []
    for panel in panels:
        parts += [panel, gap]
    return np.concatenate(parts[:-1], axis=1)


def data_uri(picture: Rgb) -> str:
    """A picture as a ``data:`` address, JPEG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_bytes(picture: Rgb) -> bytes:
    """A picture as PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
