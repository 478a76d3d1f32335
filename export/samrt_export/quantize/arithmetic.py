"""Int8 arithmetic of one layer in NumPy: what a weight and rows of inputs become."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samrt_export.quantize.histogram import LEVELS
from samrt_export.quantize.layers import Layer

__all__ = ["F32", "as_matrix", "quantise_rows", "quantise_weight", "sample_rows"]

F32 = NDArray[np.float32]
_TINY = np.float32(1e-12)


def as_matrix(layer: Layer, weight: F32) -> F32:
    """The weight as (K, N): inputs times outputs."""
    return weight.reshape(len(weight), -1).T if layer.kind == "conv" else weight


def quantise_weight(weight: F32, axis: int) -> tuple[NDArray[np.int8], F32]:
    """Symmetric int8 values and one scale for each index along `axis`.

    Args:
        weight: any shape, float32.
        axis: the axis of the outputs.

    Returns:
        int8 values of the weight's shape, within -127..127; scales (outputs,) float32.
    """
    others = tuple(k for k in range(weight.ndim) if k != axis)
    scales = np.maximum(np.abs(weight).max(axis=others), _TINY) / np.float32(LEVELS)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.clip(np.rint(weight / scales.reshape(shape)), -LEVELS, LEVELS)
    return np.ascontiguousarray(values.astype(np.int8)), np.ascontiguousarray(scales, np.float32)


def quantise_rows(rows: F32, clip: float) -> F32:
    """Rounded to 127 steps up to the clip and back; -128 is reached as runtimes do."""
    step = np.float32(clip / LEVELS)
    found: F32 = np.clip(np.rint(rows / step), -LEVELS - 1, LEVELS) * step
    return found


def sample_rows(layer: Layer, tensor: F32, count: int, rng: np.random.Generator) -> F32:
    """What a layer multiplies by its weight, at random places.

    Args:
        layer: the layer.
        tensor: what it reads; linear (..., K), convolution (1, C, H, W).
        count: how many places.
        rng: chooses them.

    Returns:
        (count, K) float32; of a convolution the patches, zeros where they reach over the border.
    """
    if layer.conv is None:
        flat = tensor.reshape(-1, tensor.shape[-1])
        return np.array(flat[rng.integers(0, len(flat), count)])
    (kh, kw), (sh, sw), (top, left, bottom, right) = (
        layer.conv.kernel, layer.conv.strides, layer.conv.pads,
    )  # fmt: skip
    _, channels, height, width = tensor.shape
    rows = np.zeros((count, channels, kh, kw), np.float32)
    ys = rng.integers(0, (height + top + bottom - kh) // sh + 1, count) * sh - top
    xs = rng.integers(0, (width + left + right - kw) // sw + 1, count) * sw - left
    for row, y, x in zip(rows, ys.tolist(), xs.tolist(), strict=True):
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + kh, height), min(x + kw, width)
        row[:, y0 - y : y1 - y, x0 - x : x1 - x] = tensor[0, :, y0:y1, x0:x1]
    return rows.reshape(count, -1)
