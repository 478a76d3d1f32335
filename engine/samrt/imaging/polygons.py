"""Masks as polygons with holes, in GeoJSON geometry.

Corners lie on pixel edges: ``(0, 0)`` is the top-left corner of the top-left pixel and
``(W, H)`` the bottom-right corner of the image, x to the right, y downwards. Polygons are exact:
their area, holes taken off, is the number of pixels. Each 4-connected region is one polygon.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError

__all__ = ["geometry_area", "mask_to_geometry"]


def mask_to_geometry(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Trace a mask.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        A GeoJSON ``MultiPolygon`` (RFC 7946): ``coordinates`` is a list of polygons, each a list
        of closed rings ``[[x, y], ...]``, the outer one first, then its holes. An empty mask
        has no polygons. The outer ring runs one way round and holes the other.

    Raises:
        ImageError: wrong rank or dtype.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ImageError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}, expected (H, W) bool"
        )
    from samrt import _kernels

    regions = _kernels.mask_polygons(np.ascontiguousarray(mask))
    coordinates = [[_closed(ring) for ring in rings] for rings in regions]
    return {"type": "MultiPolygon", "coordinates": coordinates}


def geometry_area(geometry: dict[str, Any]) -> float:
    """Area of a ``MultiPolygon`` in pixels, holes taken off (shoelace formula)."""
    total = 0.0
    for rings in geometry["coordinates"]:
        outer, *holes = (abs(_signed_area(ring)) for ring in rings)
        total += outer - sum(holes)
    return total


def _closed(ring: NDArray[np.float64]) -> list[list[int]]:
    corners = [[int(x), int(y)] for x, y in ring]
    return [*corners, corners[0]]


def _signed_area(ring: list[list[int]]) -> float:
    x, y = np.array(ring, dtype=np.float64).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2.0)
