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
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import F32, array, linear, norm
from samrt_export.graphs.decoder_tokens import merge_heads, scaled, split_heads
from samrt_export.nets.two_way import Attention, TwoWayBlock

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
        given: (N), zero for a prompt without a mask.
    """

    rows: str
    weight: F64
    given: str


@dataclass(frozen=True)
class Start:
    """The decoder's image before its first block.

    Attributes:
        embedding: (1, dim, h, w).
        code: (1, dim, h, w) position codes.
        base: (dim), added to the embedding at every position, or 0.
        side: projections of embedding + base by the first block.
        mask: what mask prompts add, or None.
    """

    embedding: str
    code: Tensor
    base: F64 | float
    side: ImageSide
    mask: MaskPrompt | None

    @property
    def dim(self) -> int:
        """Channels."""
        return int(self.code.shape[1])

    @property
    def pixels(self) -> int:
        """Positions, h w."""
        return int(self.code[0, 0].numel())

    def codes(self) -> F32:
        """The position codes, (1, HW, dim)."""
        codes: F32 = array(self.code).reshape(1, self.dim, self.pixels).transpose(0, 2, 1)
        return codes


class Image(Protocol):
    """The image of a two-way transformer, as a writer of graphs sees it.

    `read_first`, then for each block `write` and `read`, each once.
    """

    def read_first(self, q: str, layer: Attention) -> str:
        """The first block's tokens q (N, T, dim) attend to the image: (N, T, dim)."""
        ...

    def write(self, k: str, tokens: str, block: TwoWayBlock) -> None:
        """The image attends to `tokens` (N, T, dim), keys from `k`, and is normalised."""
        ...

    def read(self, q: str, layer: Attention) -> str:
        """Tokens q attend to the image as it is behind the last `write`."""
        ...

    def result(self) -> str:
        """The image (N, HW, dim)."""
        ...


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


def head_queries(g: GraphBuilder, q: str, layer: Attention) -> str:
    """Scaled queries of the tokens, (N, heads, T, d)."""
    with g.scope("q_proj"):
        queries = scaled(g, q, layer.q_proj, layer.scale)
        return split_heads(g, queries, layer.heads, layer.inner // layer.heads)


def wide_queries(g: GraphBuilder, q: str, layer: Attention) -> str:
    """Queries of the tokens for an image that is not projected, (N, heads * T, dim)."""
    queries = head_queries(g, q, layer)
    with g.scope("k_proj"):
        weight = head_rows(layer.k_proj.weight, layer.heads)[None]
        wide = g.op("MatMul", queries, g.weight(weight))
        return g.shape(wide, [0, -1, layer.q_proj.in_features])


def seen_values(g: GraphBuilder, seen: str, layer: Attention) -> str:
    """What tokens saw of an image that is not projected, (N, heads * T, dim), to (N, T, dim)."""
    heads, dim = layer.heads, layer.q_proj.in_features
    with g.scope("v_proj"):
        weight = head_rows(layer.v_proj.weight, heads).transpose(0, 2, 1)
        seen = g.op("MatMul", g.shape(seen, [0, heads, -1, dim]), g.weight(weight[None]))
        mixed = g.op("Add", merge_heads(g, seen, layer.inner), g.weight(array(layer.v_proj.bias)))
    with g.scope("out_proj"):
        return linear(g, mixed, layer.out_proj)


def wide_keys(g: GraphBuilder, k: str, layer: Attention) -> tuple[str, str]:
    """Keys of the tokens for an image that is not projected, and what is added to the scores.

    (N, heads * T, dim) and (N, heads * T, 1).
    """
    keys, heads = token_keys(g, k, layer), layer.heads
    with g.scope("q_proj"):
        weight = head_rows(layer.q_proj.weight, heads)[None]
        wide = g.shape(g.op("MatMul", keys, g.weight(weight)), [0, -1, layer.q_proj.in_features])
        bias = double(layer.q_proj.bias).reshape(1, heads, -1, 1)
        return wide, g.shape(g.op("MatMul", keys, g.weight(bias)), [0, -1, 1])


def mask_columns(
    g: GraphBuilder, few: str, mask: MaskPrompt, projection: Tensor, heads: int
) -> str:
    """Tokens (N, heads, T, d) as columns for the rows of a mask prompt: (N, heads * T, C)."""
    weight = head_rows(projection, heads) @ mask.weight.T
    wide = g.op("MatMul", few, g.weight(weight[None]))
    return g.shape(wide, [0, -1, len(mask.weight)])


def mask_values(mask: MaskPrompt, layer: Attention) -> F64:
    """The weights of a mask prompt's rows behind a value projection, (heads, C, d)."""
    weight: F64 = mask.weight @ head_rows(layer.v_proj.weight, layer.heads).transpose(0, 2, 1)
    return weight


def token_values(
    g: GraphBuilder, tokens: str, layer: Attention, sign: float, shift: F64 | float = 0.0
) -> str:
    """`sign` times values and output projection of the tokens, all heads: (N, heads * T, dim).

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


class PlainImage:
    """An `Image` in operators that every runtime has."""

    def __init__(self, g: GraphBuilder, start: Start) -> None:
        self._g, self._start = g, start
        flat = g.shape(start.embedding, [1, start.dim, start.pixels])
        self._image = g.op("Transpose", flat, perm=[0, 2, 1])
        self._codes = g.constant(start.codes())
        self._coded = ""

    def read_first(self, q: str, layer: Attention) -> str:
        """See `Image`."""
        g, mask, heads = self._g, self._start.mask, layer.heads
        pixels = self._start.pixels
        queries = head_queries(g, q, layer)
        scores = g.op("MatMul", queries, self._start.side.keys)
        if mask is not None:
            columns = mask_columns(g, queries, mask, layer.k_proj.weight, heads)
            more = g.op("MatMul", columns, mask.rows)
            scores = g.op("Add", scores, g.shape(more, [0, heads, -1, pixels]))
        weights = g.op("Softmax", scores, axis=-1)
        seen = g.op("MatMul", weights, self._start.side.values)
        if mask is not None:
            flat = g.shape(weights, [0, -1, pixels])
            few = g.op("MatMul", flat, g.op("Transpose", mask.rows, perm=[0, 2, 1]))
            few = g.shape(few, [0, heads, -1, len(mask.weight)])
            weight = g.weight(mask_values(mask, layer)[None])
            seen = g.op("Add", seen, g.op("MatMul", few, weight))
        with g.scope("out_proj"):
            return linear(g, merge_heads(g, seen, layer.inner), layer.out_proj)

    def write(self, k: str, tokens: str, block: TwoWayBlock) -> None:
        """See `Image`."""
        g, layer = self._g, block.cross_attn_image_to_token
        with g.scope("cross_attn_image_to_token"):
            first = not self._coded
            written = (self._first_product if first else self._product)(k, tokens, layer)
        with g.scope("norm4"):
            # ONNX Runtime fuses an addition before a LayerNormalization into a kernel that is
            # slower on wide images than the two apart; a subtraction it leaves alone.
            self._image = norm(g, g.op("Sub", self._image, written), block.norm4)
            self._coded = g.op("Add", self._image, self._codes)

    def read(self, q: str, layer: Attention) -> str:
        """See `Image`."""
        g = self._g
        wide = wide_queries(g, q, layer)
        scores = g.op("MatMul", wide, g.op("Transpose", self._coded, perm=[0, 2, 1]))
        seen = g.op("MatMul", g.op("Softmax", scores, axis=-1), self._image)
        return seen_values(g, seen, layer)

    def result(self) -> str:
        """See `Image`."""
        return self._image

    def _first_product(self, k: str, tokens: str, layer: Attention) -> str:
        """Minus what the first block writes into the image, (N, HW, dim)."""
        g, mask = self._g, self._start.mask
        keys = token_keys(g, k, layer)
        scores = g.op("MatMul", keys, self._start.side.queries)
        scores = g.shape(scores, [0, -1, self._start.pixels])
        values = token_values(g, tokens, layer, -1.0, self._start.base)
        if mask is None:
            return self._weighted(scores, values, layer.heads)
        columns = mask_columns(g, keys, mask, layer.q_proj.weight, layer.heads)
        scores = g.op("Add", scores, g.op("MatMul", columns, mask.rows))
        values = g.op("Concat", values, repeated(g, values, -mask.weight), axis=1)
        return self._weighted(scores, values, layer.heads, mask.rows)

    def _product(self, k: str, tokens: str, layer: Attention) -> str:
        """The same of a later block."""
        g = self._g
        wide, offset = wide_keys(g, k, layer)
        scores = g.op("MatMul", wide, g.op("Transpose", self._coded, perm=[0, 2, 1]))
        scores = g.op("Add", scores, offset)
        return self._weighted(scores, token_values(g, tokens, layer, -1.0), layer.heads)

    def _weighted(self, scores: str, values: str, heads: int, rows: str = "") -> str:
        """Softmax of scores (N, heads * T, HW), then `rows` (N, C, HW), times values."""
        g = self._g
        weights = over_tokens(g, scores, heads, self._start.pixels)
        if rows:
            weights = g.op("Concat", weights, rows, axis=1)
        return g.op("MatMul", g.op("Transpose", weights, perm=[0, 2, 1]), values)


def repeated(g: GraphBuilder, like: str, value: F64) -> str:
    """A constant (A, B) for each of the N entries of `like` (N, T, B): (N, A, B)."""
    total = g.op("ReduceSum", like, g.constant([1, 2], "int64"), keepdims=1)
    return g.op("Add", g.op("Mul", total, g.constant(0.0)), g.weight(value[None]))
