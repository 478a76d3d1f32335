"""A box in a plane of a volume to a mask on its grid, with square pixels for the model.

Slices across a stack of thick slices look squashed, and models trained on upright pictures do badly
on them: on a phantom with pixels of 0.7 x 3 mm ``tiny`` reaches a Dice of 0.89, and 0.99 once the
rows are drawn four times as far apart. So pixels of uneven sides are stretched by a whole factor
for the model, linearly between their centres, and masks are brought back by majority.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.imaging.volumes.volume import Plane, Volume
from samrt.propagation import PropagationRules, SliceMask, VolumeMask, propagate
from samrt.types import Box

if TYPE_CHECKING:
    from samrt.predictor import Predictor

__all__ = ["Stretch", "segment_plane", "stretch_for", "stretch_of"]

_MOST = 8


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole factors by which rows and columns are multiplied for the model.

    Attributes:
        rows: 1 or more.
        columns: 1 or more; one of the two is 1.
    """

    rows: int = 1
    columns: int = 1

    def picture(self, plane: NDArray[Any]) -> NDArray[Any]:
        """``(H, W)`` or ``(H, W, 3)`` to ``(rows * H, columns * W)`` or with colours, float32.

        The same array if nothing is to do.
        """
        for axis, factor in ((0, self.rows), (1, self.columns)):
            if factor > 1:
                plane = _stretched(plane, factor, axis)
        return plane

    def box(self, box: Sequence[float]) -> Box:
        """A box in pixels of the plane to one in the stretched picture."""
        x0, y0, x1, y1 = box
        return x0 * self.columns, y0 * self.rows, x1 * self.columns, y1 * self.rows

    def restore_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``(rows * H, columns * W)`` bool to ``(H, W)``: set where at least half of it is."""
        height, width = mask.shape[0] // self.rows, mask.shape[1] // self.columns
        groups = mask.reshape(height, self.rows, width, self.columns)
        result: NDArray[np.bool_] = groups.mean(axis=(1, 3)) >= 0.5
        return result

    def restore(self, item: SliceMask) -> SliceMask:
        """A mask of the stretched picture on the pixels of the plane, by majority."""
        mask = self.restore_mask(item.mask)
        height, width = mask.shape
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box: Box = (0.0, 0.0, 0.0, 0.0)
        if ys.size:
            box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
        x0, y0, x1, y1 = item.prompt_box
        return replace(
            item,
            area_px=int(np.count_nonzero(mask)),
            box=box,
            prompt_box=(x0 / self.columns, y0 / self.rows, x1 / self.columns, y1 / self.rows),
            bits=np.packbits(mask),
            size=(height, width),
        )


def _stretched(plane: NDArray[Any], factor: int, axis: int) -> NDArray[np.float32]:
    """Linear interpolation between pixel centres along one axis; ends are repeated."""
    count = plane.shape[axis]
    place = (np.arange(count * factor) + 0.5) / factor - 0.5
    low = np.clip(np.floor(place).astype(np.int64), 0, count - 1)
    high = np.minimum(low + 1, count - 1)
    share = np.clip(place - low, 0.0, 1.0).astype(np.float32)
    share = share.reshape([-1 if k == axis else 1 for k in range(plane.ndim)])
    values = plane.astype(np.float32)
    mixed = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    result: NDArray[np.float32] = mixed.astype(np.float32)
    return result


def stretch_of(plane: Plane) -> Stretch:
    """Factors that make the pixels of a plane as square as whole numbers can, at most 8."""
    return stretch_for(plane.spacing[1], plane.spacing[2])


def stretch_for(rows: float, columns: float) -> Stretch:
    """The same for a distance between rows and one between columns.

    Raises:
        OptionError: a distance that is not positive and finite.
    """
    if not (0 < rows < float("inf") and 0 < columns < float("inf")):
        raise OptionError(f"spacing must be two positive numbers, got {rows:g} and {columns:g}")
    if rows >= columns:
        return Stretch(rows=min(_MOST, max(1, round(rows / columns))))
    return Stretch(columns=min(_MOST, max(1, round(columns / rows))))


def segment_plane(
    engine: Predictor,
    volume: Volume,
    plane: Plane,
    *,
    start: int,
    box: Sequence[float],
    first: int = 0,
    last: int | None = None,
    bounds: Sequence[float] | None = None,
    rules: PropagationRules | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> VolumeMask:
    """Follow an object through the slices of a plane; see :func:`samrt.propagation.propagate`.

    Args:
        engine: a model that takes boxes.
        volume: the volume.
        plane: from :func:`samrt.imaging.plane_of`.
        start: slice of the plane that the box is on.
        box: ``(x0, y0, x1, y1)`` in pixels of that slice.
        first: lowest slice to go to.
        last: highest slice to go to.
        bounds: ``(x0, y0, x1, y1)`` that no box may leave.
        rules: when to stop.
        progress: told about each slice.

    Returns:
        Masks in pixels of the plane; ``fill(plane.view(array))`` puts them on the volume's grid.
    """
    view = plane.view(volume.values)
    stretch = stretch_of(plane)
    window = volume.window
    if window is None and stretch != Stretch():
        window = (0.0, 255.0)  # stretched grey levels are fractions
    found = propagate(
        engine,
        lambda index: stretch.picture(view[index]),
        count=plane.shape[0],
        start=start,
        box=stretch.box(box),
        window=window,
        first=first,
        last=last,
        bounds=None if bounds is None else stretch.box(bounds),
        rules=rules,
        progress=progress,
    )
    if stretch == Stretch():
        return found
    return replace(found, slices=tuple(stretch.restore(item) for item in found.slices))
