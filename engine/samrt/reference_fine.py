"""Operators of ``tiny`` in plain NumPy; see :mod:`samrt.reference_operators`.

``S`` is the side of the grid of stride 16; ``n`` is 4 S, that of stride 4. Maps and planes are
channels first, the image at stride 16 is channels last. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_prompts", "fine_encoder", "fine_masks", "read_rows"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_SIGMAS = (5.0, 30.0)


def fine_encoder(image: F32, *weights: F32, blocks: Sequence[int]) -> tuple[F32, ...]:
    """The image encoder.

    Args:
        image: (1, 3, S, S).
        weights: (out, channels, taps, taps) and bias of each convolution: the stem of five taps and
            stride 2; for each of four stages one of stride 2, then two for each residual block; at
            strides 16, 8 and 4 the lateral layer, the coarser level's, and the one behind the sum
            of both; the layers of the four results, and that of stride 4 for the last result.
        blocks: residual blocks of each stage.

    Returns:
        (1, ., S / k, S / k) for k = 16, 8, 4, 2.
    """
    own = iter(zip(*[(np.asarray(w, np.float64) for w in weights)] * 2, strict=True))

    def layer(x: F64) -> F64:
        weight, bias = next(own)
        return _point(weight[:, :, 0, 0], x) + _tall(bias)

    def halved(x: F64) -> F64:
        weight, bias = next(own)
        return np.maximum(_conv(x, weight, bias, stride=2), 0)

    levels = [halved(np.float64(image[0]))]
    for count in blocks:
        x = halved(levels[-1])
        for _ in range(count):
            x = _residual(x, (*next(own), *next(own)))
        levels.append(x)
    coarse, merged = levels.pop(), []
    for fine in levels[:0:-1]:
        lateral = layer(fine)
        both = np.maximum(lateral + _doubled(layer(coarse)), 0)
        coarse = np.maximum(_conv(both, *next(own)), 0)
        merged.append(coarse)
    found = [layer(x) for x in (*merged, levels[0])]
    found[-1] = found[-1] + _doubled(layer(coarse))
    return tuple(x[None].astype(np.float32) for x in found)


def draw_prompts(
    point_coords: F32,
    point_labels: F32,
    mask_input: F32,
    has_mask: F32,
    embedding: F32,
    w1: F32,
    b1: F32,
    w2: F32,
    b2: F32,
) -> tuple[F32, F32]:
    """The prompts as twelve maps each, and the image with what two layers make of them.

    Args:
        point_coords: (N, P, 2) pixels of the frame of 16 S, pixel centres at .5.
        point_labels: (N, P): 1 and 0 for clicks, 2 and 3 for the corners of a box.
        mask_input: (N, 1, 8 S, 8 S) logits.
        has_mask: (N): whether they count.
        embedding: (1, C, S, S).
        w1, b1: a 3 x 3 convolution with zero padding as a matrix (12 * 9, M), rows (map, down,
            across), and its bias; a ReLU follows.
        w2, b2: a linear layer (M, C).

    Returns:
        maps (N, 12, n, n): of the box its coordinates u and v in half sides from its centre, the
        ellipse 1 - u^2 - v^2, min(1 - |u|, 1 - |v|), the same in pixels / 16, all within +-2, and
        its presence; narrow and wide bumps of positive, then of negative clicks; the tangent of
        the mask's logits / 4 and its presence. And the image (N, S * S, C).
    """
    side = embedding.shape[2]
    n = 4 * side
    grid = (np.arange(n, dtype=np.float64) + 0.5) * 4
    maps = np.stack(
        [
            _drawn(grid, np.float64(xy), labels, _halves(np.float64(mask[0])), float(has))
            for xy, labels, mask, has in zip(
                point_coords, point_labels, mask_input, has_mask, strict=True
            )
        ]
    )
    small = np.pad(_halves(_halves(maps)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = np.lib.stride_tricks.sliding_window_view(small, (3, 3), axis=(2, 3))
    rows = taps.transpose(0, 2, 3, 1, 4, 5).reshape(len(maps), side * side, -1)
    hidden = np.maximum(rows @ w1.astype(np.float64) + b1, 0)
    image = hidden @ w2.astype(np.float64) + b2 + embedding[0].reshape(-1, side * side).T
    return maps.astype(np.float32), image.astype(np.float32)


def _drawn(grid: F64, xy: F64, labels: F32, mask: F64, has_mask: float) -> F64:
    low, high = (np.sum(xy * (labels == k)[:, None], axis=0) for k in (2, 3))
    has = float(np.any(labels == 2))
    reach = np.maximum((high - low) / 2, 1.0)
    u = ((grid - (low[0] + high[0]) / 2) / reach[0])[None, :]
    v = ((grid - (low[1] + high[1]) / 2) / reach[1])[:, None]
    inner = (1 - np.abs(u), 1 - np.abs(v))
    box = [
        u, v, 1 - u**2 - v**2, np.minimum(*inner),
        np.minimum(inner[0] * reach[0], inner[1] * reach[1]) / 16,
    ]  # fmt: skip
    shape = (len(grid), len(grid))
    parts = [np.broadcast_to(np.clip(part, -2, 2) * has, shape) for part in box]
    parts.append(np.full(shape, has))
    for kind in (1, 0):
        clicks = xy[labels == kind]
        for sigma in _SIGMAS:
            bumps = [
                np.exp(-((grid - y)[:, None] ** 2 + (grid - x)[None, :] ** 2) / (2 * sigma**2))
                for x, y in clicks
            ]
            parts.append(np.max(bumps, axis=0) if bumps else np.zeros(shape))
    parts += [np.tanh(mask / 4) * has_mask, np.full(shape, has_mask)]
    return np.stack(parts)


def read_rows(image: F32, codes: F32, queries: F32) -> F32:
    """softmax(queries (image + codes)^T) image: (N, P, C), (1, P, C), (N, R, C) to (N, R, C)."""
    wide = image.astype(np.float64)
    scores = queries.astype(np.float64) @ (wide + codes).transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ wide, np.float32)


def fine_masks(
    image: F32, f8: F32, f4: F32, f2: F32, maps: F32, hyper: F32, *weights: F32
) -> tuple[F32, F32, F32]:
    """Masks at stride 2, and the figures that their scores are made of.

    Args:
        image: (N, S * S, C) behind the transformer.
        f8, f4, f2: (1, ., k S, k S) features of stride 8, 4 and 2, k = 2, 4 and 8.
        maps: of `draw_prompts`.
        hyper: (N, M, channels of f2 + 1): weights and bias of the last layer for each mask.
        weights: at stride 16 three convolutions of a residual block, (C, K), (K, K, 3, 3), (K, C),
            each with its bias; (C, f8) and bias; a, b, weight (4 f8, f8) and bias of the
            comparison at stride 8, and the same at stride 4; (12, f8) and bias; two convolutions
            (f8, f8, 3, 3) with bias; (f4, f8) and bias; (f4, 12) and bias; two convolutions
            (f4, f4, 3, 3) with bias; (f2, f4) and bias; (f2, f2, 3, 3) and bias.

    Returns:
        masks (N, M, 8 S, 8 S). Figures (N, M, 8): soft IoU of the probabilities with the
        thresholded mask, size, fit to the box of the extent in rows and in columns, share of the
        box that is filled, presence of a box, mean probability at clicks, positive and negative.
        And (N, M): 1 without a box, with one how well the thresholded mask's extent fits it.
    """
    found = [
        _one(image[k], f8[0], f4[0], f2[0], np.float64(maps[k]), hyper[k], weights)
        for k in range(len(image))
    ]
    masks, figures, fit = (np.stack(part).astype(np.float32) for part in zip(*found, strict=True))
    return masks, figures, fit


def _one(
    image: F32, f8: F32, f4: F32, f2: F32, maps: F64, hyper: F32, weights: Sequence[F32]
) -> tuple[F64, F64, F64]:
    """The same for one prompt."""
    side = f8.shape[1] // 2
    own = [np.asarray(w, np.float64) for w in weights]
    x = np.float64(image).T.reshape(-1, side, side)
    y = np.maximum(_point(own[0].T, x) + _tall(own[1]), 0)
    y = np.maximum(_conv(y, own[2], own[3]), 0)
    x = np.maximum(x + _point(own[4].T, y) + _tall(own[5]), 0)
    ellipse, field, has, soft = maps[2], maps[3], maps[5], maps[10]
    ring = np.maximum(1 - np.abs(field + 0.4) * 3, 0) * has
    mass = np.stack(
        [
            np.maximum(ellipse, 0) + maps[6] + np.maximum(soft, 0),
            ring + maps[8] + np.maximum(-soft, 0) * 0.1 + 0.003,
        ]
    )
    down = _point(own[6].T, x) + _tall(own[7])
    like = _compared(np.float64(f8), _halves(mass), own[8:12])
    dense = _point(own[16].T, _halves(maps)) + _tall(own[17])
    x = _residual(np.maximum(_doubled(down) + like + dense, 0), own[18:22])
    down = _point(own[22], x) + _tall(own[23])
    like = _compared(np.float64(f4), mass, own[12:16])
    dense = _point(own[24], maps) + _tall(own[25])
    x = _residual(np.maximum(_doubled(down) + like + dense, 0), own[26:30])
    down = _point(own[30], x) + _tall(own[31])
    x = np.maximum(_conv(np.maximum(_doubled(down) + f2, 0), own[32], own[33]), 0)
    masks = _point(np.float64(hyper[:, :-1]), x) + _tall(np.float64(hyper[:, -1]))
    figures = [_figures(mask, maps) for mask in _halves(masks)]
    return masks, np.stack([f for f, _ in figures]), np.array([fit for _, fit in figures])


def _figures(logits: F64, maps: F64) -> tuple[F64, float]:
    n = len(logits)
    p, hard = 1 / (1 + np.exp(-logits)), np.float64(logits > 0)
    both, soft, area = (p * hard).sum(), p.sum(), hard.sum()
    has, fits, cells, fit = float(maps[5, 0, 0]), [], [], 1.0
    for axis, line in ((1, maps[1][:, 0]), (0, maps[0][0])):
        within = np.float64(np.abs(line) <= 1) * has
        for extent in (p.max(axis), np.float64(hard.max(axis))):
            shared = (extent * within).sum()
            fits.append(shared / (extent.sum() + within.sum() - shared + 1e-3))
        cells.append(within.sum())
        fit *= fits[-1]
    seen = [(p * maps[k]).sum() / (maps[k].sum() + 1e-3) for k in (6, 8)]
    filled = min(area / (cells[0] * cells[1] + 1), 2.0) * has
    figures = [both / (soft + area - both + 1), np.sqrt(area + 1e-6) / n]
    return np.array([*figures, fits[0] * has, fits[2] * has, filled, has, *seen]), (
        1 - has + has * fit
    )


def _compared(f: F64, mass: F64, like: Sequence[NDArray[Any]]) -> F64:
    """(I + a diag(p) + b diag(q)) f + bias, p and q the means of f under the two masses."""
    a, b, weight, bias = like
    means = np.einsum("khw,chw->kc", mass, f) / (mass.sum((1, 2)) + 1e-3)[:, None]
    both = means.ravel()
    matrix = np.eye(len(a)) + a * means[0] + b * means[1]
    return _point(matrix, f) + _tall(np.concatenate([both, both**2]) @ weight + bias)


def _residual(x: F64, layers: Sequence[NDArray[Any]]) -> F64:
    y = np.maximum(_conv(x, layers[0], layers[1]), 0)
    return np.maximum(x + _conv(y, layers[2], layers[3]), 0)


def _tall(bias: NDArray[Any]) -> F64:
    return np.asarray(bias, np.float64)[:, None, None]


def _point(matrix: NDArray[Any], x: F64) -> F64:
    return np.asarray(np.tensordot(matrix, x, 1), np.float64)


def _conv(x: F64, weight: NDArray[Any], bias: NDArray[Any], stride: int = 1) -> F64:
    """Zero padding by half the taps."""
    taps = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (taps // 2,) * 2, (taps // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.asarray(np.einsum("chwij,ocij->ohw", windows, weight, optimize=True)) + _tall(bias)


def _halves(x: F64) -> F64:
    """Means of 2 x 2."""
    *lead, h, w = x.shape
    return np.asarray(x.reshape(*lead, h // 2, 2, w // 2, 2).mean((-3, -1)), np.float64)


def _doubled(x: F64) -> F64:
    """Twice the height and width, bilinear with half-pixel centres, edges repeated."""
    for axis in (1, 2):
        x = np.moveaxis(x, axis, -1)
        edges = np.concatenate([x[..., :1], x, x[..., -1:]], axis=-1)
        near = 0.75 * x
        pairs = np.stack([near + 0.25 * edges[..., :-2], near + 0.25 * edges[..., 2:]], axis=-1)
        x = np.moveaxis(pairs.reshape(*x.shape[:-1], -1), -1, axis)
    return np.asarray(x, np.float64)
