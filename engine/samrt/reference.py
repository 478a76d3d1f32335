"""Every kernel of :mod:`samrt._kernels` in plain NumPy and Pillow.

The rules of resizing are in :mod:`samrt.reference_resize`.

The tests compare the kernels with these, the benchmarks time them against these, and this is
where to read what a kernel means. Nothing falls back to them. Signatures are those of
:mod:`samrt._kernels` without ``threads``; arguments are not checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.reference_resize import resize, resize_floats, resize_window

__all__ = [
    "connected_components",
    "mask_polygons",
    "mask_stats",
    "masks_from_logits",
    "preprocess",
    "preprocess_window",
    "remove_small_regions",
    "resize",
    "resize_floats",
    "rle_decode",
    "rle_encode",
    "rle_from_string",
    "rle_to_string",
    "stability",
    "upscale_logits",
    "window_to_uint8",
]

Size = tuple[int, int]
Array = NDArray[Any]


# --- images -------------------------------------------------------------------------------


def _tensor(
    planes: Array,
    out_size: Size,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float,
    min_max: bool,
    pad_value: float,
    pad_before: bool,
    divisor: float,
    out_dtype: str,
) -> Array:
    """Normalise and pad (3, h, w) to (1, 3, S_h, S_w)."""
    planes = planes.astype(np.float32)
    right_bottom = [(0, 0)] + [(0, s - n) for s, n in zip(out_size, planes.shape[1:], strict=True)]
    if pad_before:
        value = np.float32(pad_value) / np.float32(divisor)
        planes = np.pad(planes, right_bottom, constant_values=value)
    if min_max:
        low, high = planes.min(), planes.max()
        planes = (planes - low) / np.maximum(high - low, np.float32(1e-8))
    else:
        m = np.array(mean, np.float32)[:, None, None]
        s = np.array(std, np.float32)[:, None, None]
        planes = (planes * np.float32(scale) - m) / s
    if not pad_before:
        planes = np.pad(planes, right_bottom, constant_values=np.float32(pad_value))
    return planes[None].astype(out_dtype)


def preprocess(
    image: NDArray[np.uint8],
    *,
    out_size: Size,
    resized: Size,
    interpolation: str,
    rounding: str = "nearest",
    via: Sequence[Size] = (),
    divisor: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1.0,
    min_max: bool = False,
    pad_value: float = 0.0,
    pad_before: bool = False,
    bgr: bool = False,
    out_dtype: str = "float32",
) -> Array:
    """See :func:`samrt._kernels.preprocess`."""
    if image.ndim == 2 and interpolation == "bspline_antialias":
        image = np.repeat(image[..., None], 3, axis=2)
    if rounding == "none":
        values = image.astype(np.float32) / np.float32(divisor)
        small = resize_floats(values, resized, interpolation, via)
    else:
        small = resize(image, resized, interpolation, rounding).astype(np.float32)
        small = small / np.float32(divisor)
    if small.ndim == 2:
        small = np.repeat(small[..., None], 3, axis=2)
    if bgr:
        small = small[..., ::-1]
    rules = (out_size, mean, std, scale, min_max, pad_value, pad_before, divisor, out_dtype)
    return _tensor(small.transpose(2, 0, 1), *rules)


def _window(image: Array, low: float, high: float) -> Array:
    share = (image.astype(np.float64) - low) / (high - low)
    return np.asarray(np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * 255)


def preprocess_window(
    image: Array,
    *,
    window: tuple[float, float],
    out_size: Size,
    resized: Size,
    interpolation: str,
    rounding: str = "nearest",
    via: Sequence[Size] = (),
    divisor: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1.0,
    min_max: bool = False,
    pad_value: float = 0.0,
    pad_before: bool = False,
    out_dtype: str = "float32",
) -> Array:
    """See :func:`samrt._kernels.preprocess_window`."""
    values = _window(image, *window).astype(np.float32) / np.float32(divisor)
    if interpolation == "bspline_antialias":
        values = np.repeat(values[..., None], 3, axis=2)
    if rounding == "none":
        values = resize_floats(values, resized, interpolation, via)
    else:
        values = resize_window(values, resized, interpolation)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    rules = (out_size, mean, std, scale, min_max, pad_value, pad_before, divisor, out_dtype)
    return _tensor(values.transpose(2, 0, 1), *rules)


def window_to_uint8(image: Array, lo: float, hi: float) -> NDArray[np.uint8]:
    """See :func:`samrt._kernels.window_to_uint8`."""
    return np.floor(_window(image, lo, hi) + 0.5).astype(np.uint8)


# --- logits -------------------------------------------------------------------------------


def _positions(before: int, size: int) -> Array:
    """PyTorch's source positions in float32, ``align_corners=False``."""
    scale = np.float64(np.float32(before) / np.float32(size))
    return np.asarray(scale * (np.arange(size) + 0.5) - 0.5, np.float32)


def _step(values: Array, axis: int, size: int, interpolation: str) -> Array:
    """PyTorch's interpolation along one axis: ``bilinear``, ``bicubic`` or ``nearest``."""
    before = values.shape[axis]
    position = _positions(before, size)
    if interpolation == "nearest":
        scale = np.float32(before) / np.float32(size)
        left = np.floor(np.arange(size).astype(np.float32) * scale).astype(int)
        return np.asarray(np.take(values, np.minimum(left, before - 1), axis))
    if interpolation == "bilinear":
        position = np.maximum(position, 0)
        left = np.minimum(position.astype(int), before - 1)
        share = np.clip(position - left, 0, 1).astype(np.float32)
        samples, weights = [left, left + 1], [1 - share, share]
    else:
        left = np.floor(position).astype(int)
        x = (position - left).astype(np.float32)
        samples, weights = [left - 1, left, left + 1, left + 2], _cubic_weights(x)
    shape = [1] * values.ndim
    shape[axis] = size
    total = np.zeros(1, np.float32)
    for k, w in zip(samples, weights, strict=True):
        total = total + w.reshape(shape) * np.take(values, np.clip(k, 0, before - 1), axis)
    return np.asarray(total)


def _cubic_weights(x: Array) -> list[Array]:
    """Keys' cubic with a = -0.75 at the distances 1 + x, x, 1 - x and 2 - x."""
    a = np.float32(-0.75)

    def near(d: Array) -> Array:
        return np.asarray(((a + 2) * d - (a + 3)) * d * d + 1)

    def far(d: Array) -> Array:
        return np.asarray(((a * d - 5 * a) * d + 8 * a) * d - 4 * a)

    return [far(x + 1), near(x), near(1 - x), far(2 - x)]


def upscale_logits(
    logits: NDArray[np.float32],
    *,
    frame: Size,
    crop: Size,
    out: Size,
    interpolation: str = "bilinear",
) -> NDArray[np.float32]:
    """See :func:`samrt._kernels.upscale_logits`."""
    values: Array = logits
    if interpolation != "bicubic":
        for axis in (1, 2):
            values = _step(values, axis, frame[axis - 1], interpolation)
    values = values[:, : crop[0], : crop[1]]
    for axis in (1, 2):
        values = _step(values, axis, out[axis - 1], interpolation)
    return np.asarray(values, np.float32)


def masks_from_logits(
    logits: NDArray[np.float32],
    *,
    frame: Size,
    crop: Size,
    out: Size,
    interpolation: str = "bilinear",
    threshold: float = 0.0,
    probability: bool = False,
) -> NDArray[np.bool_]:
    """See :func:`samrt._kernels.masks_from_logits`."""
    if probability:
        with np.errstate(over="ignore"):
            logits = (1 / (1 + np.exp(-logits))).astype(np.float32)
    sizes: dict[str, Any] = {"frame": frame, "crop": crop, "out": out}
    return np.asarray(upscale_logits(logits, interpolation=interpolation, **sizes) > threshold)


def stability(
    logits: NDArray[np.float32], threshold: float = 0.0, offset: float = 1.0
) -> NDArray[np.float32]:
    """See :func:`samrt._kernels.stability`."""
    inner = (logits > np.float32(threshold + offset)).sum(axis=(1, 2))
    outer = (logits > np.float32(threshold - offset)).sum(axis=(1, 2))
    return np.asarray(inner / np.maximum(outer, 1), np.float32)


# --- masks --------------------------------------------------------------------------------


def mask_stats(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """See :func:`samrt._kernels.mask_stats`."""
    boxes = np.zeros((len(mask), 4), np.int64)
    for box, one in zip(boxes, mask, strict=True):
        ys, xs = np.nonzero(one)
        if len(ys):
            box[:] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return mask.sum(axis=(1, 2), dtype=np.int64), boxes


def rle_encode(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """See :func:`samrt._kernels.rle_encode`."""
    column_order = mask.T.ravel()
    changes = np.flatnonzero(np.diff(column_order, prepend=False))
    return np.diff(changes, prepend=0, append=column_order.size).astype(np.uint32)


def rle_decode(counts: NDArray[np.uint32], size: Size) -> NDArray[np.bool_]:
    """See :func:`samrt._kernels.rle_decode`."""
    values = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, counts).reshape(size[1], size[0]).T)


def rle_to_string(counts: NDArray[np.uint32]) -> bytes:
    """See :func:`samrt._kernels.rle_to_string`."""
    text = bytearray()
    for i, count in enumerate(counts):
        value = int(count) - (int(counts[i - 2]) if i > 2 else 0)
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text.append(48 + (group if done else group | 32))
            if done:
                break
    return bytes(text)


def rle_from_string(text: bytes) -> NDArray[np.uint32]:
    """See :func:`samrt._kernels.rle_from_string`."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = character - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return np.array(counts, np.uint32)


def connected_components(
    mask: NDArray[np.bool_], connectivity: int = 8
) -> tuple[NDArray[np.int32], int]:
    """See :func:`samrt._kernels.connected_components`."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if connectivity == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    labels = np.zeros(mask.shape, np.int32)
    regions = 0
    for seed in zip(*np.nonzero(mask), strict=True):
        if labels[seed]:
            continue
        regions += 1
        labels[seed] = regions
        queue = deque([seed])
        while queue:
            y, x = queue.popleft()
            for dy, dx in steps:
                v, u = y + dy, x + dx
                if not (0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]):
                    continue
                if mask[v, u] and not labels[v, u]:
                    labels[v, u] = regions
                    queue.append((v, u))
    return labels, regions


def remove_small_regions(
    mask: NDArray[np.bool_], min_area: float, mode: str
) -> tuple[NDArray[np.bool_], bool]:
    """See :func:`samrt._kernels.remove_small_regions`."""
    holes = mode == "holes"
    labels, regions = connected_components(mask ^ holes, 8)
    areas = np.bincount(labels.ravel(), minlength=regions + 1)[1:]
    small = areas < min_area
    if not small.any():
        return mask.copy(), False
    inside = np.concatenate([[holes], small == holes])
    if not holes and small.all():
        inside[1 + areas.argmax()] = True
    return np.asarray(inside[labels]), True


def mask_polygons(mask: NDArray[np.bool_]) -> list[list[NDArray[np.float64]]]:
    """See :func:`samrt._kernels.mask_polygons`."""
    labels, regions = connected_components(mask, 4)
    padded = np.pad(mask, 1)
    polygons: list[list[NDArray[np.float64]]] = [[] for _ in range(regions)]
    # Every edge between inside and outside, directed so that the inside is on its right.
    edges: set[tuple[int, int, int, int]] = set()
    for y, x in zip(*np.nonzero(padded), strict=True):
        for dx, dy, corner in ((1, 0, (0, 0)), (0, 1, (1, 0)), (-1, 0, (1, 1)), (0, -1, (0, 1))):
            if not padded[y - dx, x + dy]:  # the neighbour on the left of the edge
                edges.add((int(x) - 1 + corner[0], int(y) - 1 + corner[1], dx, dy))
    followed: set[tuple[int, int, int, int]] = set()
    for y, x in zip(*np.nonzero(mask), strict=True):
        edge = (int(x), int(y), 1, 0)
        if edge not in edges or edge in followed:
            continue
        ring = []
        while edge not in followed:
            followed.add(edge)
            ring.append(edge)
            cx, cy, dx, dy = edge
            # At the end of an edge: right before straight on before left.
            turns = ((-dy, dx), (dx, dy), (dy, -dx))
            edge = next(e for t in turns if (e := (cx + dx, cy + dy, *t)) in edges)
        corners = [a for a, b in zip(ring, [ring[-1], *ring], strict=False) if a[2:] != b[2:]]
        points = np.array([corner[:2] for corner in corners], np.float64)
        polygons[labels[y, x] - 1].append(points)
    return polygons
