"""samrt's own operators for ONNX Runtime (domain ``samrt``, version 1) in plain NumPy.

This is where to read what an operator means: the tests compare graphs and the C++ library with
these. Nothing falls back to them. Everything is computed in float64 and returned as float32;
tokens are channels last, and inputs that are left out are ``None``. Arguments are not checked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "attention",
    "depthwise_conv",
    "gelu",
    "image_update",
    "layer_norm",
    "linear",
    "mb_conv",
    "mlp",
    "upscale_masks",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


def gelu(x: NDArray[Any]) -> F64:
    """x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel 2016), exact."""
    erf = np.asarray(_erf(np.asarray(x, np.float64) / math.sqrt(2.0)), np.float64)
    return np.asarray(x * (1.0 + erf) / 2.0, np.float64)


def layer_norm(
    x: NDArray[Any], gamma: NDArray[Any], beta: NDArray[Any] | None, epsilon: float
) -> F64:
    """(x - mean) / sqrt(var + epsilon) gamma + beta over the last axis (Ba et al. 2016)."""
    wide = np.asarray(x, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma
    return np.asarray(scaled if beta is None else scaled + beta, np.float64)


def linear(
    x: F32,
    weight: F32,
    bias: F32 | None = None,
    gamma: F32 | None = None,
    beta: F32 | None = None,
    residual: F32 | None = None,
    *,
    epsilon: float = 0.0,
    gelu_after: bool = False,
    norm: bool = False,
) -> F32:
    """gelu?(norm?(x) @ weight + bias) + residual; x (..., K), weight (K, N), result (..., N)."""
    y = np.asarray(x, np.float64)
    if norm:
        if gamma is None:
            raise ValueError("a norm needs its gamma")
        y = layer_norm(y, gamma, beta, epsilon)
    y = y @ weight.astype(np.float64)
    y = y if bias is None else y + bias
    y = gelu(y) if gelu_after else y
    return _single(y if residual is None else y + residual)


def mlp(
    x: F32, gamma: F32, beta: F32, w1: F32, b1: F32, w2: F32, b2: F32, *, epsilon: float
) -> F32:
    """x + gelu(norm(x) @ w1 + b1) @ w2 + b2; x (..., K), w1 (K, H), w2 (H, K)."""
    hidden = gelu(layer_norm(x, gamma, beta, epsilon) @ w1.astype(np.float64) + b1)
    return _single(x + (hidden @ w2.astype(np.float64) + b2))


def depthwise_conv(x: F32, weight: F32, bias: F32) -> F32:
    """3 x 3 per channel, stride 1, zero padding 1; x (1, H, W, C), weight (9, C) row by row."""
    return _single(_taps(x.astype(np.float64), weight, bias, 1))


def mb_conv(
    x: F32, w1: F32, b1: F32, wd: F32, bd: F32, w3: F32, b3: F32, *, stride: int, residual: bool
) -> F32:
    """Widen, depthwise 3 x 3, narrow; x (1, H, W, C_in) to (1, ceil(H / s), ceil(W / s), C_out).

    a = gelu(x w1 + b1); c = gelu(depthwise(a)); y = c w3 + b3; with ``residual`` gelu(x + y).
    """
    wide = gelu(x @ w1.astype(np.float64) + b1)
    mixed = gelu(_taps(wide, wd, bd, stride))
    y = mixed @ w3.astype(np.float64) + b3
    return _single(gelu(x + y) if residual else y)


def attention(
    qkv: F32,
    query_bias: F32 | None = None,
    rows: F32 | None = None,
    columns: F32 | None = None,
    bias: F32 | None = None,
    *,
    heads: int,
    grid_h: int,
    grid_w: int,
    window_h: int,
    window_w: int,
) -> F32:
    """Attention inside windows that are cut from the upper left corner of a grid of tokens.

    Args:
        qkv: ``(1, h * w, 3 C)`` or ``(1, h, w, 3 C)``; q, k, v, each ``[heads][d]``; q scaled.
        query_bias: ``(C,)``, added to q.
        rows: ``(window_h, d, window_h)``; adds ``q . rows[i, :, j]`` for a query in row i of its
            window and a key in row j.
        columns: ``(window_w, d, window_w)``, the same of columns.
        bias: ``(heads, N, N)``, added to the scores of the N tokens of a window.

    Returns:
        ``(1, h * w, C)`` or ``(1, h, w, C)``. Tokens past the grid's edge are keys with k = v = 0
        whose terms count, and no queries.
    """
    width = qkv.shape[-1] // 3
    d = width // heads
    tokens = qkv.astype(np.float64).reshape(grid_h, grid_w, 3, heads, d).copy()
    if query_bias is not None:
        tokens[:, :, 0] += query_bias.reshape(heads, d)
    out = np.empty((grid_h, grid_w, heads, d))
    for top in range(0, grid_h, window_h):
        for left in range(0, grid_w, window_w):
            part = tokens[top : top + window_h, left : left + window_w]
            mixed = _window(part, (window_h, window_w), rows, columns, bias)
            out[top : top + window_h, left : left + window_w] = mixed
    return _single(out.reshape(*qkv.shape[:-1], width))


def image_update(
    image: F32,
    scores: F32,
    values: F32,
    codes: F32,
    gamma: F32,
    beta: F32,
    rows: F32 | None = None,
    *,
    heads: int,
    epsilon: float,
) -> tuple[F32, F32]:
    """The image's attention to the tokens in SAM's mask decoder, its shortcut and norm.

    Args:
        image: ``(1 or N, HW, C)``.
        scores: ``(N, heads * T, HW)``; the softmax is over the T tokens of a head.
        values: ``(N, heads * T + R, C)``, the output projection in them.
        codes: ``(1, HW, C)``, position codes.
        gamma: ``(C,)``; ``beta`` the same.
        rows: ``(N, R, HW)``, further weights as they are; ``None``: R = 0.

    Returns:
        norm(image + weights^T values) and that plus ``codes``, both ``(N, HW, C)``.
    """
    split = scores.astype(np.float64).reshape(len(scores), heads, -1, scores.shape[2])
    powers = np.exp(split - split.max(2, keepdims=True))
    weights = (powers / powers.sum(2, keepdims=True)).reshape(scores.shape)
    if rows is not None:
        weights = np.concatenate([weights, rows], 1)
    mixed = weights.transpose(0, 2, 1) @ values.astype(np.float64)
    y = layer_norm(image + mixed, gamma, beta, epsilon)
    return _single(y), _single(y + codes)


def upscale_masks(
    x: F32,
    hyper: F32,
    w1: F32,
    b1: F32,
    gamma: F32,
    beta: F32,
    w2: F32,
    b2: F32,
    *,
    height: int,
    width: int,
    epsilon: float,
) -> F32:
    """The end of SAM's mask decoder: twice a transposed convolution by two, then the masks.

    Args:
        x: ``(N, h * w, C)``, the image after the decoder's attention.
        hyper: ``(N, M, F)``, weights of each mask for the F channels of the second convolution.
        w1: ``(C, 4 K)``, b1 ``(4 K,)``: the first convolution; columns are row and column of the
            2 x 2 block that a token becomes, then the channel. Norm over K channels and GELU.
        gamma: ``(K,)``; ``beta`` the same.
        w2: ``(K, 4 F)``, b2 ``(4 F,)``: the second one, followed by GELU.

    Returns:
        ``(N, M, 4 h, 4 w)``: the product of ``hyper`` with the F channels.
    """
    count = len(x)
    middle, fine = len(gamma), w2.shape[1] // 4
    y = (x @ w1.astype(np.float64) + b1).reshape(count, height, width, 2, 2, middle)
    y = gelu(layer_norm(y, gamma, beta, epsilon)) @ w2.astype(np.float64) + b2
    y = gelu(y).reshape(count, height, width, 2, 2, 2, 2, fine)
    y = y.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(count, 16 * height * width, fine)
    masks = hyper @ y.transpose(0, 2, 1)
    return _single(masks.reshape(count, hyper.shape[1], 4 * height, 4 * width))


def _window(
    part: F64,
    window: tuple[int, int],
    rows: F32 | None,
    columns: F32 | None,
    bias: F32 | None,
) -> F64:
    """(high, wide, 3, heads, d) of a window's real tokens to (high, wide, heads, d)."""
    high, wide, _, heads, d = part.shape
    full = np.zeros((*window, 3, heads, d))
    full[:high, :wide] = part
    q, k, v = (full[:, :, index] for index in range(3))
    scores = np.einsum("iuhd,jwhd->hiujw", q, k)
    if rows is not None:
        scores += np.einsum("iuhd,idj->hiuj", q, rows.astype(np.float64))[..., None]
    if columns is not None:
        scores += np.einsum("iuhd,udw->hiuw", q, columns.astype(np.float64))[:, :, :, None]
    count = window[0] * window[1]
    flat = scores.reshape(heads, count, count)
    flat = flat if bias is None else flat + bias
    weights = np.exp(flat - flat.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hnm,mhd->nhd", weights, v.reshape(count, heads, d))
    return np.asarray(mixed.reshape(*window, heads, d)[:high, :wide])


def _taps(x: F64, weight: F32, bias: F32, stride: int) -> F64:
    """Depthwise 3 x 3 with zero padding 1; weight (9, C)."""
    _, height, width, channels = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sizes = (-(-height // stride), -(-width // stride))
    out: F64 = np.zeros((1, *sizes, channels)) + bias
    for tap in range(9):
        y, x0 = divmod(tap, 3)
        out += padded[:, y : y + height : stride, x0 : x0 + width : stride] * weight[tap]
    return out


def _single(x: NDArray[Any]) -> F32:
    return np.ascontiguousarray(x, np.float32)
