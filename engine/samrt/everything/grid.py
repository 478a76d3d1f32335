"""Where to ask: points of a grid, and crops of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.types import Size

__all__ = ["Crop", "crops_of", "layer_grids", "point_grid"]


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image.

    Attributes:
        box: ``(x0, y0, x1, y1)`` in whole pixels, far edges exclusive.
        layer: 0 for the whole image.
    """

    box: tuple[int, int, int, int]
    layer: int

    @property
    def size(self) -> Size:
        """``(h, w)`` in pixels."""
        return (self.box[3] - self.box[1], self.box[2] - self.box[0])


def point_grid(per_side: int) -> NDArray[np.float64]:
    """Centres of ``per_side ** 2`` equal cells of the unit square, ``(P, 2)`` (x, y), by rows."""
    first = 1.0 / (2 * per_side)
    along = np.linspace(first, 1.0 - first, per_side)
    x, y = np.meshgrid(along, along)
    points = np.column_stack([x.ravel(), y.ravel()])
    points.flags.writeable = False
    return points


def layer_grids(per_side: int, layers: int, factor: int) -> tuple[NDArray[np.float64], ...]:
    """Grids of the image and of each layer of crops; layer ``i`` has ``per_side / factor ** i``.

    Raises:
        OptionError: a layer would have no points.
    """
    sides = [int(per_side / factor**layer) for layer in range(layers + 1)]
    if sides[-1] < 1:
        raise OptionError(
            f"crops of layer {layers} would have no points: {per_side} points per side divided by "
            f"{factor} to the power {layers}; lower crop_n_points_downscale_factor or crop_n_layers"
        )
    return tuple(point_grid(side) for side in sides)


def crops_of(size: Size, layers: int, overlap_ratio: float) -> list[Crop]:
    """The image, then ``4 ** i`` overlapping crops for each layer ``i``, column by column.

    The rule is SAM's: ``2 ** i`` crops along each side, which overlap by ``overlap_ratio`` of the
    shorter side, times 2 over their number. Crops that would lie outside of a very small image are
    left out.
    """
    height, width = size
    found = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        columns = _spans(width, count, overlap)
        rows = _spans(height, count, overlap)
        found += [Crop((x0, y0, x1, y1), layer) for x0, x1 in columns for y0, y1 in rows]
    return found


def _spans(side: int, count: int, overlap: int) -> list[tuple[int, int]]:
    length = math.ceil((overlap * (count - 1) + side) / count)
    starts = [(length - overlap) * index for index in range(count)]
    return [(start, min(start + length, side)) for start in starts if start < side]
