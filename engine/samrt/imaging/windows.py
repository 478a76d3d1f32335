"""Windows as people write them: ``centre/width``, ``lo:hi``, or a radiologist's name for one.

Two numbers with a comma are ``lo,hi`` for pictures, which know no centre, and ``centre,width``
for scanners' files, as their users say it.

DICOM's window (PS3.3 C.11.2.1.2) has a centre c and a width w >= 1. Its default function LINEAR
maps c - 0.5 - (w - 1) / 2 to black and c - 0.5 + (w - 1) / 2 to white; LINEAR_EXACT, with any
w > 0, maps c - w / 2 and c + w / 2.
"""

from __future__ import annotations

import math

from samrt.errors import ImageError

__all__ = ["PRESETS", "linear_limits", "parse_limits"]

PRESETS: dict[str, tuple[float, float]] = {
    "abdomen": (40.0, 400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (30.0, 150.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "soft-tissue": (40.0, 400.0),
    "stroke": (32.0, 8.0),
    "subdural": (75.0, 215.0),
}
"""Name -> centre and width in Hounsfield units, as usual in CT reading."""


def linear_limits(centre: float, width: float) -> tuple[float, float]:
    """``(lo, hi)`` of DICOM's LINEAR function.

    Raises:
        ImageError: not finite, or a width below 1, or exactly 1, which is a step.
    """
    if not (math.isfinite(centre) and math.isfinite(width)) or width < 1.0:
        raise ImageError(
            f"window centre {centre:g}, width {width:g} is unusable: expected finite numbers and "
            "a width of at least 1"
        )
    half = (max(width, 1.0 + 1e-3) - 1.0) / 2.0
    return centre - 0.5 - half, centre - 0.5 + half


def parse_limits(text: str) -> tuple[float, float] | None:
    """``(lo, hi)`` of ``"centre/width"``, ``"lo:hi"`` or ``"lo,hi"``; ``None`` if it is none.

    Raises:
        ImageError: numbers that make no window.
    """
    for mark in ("/", ":", ","):
        first, found, second = text.partition(mark)
        if not found:
            continue
        try:
            a, b = float(first), float(second)
        except ValueError:
            return None
        return linear_limits(a, b) if mark == "/" else (a, b)
    return None
