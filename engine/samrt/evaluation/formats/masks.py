"""Mask pictures to label maps: what is painted is what counts, without colour conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError, ImageError
from samrt.imaging.sniff import ImageLimits, open_image, read_bytes
from samrt.quoting import one_line

__all__ = ["labels_in", "read_labels"]

_HALF = 128
_MOST_LABELS = 4096


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read a label map ``(H, W)`` int32; 0 is background.

    Palette pictures give their indices, grey and 1-bit pictures their values, colour pictures
    the packed value ``0xRRGGBB``. JPEG cannot store labels exactly: a JPEG is cut at 128 into 0
    and 255, as the sets that ship their masks so (Kvasir-SEG) mean it.

    Raises:
        ImageError: missing, damaged, or no picture.
    """
    limits = ImageLimits()
    picture = open_image(read_bytes(path, limits), str(path), limits)
    try:
        picture.load()
        lossy = picture.format == "JPEG"
        values = np.asarray(picture.convert("L") if lossy else _plain(picture))
    except Exception as exc:  # damaged data may end in any exception of the decoder
        raise ImageError(f"{path} is damaged or truncated: {one_line(exc)}") from exc
    if lossy:
        binary: NDArray[np.int32] = np.where(values >= _HALF, 255, 0).astype(np.int32)
        return binary
    if values.ndim == 3:
        return _packed(values)
    if values.dtype.kind == "f" and not bool((values == np.rint(values)).all()):
        raise ImageError(f"{path} is a float picture with values that are no labels")
    if values.min() < 0 or values.max() > 2**31 - 1:
        raise ImageError(f"{path} holds labels below 0 or above 2**31 - 1")
    labels: NDArray[np.int32] = values.astype(np.int32)
    return labels


def _plain(picture: Any) -> Any:
    if picture.mode in ("1", "L", "P", "I", "F") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode in ("LA", "PA"):
        return picture.convert("L")
    return picture.convert("RGB")


def _packed(colour: NDArray[np.uint8]) -> NDArray[np.int32]:
    """``(H, W, 3)`` uint8 to ``(H, W)``: the grey value where all three are equal everywhere."""
    r, g, b = (colour[:, :, i].astype(np.int32) for i in range(3))
    if np.array_equal(r, g) and np.array_equal(g, b):
        return r
    return (r << 16) | (g << 8) | b


def labels_in(labels: NDArray[np.int32], where: str) -> list[tuple[int, int]]:
    """``(label, pixels)`` of every label above 0, in ascending order.

    Raises:
        DatasetError: so many that this is a photograph and not a label map.
    """
    values, counts = np.unique(labels, return_counts=True)
    found = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if v > 0]
    if len(found) > _MOST_LABELS:
        raise DatasetError(
            f"{where} holds {len(found)} different values, at most {_MOST_LABELS} labels are "
            "expected: is it an image?"
        )
    return found
