"""Attention between the few tokens and the many image positions, without projecting the image.

For an image X (N, HW, dim), position codes E and weights W, cut by head h:

- tokens read the image: scores q_h ((X + E) Wk_h)^T = (q_h Wk_h^T) (X + E)^T, and the result
  sum_h A_h (X Wv_h) Wo_h = sum_h ((A_h X) Wv_h) Wo_h.  The key bias adds the same to all scores of
  a row, which softmax ignores; the value bias passes through, as the rows of A_h sum to one.
- the image reads the tokens: scores k_h ((X + E) Wq_h + bq_h)^T = (k_h Wq_h^T) (X + E)^T +
  k_h bq_h^T with softmax over the tokens, and the result is sum_h A_h^T (v_h Wo_h).

So the image takes part in products with 8 T columns (T tokens, T ~ 7) in place of those with 128.
The first block sees an image that no prompt has changed: its projected keys, values and queries
(`ImageSide`) are outputs of the encoder graph.  A mask prompt adds to that image a linear function
of few channels; the term that this adds to each product is computed from those channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array, linear
from samrt_export.graphs.decoder_tokens import merge_heads, scaled, split_heads
from samrt_export.nets.two_way import Attention

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageSide:
    """Projections of the unchanged image by the first block.

    Attributes:
        keys: (1, heads, d, HW), of the attention of tokens to image.
        values: (1, heads, HW, d), of the same.
        queries: (1, heads, d, HW), of the attention of image to tokens.
    """

    keys: str
    values: str
    queries: str


@dataclass(frozen=True)
class MaskPrompt:
    """What mask prompts add to the image: `rows`^T `weight`.

    Attributes:
        rows: (N, C, HW), zero for a prompt without a mask.
        weight: (C, dim).
    """

    rows: str
    weight: F64


def double(tensor: Tensor) -> F64:
    """A parameter in float64, for folding."""
    return array(tensor).astype(np.float64)


def head_rows(weight: Tensor, heads: int) -> F64:
    """A projection (inner, dim) as (heads, d, dim)."""
    matrix = double(weight)
    return matrix.reshape(heads, -1, matrix.shape[1])


def head_columns(weight: Tensor, heads: int) -> F64:
    """An output projection (dim, inner) as (heads, d, dim), transposed."""
    return head_rows(weight.T, heads)


def read_image(g: GraphBuilder, q: str, image: str, coded: str, layer: Attention) -> str:
    """Tokens q (N, T, dim) attend to `image` (N, HW, dim); `coded` is the image plus its codes."""
    heads, dim = layer.heads, layer.q_proj.in_features
    with g.scope("q_proj"):
        queries = scaled(g, q, layer.q_proj, layer.scale)
        queries = split_heads(g, queries, heads, layer.inner // heads)
    with g.scope("k_proj"):
        wide = g.op("MatMul", queries, g.weight(head_rows(layer.k_proj.weight, heads)[None]))
        wide = g.shape(wide, [0, -1, dim])
    scores = g.op("MatMul", wide, g.op("Transpose", coded, perm=[0, 2, 1]))
    seen = g.op("MatMul", g.op("Softmax", scores, axis=-1), image)
    with g.scope("v_proj"):
        weight = head_rows(layer.v_proj.weight, heads).transpose(0, 2, 1)
        seen = g.op("MatMul", g.shape(seen, [0, heads, -1, dim]), g.weight(weight[None]))
        mixed = g.op("Add", merge_heads(g, seen, layer.inner), g.weight(array(layer.v_proj.bias)))
    with g.scope("out_proj"):
        return linear(g, mixed, layer.out_proj)


def token_values(
    g: GraphBuilder, tokens: str, layer: Attention, sign: float, shift: F64 | float = 0.0
) -> str:
    """Values of the tokens times the output projection, all heads: (N, heads * T, dim).

    A pixel's weights sum to one in each head, so an equal part of the bias, and of a `shift` (dim)
    that every pixel is to get beside it, goes to each head.
    """
    heads, dim = layer.heads, layer.q_proj.in_features
    with g.scope("v_proj"):
        values = split_heads(g, linear(g, tokens, layer.v_proj), heads, layer.inner // heads)
    with g.scope("out_proj"):
        weight = head_columns(layer.out_proj.weight, heads)[None] * sign
        bias = (double(layer.out_proj.bias) + shift) * (sign / heads)
        values = g.op("Add", g.op("MatMul", values, g.weight(weight)), g.weight(bias))
    return g.shape(values, [0, -1, dim])


def token_keys(g: GraphBuilder, k: str, layer: Attention) -> str:
    """Scaled keys of the tokens, (N, heads, T, d)."""
    with g.scope("k_proj"):
        keys = scaled(g, k, layer.k_proj, layer.scale)
        return split_heads(g, keys, layer.heads, layer.inner // layer.heads)


def over_tokens(g: GraphBuilder, scores: str, heads: int, pixels: int) -> str:
    """Softmax over the tokens of each head: (N, heads * T, HW) to the same shape.

    Written out, because the Softmax operator is slow on rows as short as T.
    """
    split = g.shape(scores, [0, heads, -1, pixels])
    top = g.op("ReduceMax", split, axes=[2], keepdims=1)
    powers = g.op("Exp", g.op("Sub", split, top))
    total = g.op("ReduceSum", powers, g.constant([2], "int64"), keepdims=1)
    return g.shape(g.op("Div", powers, total), [0, -1, pixels])


@dataclass(frozen=True)
class Writing:
    """An attention of the image to tokens before its last product.

    Attributes:
        scores: (N, heads * T, HW), not yet weights.
        values: (N, heads * T + C, dim).
        rows: (N, C, HW) of a mask prompt, weights as they are; or None and C = 0.
        heads: their number.
    """

    scores: str
    values: str
    rows: str | None
    heads: int

    def product(self, g: GraphBuilder, pixels: int) -> str:
        """Weights times values, (N, HW, dim)."""
        weights = over_tokens(g, self.scores, self.heads, pixels)
        if self.rows is not None:
            weights = g.op("Concat", weights, self.rows, axis=1)
        return g.op("MatMul", g.op("Transpose", weights, perm=[0, 2, 1]), self.values)


def write_image(
    g: GraphBuilder, k: str, tokens: str, coded: str, layer: Attention, sign: float
) -> Writing:
    """The image attends to tokens: keys from k, values from `tokens`, times `sign`."""
    heads, dim = layer.heads, layer.q_proj.in_features
    keys = token_keys(g, k, layer)
    with g.scope("q_proj"):
        weight = head_rows(layer.q_proj.weight, heads)[None]
        wide = g.shape(g.op("MatMul", keys, g.weight(weight)), [0, -1, dim])
        bias = double(layer.q_proj.bias).reshape(1, heads, -1, 1)
        offset = g.shape(g.op("MatMul", keys, g.weight(bias)), [0, -1, 1])
    scores = g.op("MatMul", wide, g.op("Transpose", coded, perm=[0, 2, 1]))
    scores = g.op("Add", scores, offset)
    return Writing(scores, token_values(g, tokens, layer, sign), None, heads)


def first_read(
    g: GraphBuilder, q: str, side: ImageSide, mask: MaskPrompt | None, layer: Attention, pixels: int
) -> str:
    """`read_image` of the first block."""
    heads = layer.heads
    with g.scope("q_proj"):
        queries = scaled(g, q, layer.q_proj, layer.scale)
        queries = split_heads(g, queries, heads, layer.inner // heads)
    scores = g.op("MatMul", queries, side.keys)
    if mask is not None:
        more = mask_scores(g, queries, mask, layer.k_proj.weight, heads)
        scores = g.op("Add", scores, g.shape(more, [0, heads, -1, pixels]))
    weights = g.op("Softmax", scores, axis=-1)
    seen = g.op("MatMul", weights, side.values)
    if mask is not None:
        flat = g.shape(weights, [0, -1, pixels])
        few = g.op("MatMul", flat, g.op("Transpose", mask.rows, perm=[0, 2, 1]))
        few = g.shape(few, [0, heads, -1, len(mask.weight)])
        weight = mask.weight @ head_rows(layer.v_proj.weight, heads).transpose(0, 2, 1)
        seen = g.op("Add", seen, g.op("MatMul", few, g.weight(weight[None])))
    with g.scope("out_proj"):
        return linear(g, merge_heads(g, seen, layer.inner), layer.out_proj)


def first_write(
    g: GraphBuilder, k: str, tokens: str, side: ImageSide, mask: MaskPrompt | None,
    base: F64 | float, layer: Attention, pixels: int, sign: float,
) -> Writing:  # fmt: skip
    """`write_image` of the first block, with what is added to the embedding before it.

    That is `base` (dim) at every position and what the mask prompt adds.
    """
    heads = layer.heads
    keys = token_keys(g, k, layer)
    scores = g.shape(g.op("MatMul", keys, side.queries), [0, -1, pixels])
    if mask is not None:
        more = mask_scores(g, keys, mask, layer.q_proj.weight, heads)
        scores = g.op("Add", scores, more)
    values = token_values(g, tokens, layer, sign, base)
    if mask is None:
        return Writing(scores, values, None, heads)
    values = g.op("Concat", values, repeated(g, values, sign * mask.weight), axis=1)
    return Writing(scores, values, mask.rows, heads)


def mask_scores(g: GraphBuilder, few: str, mask: MaskPrompt, projection: Tensor, heads: int) -> str:
    """What a mask prompt adds to scores: few (N, heads, T, d) to (N, heads * T, HW)."""
    weight = head_rows(projection, heads) @ mask.weight.T
    wide = g.op("MatMul", few, g.weight(weight[None]))
    return g.op("MatMul", g.shape(wide, [0, -1, len(mask.weight)]), mask.rows)


def repeated(g: GraphBuilder, like: str, value: F64) -> str:
    """A constant (A, B) for each of the N entries of `like` (N, T, B): (N, A, B)."""
    total = g.op("ReduceSum", like, g.constant([1, 2], "int64"), keepdims=1)
    return g.op("Add", g.op("Mul", total, g.constant(0.0)), g.weight(value[None]))
