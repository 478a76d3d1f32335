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
    "conv3x3",
    "depthwise_conv",
    "gelu",
    "image_pass",
    "layer_norm",
    "linear",
    "mask_rows",
    "mb_conv",
    "mlp",
    "read_image",
    "stem",
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


def conv3x3(x: F32, weight: F32) -> F32:
    """3 x 3, stride 1, zero padding 1; x (1, H, W, C), weight (N, C, 3, 3), to (1, H, W, N)."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = weight.astype(np.float64).transpose(2, 3, 1, 0)
    return _single(
        sum(
            padded[:, i : i + height, j : j + width] @ taps[i, j]
            for i in range(3)
            for j in range(3)
        )
    )


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


def stem(image: F32, w1: F32, b1: F32, w2: F32, b2: F32) -> F32:
    """Two 3 x 3 convolutions of stride 2, zero padding 1, with a GELU between them.

    image (1, C, H, W), w1 (9, C, M) and w2 (9, M, N), taps row by row, to (1, ceil(H / 4),
    ceil(W / 4), N), channels last.
    """
    x = image.astype(np.float64).transpose(0, 2, 3, 1)
    return _single(_halved(gelu(_halved(x, w1, b1)), w2, b2))


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


def mask_rows(
    masks: F32,
    has_mask: F32,
    w1: F32,
    b1: F32,
    gamma1: F32,
    beta1: F32,
    w2: F32,
    b2: F32,
    gamma2: F32,
    beta2: F32,
    *,
    epsilon: float,
) -> F32:
    """Mask prompts in SAM's decoder up to the last, linear layer of `mask_downscaling`.

    Args:
        masks: ``(N, 1, 4 h, 4 w)`` logits.
        has_mask: ``(N,)``; 0: this prompt has none.
        w1: ``(4, C1)``, a 2 x 2 convolution with stride 2; its rows are row and column of a patch.
        b1: ``(C1,)``; ``gamma1`` and ``beta1`` of the norm over channels that follows, then gelu.
        w2: ``(4 C1, C)``, the next one, rows: row, column, channel; ``b2`` and its norm likewise.

    Returns:
        ``(N, C + 1, h w)``, the last row of ones; all zero for a prompt without a mask.
    """
    x = masks.astype(np.float64).transpose(0, 2, 3, 1)
    for weight, bias, gamma, beta in ((w1, b1, gamma1, beta1), (w2, b2, gamma2, beta2)):
        n, high, wide, c = x.shape
        patches = x.reshape(n, high // 2, 2, wide // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        y = patches.reshape(n, high // 2, wide // 2, 4 * c) @ weight.astype(np.float64) + bias
        x = gelu(layer_norm(y, gamma, beta, epsilon))
    rows = x.reshape(len(x), -1, x.shape[3]).transpose(0, 2, 1)
    rows = np.concatenate([rows, np.ones_like(rows[:, :1])], 1)
    return _single(np.where(has_mask.reshape(-1, 1, 1) != 0, rows, 0.0))


def read_image(
    queries: F32,
    keys: F32,
    values: F32,
    has_mask: F32 | None = None,
    rows: F32 | None = None,
    columns: F32 | None = None,
    mask_values: F32 | None = None,
) -> F32:
    """The first attention of tokens to the image in SAM's mask decoder, between its projections.

    Args:
        queries: ``(N, heads, T, d)``, scaled.
        keys: ``(1, heads, d, HW)`` of the image, one for all prompts.
        values: ``(1, heads, HW, d)``, the same.
        has_mask: ``(N,)``; the other inputs count where it is not 0.
        rows: ``(N, C, HW)`` of mask prompts.
        columns: ``(N, heads * T, C)``; times ``rows`` it is added to the scores.
        mask_values: ``(heads, C, d)``; ``rows`` times it is added to the values.

    Returns:
        ``(N, heads, T, d)``.
    """
    n, heads, tokens, width = queries.shape
    scores = queries.astype(np.float64) @ keys
    own = np.broadcast_to(values.astype(np.float64), (n, *values.shape[1:]))
    if rows is not None and columns is not None and mask_values is not None:
        given = _given(rows, has_mask)
        scores = scores + (columns @ given).reshape(n, heads, tokens, -1)
        own = own + given.transpose(0, 2, 1)[:, None] @ mask_values.reshape(heads, -1, width)
    return _single(_softmax(scores, -1) @ own)


def image_pass(
    image: F32,
    codes: F32,
    gamma: F32,
    beta: F32,
    values: F32,
    queries: F32,
    keys: F32,
    offset: F32 | None = None,
    side: F32 | None = None,
    has_mask: F32 | None = None,
    rows: F32 | None = None,
    columns: F32 | None = None,
    mask_weight: F32 | None = None,
    *,
    heads: int,
    epsilon: float,
) -> tuple[F32, F32]:
    """The image attends to tokens, is normalised, and tokens attend to it: SAM's mask decoder.

    Args:
        image: ``(1 or N, HW, C)``, or as the encoder gives it, ``(1 or N, C, h, w)``.
        codes: ``(1, HW, C)``, position codes.
        gamma: ``(C,)``; ``beta`` the same.
        values: ``(N, heads * T, C)`` of the tokens, the output projection in them.
        queries: ``(N, R, C)`` of the tokens that look at the new image, scaled, the image's key
            projection in them.
        keys: ``(N, heads * T, C)`` of the tokens, scaled, the image's query projection in them;
            with ``side`` ``(N, heads, T, d)`` without it.
        offset: ``(N, heads * T, 1)``, added to the scores; without ``side``.
        side: ``(1, heads, d, HW)``, the projected queries of the image.
        has_mask: ``(N,)``; the other inputs count where it is not 0.
        rows: ``(N, M, HW)`` of mask prompts.
        columns: ``(N, heads * T, M)``; times ``rows`` it is added to the scores.
        mask_weight: ``(M, C)``; ``rows`` times it is added to the image.

    Returns:
        The new image ``(N, HW, C)``, norm(image + softmax over the T tokens of each head of
        (image + codes) keys^T times values), and what the queries see of it, ``(N, R, C)``.
    """
    old = image.astype(np.float64)
    if old.ndim == 4:
        old = old.reshape(*old.shape[:2], -1).transpose(0, 2, 1)
    n, places = len(values), old.shape[1]
    if side is None:
        scores = keys.astype(np.float64) @ (old + codes).transpose(0, 2, 1)
        scores = scores + (0.0 if offset is None else offset.reshape(n, -1, 1))
    else:
        scores = keys.astype(np.float64) @ side
    scores = scores.reshape(n, heads, -1, places)
    if rows is not None and columns is not None and mask_weight is not None:
        given = _given(rows, has_mask)
        scores = scores + (columns @ given).reshape(scores.shape)
        old = old + given.transpose(0, 2, 1) @ mask_weight
    weights = _softmax(scores, 2).reshape(n, -1, places)
    mixed = weights.transpose(0, 2, 1) @ values.astype(np.float64)
    y = layer_norm(old + mixed, gamma, beta, epsilon)
    return _single(y), _single(_softmax(queries @ (y + codes).transpose(0, 2, 1), -1) @ y)


def _given(rows: F32, has_mask: F32 | None) -> F64:
    """Rows of prompts that have a mask, zero elsewhere."""
    if has_mask is None:
        return rows.astype(np.float64)
    return np.where(has_mask.reshape(-1, 1, 1) != 0, rows.astype(np.float64), 0.0)


def _softmax(scores: NDArray[Any], axis: int) -> F64:
    powers = np.exp(scores - scores.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True), np.float64)


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


def _halved(x: F64, weight: F32, bias: F32) -> F64:
    """3 x 3 convolution of stride 2 with zero padding 1; x (1, H, W, K), weight (9, K, N)."""
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [
        padded[:, tap // 3 : tap // 3 + height : 2, tap % 3 : tap % 3 + width : 2]
        @ weight[tap].astype(np.float64)
        for tap in range(9)
    ]
    return np.asarray(sum(parts) + bias, np.float64)


def _single(x: NDArray[Any]) -> F32:
    return np.ascontiguousarray(x, np.float32)
