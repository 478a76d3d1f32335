"""Masks as COCO run-length encoding, compressed and plain.

Runs go down the columns (first column first) and alternate between background and object,
beginning with background; ``size`` is ``[H, W]``. The compressed form packs the counts into
printable ASCII as the COCO tools do, so ``pycocotools`` and others read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError

__all__ = ["mask_to_rle", "rle_to_mask"]

_MAX_PIXELS = 1_000_000_000


def mask_to_rle(mask: NDArray[np.bool_], *, compressed: bool = True) -> dict[str, Any]:
    """Encode a mask.

    Args:
        mask: ``(H, W)`` bool.
        compressed: ``counts`` as an ASCII string; otherwise a list of run lengths.

    Returns:
        ``{"size": [H, W], "counts": ...}``, ready for JSON.

    Raises:
        ImageError: wrong rank or dtype, or no pixels.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ImageError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}, expected (H, W) bool"
        )
    from samrt import _kernels

    counts = _kernels.rle_encode(np.ascontiguousarray(mask))
    packed: Any
    if compressed:
        packed = _kernels.rle_to_string(counts).decode("ascii")
    else:
        packed = [int(n) for n in counts]
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": packed}


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode a compressed or plain COCO RLE into an ``(H, W)`` bool mask.

    Raises:
        ImageError: missing keys, a bad size, or counts that are malformed or do not fill it.
    """
    from samrt import _kernels

    height, width = _size(rle)
    packed = rle.get("counts")
    try:
        if isinstance(packed, str | bytes):
            text = packed.encode("ascii") if isinstance(packed, str) else packed
            counts = _kernels.rle_from_string(text)
        else:
            counts = _plain_counts(packed)
        filled = int(counts.sum(dtype=np.uint64))
        if filled != height * width:
            raise ImageError(f"RLE counts cover {filled} pixels, its size has {height * width}")
        return _kernels.rle_decode(counts, (height, width))
    except (ValueError, TypeError, OverflowError) as exc:
        if isinstance(exc, ImageError):
            raise
        raise ImageError(f"RLE counts are malformed: {' '.join(str(exc).split())}") from exc


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    size = rle.get("size")
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in size)
        or size[0] * size[1] > _MAX_PIXELS
    ):
        raise ImageError(f"RLE size is {size!r}, expected [height, width] of at most 1e9 pixels")
    return size[0], size[1]


def _plain_counts(packed: Any) -> NDArray[np.uint32]:
    if not isinstance(packed, list | tuple | np.ndarray):
        raise ImageError(f"RLE counts are {type(packed).__name__}, expected a string or a list")
    runs = np.asarray(packed)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs.size and int(runs.min()) < 0):
        raise ImageError("RLE counts must be a list of whole numbers from 0")
    if runs.size and int(runs.max()) > _MAX_PIXELS:
        raise ImageError("RLE counts hold a run of more than 1e9 pixels")
    return runs.astype(np.uint32)
