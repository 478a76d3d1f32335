"""A contact sheet: slices of a segmented volume side by side, for a quick look."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.imaging.array import as_uint8
from samrt.imaging.overlay import OverlayItem, draw_overlay
from samrt.imaging.volumes.segment import Stretch, stretch_of
from samrt.imaging.volumes.volume import Plane, Volume
from samrt.propagation import SliceMask, VolumeMask
from samrt.types import Prompt

__all__ = ["contact_sheet", "pick_slices"]

_TILE = 384
_GAP = 6
_MOST = 12


def pick_slices(slices: Sequence[SliceMask], start: int, most: int = _MOST) -> list[SliceMask]:
    """At most ``most`` slices, evenly spread, the prompted one among them, in their order."""
    if len(slices) <= most:
        return list(slices)
    places = {round(k) for k in np.linspace(0, len(slices) - 1, most)}
    chosen = {slices[k].index: slices[k] for k in places}
    prompted = next((item for item in slices if item.index == start), None)
    if prompted is not None and start not in chosen:
        nearest = min(chosen, key=lambda index: abs(index - start))
        del chosen[nearest]
        chosen[start] = prompted
    return [chosen[index] for index in sorted(chosen)]


def contact_sheet(volume: Volume, plane: Plane, found: Sequence[VolumeMask]) -> bytes:
    """PNG of the segmented slices; boxes are drawn on prompted slices, labels are scores.

    Pixels are drawn as square as the model saw them.
    """
    from PIL import Image as PillowImage

    view, stretch = plane.view(volume.values), stretch_of(plane)
    every = {item.index: item for one in found for item in one.slices}
    tiles = []
    for place in pick_slices([every[index] for index in sorted(every)], found[0].start):
        plain = stretch.picture(np.ascontiguousarray(view[place.index]))
        window = volume.window or (None if plain.dtype == np.uint8 else (0.0, 255.0))
        grey = as_uint8(plain, window=window).array
        shown = [_item(one, place.index, stretch, grey.shape[:2]) for one in found]
        tiles.append(np.asarray(draw_overlay(grey, shown, min_side=_TILE, max_side=_TILE)))
    picture = PillowImage.fromarray(_tiled(tiles))
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _item(found: VolumeMask, index: int, stretch: Stretch, size: tuple[int, ...]) -> OverlayItem:
    """What one object leaves on one slice, perhaps nothing."""
    for item in found.slices:
        if item.index == index:
            box = stretch.box(item.prompt_box)
            mask = item.mask.repeat(stretch.rows, axis=0).repeat(stretch.columns, axis=1)
            prompt = Prompt(box=box) if index == found.start else None
            return OverlayItem(mask, prompt, item.score)
    return OverlayItem(np.zeros(size, bool))


def _tiled(tiles: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Tiles of equal size in rows, as square as they go."""
    height, width = tiles[0].shape[:2]
    columns = max(1, round(float(np.sqrt(len(tiles) * height / width))))
    rows = -(-len(tiles) // columns)
    canvas = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), np.uint8)
    for k, tile in enumerate(tiles):
        y, x = (k // columns) * (height + _GAP), (k % columns) * (width + _GAP)
        canvas[y : y + height, x : x + width] = tile
    return canvas
