"""Dice, surface Dice (NSD) and IoU of binary masks.

NSD after Nikolov et al. 2018 (arXiv 1809.04430) on pixel borders: the share of both borders that
lies within `tolerance` pixels of the other border.  A border pixel is a mask pixel with a
4-neighbour outside.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def dice(a: Mask, b: Mask) -> float:
    """2 |A and B| / (|A| + |B|); 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def border(mask: Mask) -> Mask:
    """(H, W) bool: mask pixels with a 4-neighbour outside (beyond the frame is outside)."""
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded: Mask = cv2.erode(padded, CROSS)[1:-1, 1:-1] > 0
    return mask & ~eroded


def nsd(a: Mask, b: Mask, tolerance: float = 2.0) -> float:
    """Normalised surface Dice at `tolerance` pixels; 0 if exactly one is empty."""
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    ys, xs = np.nonzero(a | b)
    pad = int(tolerance) + 2
    y0, x0 = max(0, int(ys.min()) - pad), max(0, int(xs.min()) - pad)
    window = np.s_[y0 : int(ys.max()) + pad + 1, x0 : int(xs.max()) + pad + 1]
    ba, bb = border(a)[window], border(b)[window]
    to_a = cv2.distanceTransform((~ba).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_b = cv2.distanceTransform((~bb).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    close = int((to_b[ba] <= tolerance).sum()) + int((to_a[bb] <= tolerance).sum())
    return close / (int(ba.sum()) + int(bb.sum()))


def ellipse_in(box: tuple[float, float, float, float], shape: tuple[int, int]) -> Mask:
    """The ellipse inscribed in an inclusive box: the trivial baseline."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[: shape[0], : shape[1]]
    u = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2)
    v = (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    inside: Mask = u * u + v * v <= 1
    return inside
