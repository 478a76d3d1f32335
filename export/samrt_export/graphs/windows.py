"""Attention inside the windows of a grid (TinyViT, Hiera), with the biases it does not need gone.

Three identities of softmax(q k^T) v:

- a bias of k adds one number to all scores of a query, which the softmax takes out again;
- the weights of a query sum to one, so a bias of v may be added behind the attention, and from
  there it moves through the output projection into that projection's bias;
- the shift of a norm before the projection is a bias of q, k and v as well.

Only q keeps a bias.  So the tokens that fill windows up at the edge of the grid are plain zeros in
k and v: the projection runs on the real tokens and its result is padded.  Where the original pads
before the norm (TinyViT), the norm's shift moves too, as the filling tokens have it as well; where
it pads after the norm (Hiera), they do not, and the shift stays in the norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import concat, split, tile_rows
from samrt_export.graphs.fold import Array64, float64
from samrt_export.graphs.vit_attention import SCORE_TILE_BYTES, Windows


@dataclass(frozen=True)
class WindowAttention:
    """The weights of one attention, float64, after the identities of this module's text."""

    qkv: Array64
    """(3, heads, d, C_in): q, k, v; q times the scale of the softmax."""
    query_bias: Array64
    """(heads, d), scaled."""
    proj_weight: Array64
    """(C_out, heads * d)."""
    proj_bias: Array64
    """(C_out)."""

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.qkv.shape[1])

    @property
    def width(self) -> int:
        """Channels of q, of k and of v."""
        return self.heads * int(self.qkv.shape[2])


def simplify(
    weight: Array64, bias: Array64, proj: nn.Linear, scale: float, shift: Array64 | None = None
) -> WindowAttention:
    """The attention whose biases of k and v are moved away.

    weight (3, heads, d, C_in) and bias (3, heads, d) of the projection to q, k, v; `scale`
    multiplies the scores; `shift` (C_in) is the bias of the norm before, if that leaves it out.
    """
    if shift is not None:
        bias = bias + weight @ shift
    factor = np.array([scale, 1.0, 1.0])[:, None, None, None]
    out = float64(proj.weight)
    return WindowAttention(
        weight * factor, bias[0] * scale, out, float64(proj.bias) + out @ bias[2].reshape(-1)
    )


def unshifted_norm(g: GraphBuilder, x: str, norm: nn.LayerNorm) -> str:
    """LayerNormalization over the last axis without the norm's bias."""
    weight = g.weight(float64(norm.weight))
    return g.op("LayerNormalization", x, weight, axis=-1, epsilon=norm.eps)


def attend(
    g: GraphBuilder, x: str, weights: WindowAttention, cut: Windows,
    position_bias: Array64 | None = None, *, pool: bool = False, tiled: bool = False,
) -> str:  # fmt: skip
    """Attention of normed tokens (1, H, W, C_in) in each window, output projection included.

    position_bias (heads, N, N) is added to the scores of the N tokens of a window.  With `pool`
    the queries are the maxima of 2 x 2 tokens, and so the result has half the rows and columns;
    grid and window must be even.  With `tiled`, attention whose scores take more than 4 MiB per
    head is emitted in tiles that stay in the processor's cache (for runtimes without a fused
    attention; not with a position bias).  Returns (1, H', W', C_out).
    """
    high, wide = cut.window
    with g.scope("qkv"):
        y = g.op("MatMul", x, g.weight(weights.qkv.reshape(3 * weights.width, -1).T))
        if cut.pads:
            spare = [cut.padded[0] - cut.grid[0], cut.padded[1] - cut.grid[1]]
            y = g.op("Pad", y, g.constant([0, 0, 0, 0, 0, *spare, 0], "int64"))
        q, k, v = _heads(g, y, weights, cut)
        if pool:
            cut = _halved(cut)
            q = _pooled_queries(g, q, weights, cut)
        q = g.op("Add", q, g.weight(weights.query_bias[:, None]))
    k = g.op("Transpose", k, perm=[0, 1, 3, 2])
    queries, keys = cut.window[0] * cut.window[1], high * wide
    tiles = queries // tile_rows(queries, keys * 4, SCORE_TILE_BYTES)
    if tiled and tiles > 1 and position_bias is None:
        y = _mix_tiled(g, q, k, v, weights.heads, tiles)
    else:
        scores = g.op("MatMul", q, k)
        if position_bias is not None:
            scores = g.op("Add", scores, g.weight(position_bias))
        y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    y = _tokens(g, y, weights, cut)
    with g.scope("proj"):
        return g.linear(y, weights.proj_weight, weights.proj_bias)


def _mix_tiled(g: GraphBuilder, q: str, k: str, v: str, heads: int, tiles: int) -> str:
    """softmax(q k) v, one head and a part of the queries at a time."""
    mixed = []
    for q1, k1, v1 in zip(*(split(g, t, heads, 1) for t in (q, k, v)), strict=True):
        done = []
        for part in split(g, q1, tiles, 2):
            scores = g.op("Softmax", g.op("MatMul", part, k1), axis=-1)
            done.append(g.op("MatMul", scores, v1))
        mixed.append(concat(g, done, axis=2))
    return concat(g, mixed, axis=1)


def pool_tokens(g: GraphBuilder, x: str, grid: tuple[int, int], channels: int) -> str:
    """Maxima of 2 x 2 tokens: (..., H, W, C), `grid` = (H, W) even, to (n, H / 2, W / 2, C).

    All leading axes become one.
    """
    height, width = grid
    x = g.shape(x, [-1, height, width // 2, 2 * channels])
    x = g.op("Max", *g.split_op("Split", 2, x, axis=3))
    x = g.shape(x, [-1, height // 2, 2, width // 2 * channels])
    x = g.op("Max", *g.split_op("Split", 2, x, axis=2))
    return g.shape(x, [-1, height // 2, width // 2, channels])


def _heads(g: GraphBuilder, y: str, weights: WindowAttention, cut: Windows) -> tuple[str, str, str]:
    """q, k and v as (windows, heads, N, d) of the padded (1, H, W, 3 C)."""
    (rows, columns), (high, wide) = cut.counts, cut.window
    d = weights.width // weights.heads
    y = g.shape(y, [rows, high, columns, wide, 3, weights.heads, d])
    y = g.op("Transpose", y, perm=[4, 0, 2, 5, 1, 3, 6])
    shape = [rows * columns, weights.heads, high * wide, d]
    y = g.shape(y, [3 * shape[0], *shape[1:]])
    q, k, v = g.split_op("Split", 3, y, axis=0)
    return q, k, v


def _pooled_queries(g: GraphBuilder, q: str, weights: WindowAttention, cut: Windows) -> str:
    """Queries (windows, heads, 4 N, d) to (windows, heads, N, d); `cut` is the halved one."""
    high, wide = cut.window
    d = weights.width // weights.heads
    q = pool_tokens(g, q, (2 * high, 2 * wide), d)
    return g.shape(q, [cut.counts[0] * cut.counts[1], weights.heads, high * wide, d])


def _halved(cut: Windows) -> Windows:
    """The windows over half the rows and columns."""
    (height, width), (high, wide) = cut.grid, cut.window
    if height % 2 or width % 2 or high % 2 or wide % 2:
        raise ValueError(
            f"a grid of {cut.grid} in windows of {cut.window} cannot be pooled by two; "
            "expected even sizes"
        )
    return Windows((height // 2, width // 2), (high // 2, wide // 2))


def _tokens(g: GraphBuilder, y: str, weights: WindowAttention, cut: Windows) -> str:
    """(windows, heads, N, d) to the tokens (1, H, W, heads * d) of the grid, padding dropped."""
    (rows, columns), (high, wide) = cut.counts, cut.window
    y = g.shape(y, [rows, columns, weights.heads, high, wide, -1])
    y = g.op("Transpose", y, perm=[0, 3, 1, 4, 2, 5])
    y = g.shape(y, [1, *cut.padded, weights.width])
    if not cut.pads:
        return y
    return g.op("Slice", y, *(g.constant(v, "int64") for v in ([0, 0], cut.grid, [1, 2])))
