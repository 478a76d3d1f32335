"""What is said about pictures whose pixels are not square."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["uneven_note", "without_uneven"]

_TOLERANCE = 0.01
_WORTH = 1.75  # nothing is gained at 1.5, see benchmarks/square_pixels.py
_SHOWN = "but the model is shown the pixels as squares"


def uneven_note(spacing: tuple[float, float], where: str) -> str | None:
    """A remark where pixels are not square by more than 1 %, else ``None``.

    Args:
        spacing: mm between rows and between columns: a pixel's height and width.
        where: the picture, as the subject of the sentence.
    """
    height, width = spacing
    ratio = height / width
    if abs(ratio - 1.0) <= _TOLERANCE:
        return None
    look = "flatter" if ratio > 1.0 else "narrower"
    times = max(ratio, 1.0 / ratio)
    remedy = "; samrt infer --square-pixels shows them upright" if times >= _WORTH else ""
    return (
        f"{where} has pixels of {width:g} mm width and {height:g} mm height: areas and distances "
        f"in mm are right, {_SHOWN}, in which shapes look "
        f"{times:.2f} times {look} than they are{remedy}"
    )


def without_uneven(notes: Iterable[str]) -> tuple[str, ...]:
    """Remarks without that of :func:`uneven_note`, for pictures that are shown upright."""
    return tuple(note for note in notes if _SHOWN not in note)
