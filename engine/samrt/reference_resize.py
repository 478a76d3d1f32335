"""The resizing rules of :mod:`samrt.reference`, one function per rule, in plain NumPy and Pillow.

Where a rule is that of another library to the last bit, the order of the operations and their
precision are part of the rule and are spelled out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["resize", "resize_exactly", "resize_floats", "resize_window"]

Size = tuple[int, int]
Array = NDArray[Any]

_PILLOW = {
    "bilinear_antialias": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_F = np.float32


def resize(
    image: Array, size: Size, interpolation: str, rounding: str = "nearest"
) -> NDArray[np.uint8]:
    """See :func:`samrt._kernels.resize`."""
    values = image
    if image.shape[:2] == tuple(size):
        values = image.copy()
    elif interpolation.startswith("bspline"):
        smooth = _bspline(image.astype(np.float64), size, interpolation)
        values = np.clip(smooth + (0.5 if rounding == "nearest" else 0), 0, 255)
    elif interpolation == "nearest":
        values = _nearest(image, size)
    elif interpolation in _PILLOW:
        values = _pillow(image, size, interpolation)
    elif interpolation == "area":
        values = _area(image, size)
    else:
        values = np.clip(np.rint(resize_exactly(image, size, interpolation)), 0, 255)
    return np.asarray(values, np.uint8)


def resize_floats(
    image: NDArray[np.float32], size: Size, interpolation: str, via: Sequence[Size] = ()
) -> NDArray[np.float32]:
    """Float samples (H, W) or (H, W, 3) that stay float: rounding ``none``."""
    if interpolation.startswith("bspline"):
        for step in (*via, size):
            if image.shape[:2] != tuple(step):
                smooth = _bspline(image.astype(np.float64), step, interpolation)
                image = smooth.astype(np.float32)
        return image
    if interpolation not in ("bilinear", "bilinear_antialias"):
        return resize_window(image, size, interpolation)
    taps = _torch_bilinear if interpolation == "bilinear" else _torch_antialias
    for axis in (1, 0):
        if image.shape[axis] != size[axis]:
            image = _fused(image, axis, taps(image.shape[axis], size[axis]))
    return image


def resize_window(image: Array, size: Size, interpolation: str) -> NDArray[np.float32]:
    """Float samples (H, W) or (H, W, 3) without rounding, by the rules for 8 bits."""
    if interpolation.startswith("bspline"):
        return resize_floats(image, size, interpolation)
    if interpolation == "nearest":
        return np.asarray(_nearest(image, size), np.float32)
    if interpolation in _PILLOW:
        planes = image[..., None] if image.ndim == 2 else image
        stack = [_pillow(planes[..., c], size, interpolation) for c in range(planes.shape[2])]
        return np.asarray(np.stack(stack, -1).reshape(*size, *image.shape[2:]), np.float32)
    return np.asarray(resize_exactly(image, size, interpolation), np.float32)


# --- Pillow -------------------------------------------------------------------------------


def _vertical_first(before: Size, after: Size) -> bool:
    """Whether Pillow (from 13.0 on) resizes the rows' direction last: each pass rounds."""
    return after[0] < before[0] and before[0] - after[0] > 2 * (before[1] - after[1])


def _pillow(image: Array, size: Size, interpolation: str) -> Array:
    """Pillow's resize as two passes along one axis each, which every version does alike."""
    height, width = size
    first = (height, image.shape[1])
    if not _vertical_first((image.shape[0], image.shape[1]), size):
        first = (image.shape[0], width)
    picture = Image.fromarray(np.ascontiguousarray(image))
    for h, w in (first, size):
        picture = picture.resize((w, h), _PILLOW[interpolation])
    return np.array(picture)


# --- OpenCV -------------------------------------------------------------------------------


def _nearest(image: Array, size: Size) -> Array:
    rows, columns = (
        np.minimum((np.arange(a) * (1 / (a / b))).astype(int), b - 1)
        for b, a in zip(image.shape[:2], size, strict=True)
    )
    return np.asarray(image[rows[:, None], columns[None]])


def _overlaps(before: int, after: int) -> list[tuple[int, list[np.float32]]]:
    """First sample and shares of the samples that each output sample covers."""
    scale = 1 / (after / before)
    found = []
    for i in range(after):
        left, right = i * scale, i * scale + scale
        size = min(scale, before - left)
        end = min(int(np.floor(right)), before - 1)
        begin = min(int(np.ceil(left)), end)
        split = begin - left > 1e-3
        shares = [_F((begin - left) / size)] if split else []
        shares += [_F(1 / size)] * (end - begin)
        if right - end > 1e-3:
            shares.append(_F(min(right - end, 1.0, size) / size))
        found.append((begin - split, shares))
    return found


def _averaged(image: Array, size: Size) -> Array:
    """INTER_AREA when shrinking: integer sums for whole ratios, float32 sums otherwise."""
    ratios = [1 / (a / b) for b, a in zip(image.shape[:2], size, strict=True)]
    if all(abs(r - np.rint(r)) < np.finfo(float).eps for r in ratios):
        ny, nx = (int(np.rint(r)) for r in ratios)
        blocks = image.astype(np.int64).reshape(size[0], ny, size[1], nx, -1)
        sums = blocks.sum(axis=(1, 3)).reshape(*size, *image.shape[2:])
        if ny == nx == 2:
            return np.asarray((sums + 2) >> 2)
        return np.asarray(np.rint(sums.astype(np.float32) * (_F(1) / _F(ny * nx))))
    values = image.astype(np.float32)
    for axis in (1, 0):
        lines = np.moveaxis(values, axis, 0)
        out = np.empty((size[axis], *lines.shape[1:]), np.float32)
        for i, (first, shares) in enumerate(_overlaps(len(lines), size[axis])):
            out[i] = lines[first] * shares[0]
            for k, share in enumerate(shares[1:], 1):
                out[i] += lines[first + k] * share
        values = np.moveaxis(out, 0, axis)
    return np.clip(np.rint(values), 0, 255)


def _two_samples(before: int, after: int, area: bool) -> tuple[Array, Array]:
    """Left sample and weight of the right one, at half-pixel centres or as INTER_AREA grows."""
    i, scale = np.arange(after), 1 / (after / before)
    if area:
        left = np.floor(i * scale).astype(int)
        share = ((i + 1) - (left + 1) * (after / before)).astype(np.float32)
        share = np.where(share <= 0, _F(0), share - np.floor(share))
    else:
        position = (i + 0.5) * scale - 0.5
        left = np.floor(position).astype(int)
        share = position - left
    share = np.where((left < 0) | (left >= before - 1), 0, share)
    return np.clip(left, 0, before - 1), share


def _area(image: Array, size: Size) -> Array:
    """INTER_AREA; in fixed point with 11 fraction bits as soon as one axis grows."""
    if size[0] <= image.shape[0] and size[1] <= image.shape[1]:
        return _averaged(image, size)
    values = image.astype(np.int64)
    for axis in (1, 0):
        before = image.shape[axis]
        left, share = _two_samples(before, size[axis], True)
        shape = [1] * image.ndim
        shape[axis] = -1
        parts = [np.rint(w.astype(np.float32) * _F(2048)) for w in (_F(1) - share, share)]
        a, b = (p.astype(np.int64).reshape(shape) for p in parts)
        p, q = np.take(values, left, axis), np.take(values, np.minimum(left + 1, before - 1), axis)
        if axis == 1:
            values = a * p + b * q
        else:
            values = ((a * (p >> 4) >> 16) + (b * (q >> 4) >> 16) + 2) >> 2
    return values


def resize_exactly(image: Array, size: Size, interpolation: str) -> NDArray[np.float64]:
    """``area`` and ``bilinear`` in float64, not rounded."""
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    matrices = []
    for before, after in zip(image.shape[:2], size, strict=True):
        matrix = np.zeros((after, before))
        if interpolation == "area" and shrinks:
            for i, (first, shares) in enumerate(_overlaps(before, after)):
                matrix[i, first : first + len(shares)] = shares
        else:
            left, share = _two_samples(before, after, interpolation == "area")
            matrix[np.arange(after), left] = 1 - share
            matrix[np.arange(after), np.minimum(left + 1, before - 1)] += share
        matrices.append(matrix)
    rows, columns = matrices
    values = image.astype(np.float64)
    return np.asarray(np.einsum("yi,ij...,xj->yx...", rows, values, columns, optimize=True))


# --- PyTorch ------------------------------------------------------------------------------

Taps = list[list[tuple[int, np.float32]]]
"""For each output sample its input samples with their weights, in the order of the sum."""


def _torch_bilinear(before: int, after: int) -> Taps:
    """``interpolate(mode="bilinear", align_corners=False)`` of floats."""
    scale = np.float64(_F(before) / _F(after))
    position = np.maximum((scale * (np.arange(after) + 0.5) - 0.5).astype(np.float32), _F(0))
    left = np.minimum(position.astype(int), before - 1)
    share = np.minimum(position - left.astype(np.float32), _F(1))
    right = np.minimum(left + 1, before - 1)
    return [[(int(b), w), (int(a), _F(1) - w)] for a, b, w in zip(left, right, share, strict=True)]


def _torch_antialias(before: int, after: int) -> Taps:
    """The same with ``antialias=True``: a triangle, widened when shrinking, all in float32."""
    scale = _F(before) / _F(after)
    support = max(scale, _F(1))
    shrink = _F(1) / scale if scale >= 1 else _F(1)
    found: Taps = []
    for i in range(after):
        centre = scale * _F(i + 0.5)
        low = max(int(centre - support + _F(0.5)), 0)
        high = min(int(centre + support + _F(0.5)), before)
        places = np.arange(low, high).astype(np.float32)
        weights = np.maximum(_F(1) - np.abs((places - centre + _F(0.5)) * shrink), _F(0))
        total = _F(0)
        for weight in weights:
            total += weight
        found.append([(low + k, weight / total) for k, weight in enumerate(weights)])
    return found


def _fused(image: Array, axis: int, taps: Taps) -> NDArray[np.float32]:
    """Sums of which every product but the first is added with one rounding."""
    lines = np.moveaxis(image, axis, 0)
    out = np.empty((len(taps), *lines.shape[1:]), np.float32)
    for target, ((first, weight), *others) in zip(out, taps, strict=True):
        target[:] = lines[first] * weight
        for k, w in others:
            target[:] = lines[k].astype(np.float64) * np.float64(w) + target.astype(np.float64)
    return np.moveaxis(out, 0, axis)


# --- SciPy and scikit-image ---------------------------------------------------------------


def _mirrored(index: Array, n: int) -> Array:
    """Positions of a signal of ``n`` samples that goes on mirrored at its end samples."""
    if n == 1:
        return np.zeros_like(index)
    place = np.abs(index) % (2 * n - 2)
    return np.asarray(np.where(place < n, place, 2 * n - 2 - place))


def _blurred(values: Array, axis: int, after: int) -> Array:
    """scipy.ndimage.gaussian_filter with scikit-image's sigma for an axis that shrinks."""
    before = values.shape[axis]
    sigma = max(0.0, (before / after - 1) / 2)
    if sigma <= 1e-15:
        return values
    radius = int(4.0 * sigma + 0.5)
    # The C library's exponential: NumPy's own differs in the last bit on some processors.
    factor = -0.5 / (sigma * sigma)
    weights = np.array([math.exp(factor * k**2) for k in range(-radius, radius + 1)])
    weights /= weights.sum()
    place = np.arange(before)
    out = values * weights[radius]
    for k in range(radius, 0, -1):
        pair = np.take(values, _mirrored(place - k, before), axis)
        pair = pair + np.take(values, _mirrored(place + k, before), axis)
        out += pair * weights[radius - k]
    return np.asarray(out)


def _coefficients(values: Array, axis: int) -> Array:
    """scipy.ndimage.spline_filter1d(order=3, mode="mirror")."""
    lines = np.moveaxis(values, axis, 0).copy()
    n = len(lines)
    if n == 1:
        return values
    pole = np.float64(-0.267949192431122706472553658494127633)  # sqrt(3) - 2
    lines *= (1 - pole) * (1 - 1 / pole)
    far, power = np.power(pole, n - 1), pole
    lines[0] += far * lines[-1]
    with np.errstate(under="ignore"):
        for i in range(1, n - 1):
            lines[0] += power * (lines[i] + far * lines[n - 1 - i])
            power *= pole
    lines[0] /= 1 - far * far
    for i in range(1, n):
        lines[i] += pole * lines[i - 1]
    lines[-1] = (pole * lines[-2] + lines[-1]) * pole / (pole * pole - 1)
    for i in range(n - 2, -1, -1):
        lines[i] = pole * (lines[i + 1] - lines[i])
    return np.moveaxis(lines, 0, axis)


def _spline_taps(before: int, after: int, corners: bool) -> tuple[Array, Array, Array]:
    """Four samples (4, after), their weights (4, after), and which places lie outside."""
    i = np.arange(after)
    if corners:
        place = i * ((before - 1) / (after - 1) if after > 1 else 1.0)
    else:
        place = np.abs((i + 0.5) * (before / after) - 0.5) * (before > 1)
    x = place - np.floor(place)
    z = 1.0 - x
    w0 = z * z * z / 6.0
    w1 = (x * x * (x - 2.0) * 3.0 + 4.0) / 6.0
    w2 = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0
    samples = np.floor(place).astype(int) - 1 + np.arange(4)[:, None]
    outside = place > before - 1 if corners else np.zeros(after, bool)
    return _mirrored(samples, before), np.stack([w0, w1, w2, 1.0 - w0 - w1 - w2]), outside


def _bspline(image: NDArray[np.float64], size: Size, interpolation: str) -> NDArray[np.float64]:
    """skimage.transform.resize(order=3, anti_aliasing=True) or scipy.ndimage.zoom(order=3)."""
    corners = interpolation == "bspline_corners"
    values = image.reshape(*image.shape[:2], -1)
    across = values.shape[2] == 3 and not corners
    if not corners:
        for axis in (0, 1):
            values = _blurred(values, axis, size[axis])
    for axis in (0, 1, 2) if across else (0, 1):
        values = _coefficients(values, axis)
    rows, row_weights, row_outside = _spline_taps(values.shape[0], size[0], corners)
    columns, column_weights, column_outside = _spline_taps(values.shape[1], size[1], corners)
    channels, channel_weights, _ = _spline_taps(3, 3, False)
    out = np.zeros((*size, values.shape[2]))
    for row, down in zip(rows, row_weights, strict=True):
        weighted = values[row] * down[:, None, None]
        for column, along in zip(columns, column_weights, strict=True):
            part = weighted[:, column] * along[:, None]
            if not across:
                out += part
                continue
            for channel, weight in zip(channels, channel_weights, strict=True):
                out += part[:, :, channel] * weight
    if corners:
        out[row_outside] = 0
        out[:, column_outside] = 0
    else:
        out = np.clip(out, image.min(), image.max())
    return out.reshape(*size, *image.shape[2:])
