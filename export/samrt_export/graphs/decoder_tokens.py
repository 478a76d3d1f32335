"""Token side of the mask decoders: prompts to tokens, attention among tokens, small heads.

Tokens are (N, T, dim); N and T are free, so every Reshape keeps N with 0 and infers T with -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import F32, array, linear, norm
from samrt_export.nets.prompt_encoder import PADDING, PositionCode
from samrt_export.nets.two_way import GELU, Attention, TwoWayBlock


def scaled(g: GraphBuilder, x: str, layer: nn.Linear, factor: float) -> str:
    """A Linear layer, its result times `factor`."""
    return g.linear(x, array(layer.weight) * factor, array(layer.bias) * factor)


def split_heads(g: GraphBuilder, x: str, heads: int, width: int) -> str:
    """(N, T, heads * width) to (N, heads, T, width)."""
    return g.op("Transpose", g.shape(x, [0, -1, heads, width]), perm=[0, 2, 1, 3])


def merge_heads(g: GraphBuilder, x: str, total: int) -> str:
    """(N, heads, T, width) to (N, T, heads * width)."""
    return g.shape(g.op("Transpose", x, perm=[0, 2, 1, 3]), [0, -1, total])


def position_codes(
    g: GraphBuilder, coords: str, layer: PositionCode, frame: tuple[int, int]
) -> str:
    """Pixel coordinates (N, P, 2) in `frame` = (S_h, S_w) to codes (N, P, dim).

    One product and one sum: 2 pi (2 (x + 0.5) / S - 1) G = x (4 pi / S) G + (1 / S - 1) 2 pi G.
    """
    matrix = array(layer.positional_encoding_gaussian_matrix).astype(np.float64)
    size = np.array([[frame[1]], [frame[0]]], np.float64)
    factor = 4 * np.pi / size * matrix
    shift = ((1 / size - 1) * 2 * np.pi * matrix).sum(0)
    angle = g.op("Add", g.op("MatMul", coords, g.constant(factor)), g.constant(shift))
    return g.op("Concat", g.op("Sin", angle), g.op("Cos", angle), axis=-1)


def typed_codes(g: GraphBuilder, codes: str, labels: str, types: F32, *, erase: bool) -> str:
    """Codes (N, P, dim) plus the embedding of each label; rows of `types` are -1, 0, 1, 2, 3.

    With `erase` a padding point (label -1) has no code.
    """
    column = g.op("Unsqueeze", labels, g.constant([2], "int64"))
    kinds = g.op("Equal", column, g.constant(np.arange(PADDING, PADDING + len(types))))
    own = g.op("MatMul", g.op("Cast", kinds, to=1), g.weight(types))
    if erase:
        padding = g.op("Equal", column, g.constant(float(PADDING)))
        codes = g.op("Mul", codes, g.op("Cast", g.op("Not", padding), to=1))
    return g.op("Add", codes, own)


def per_prompt(g: GraphBuilder, labels: str, value: Tensor) -> str:
    """A constant (A, B) repeated for each of the N prompts: (N, A, B)."""
    total = g.op("ReduceSum", labels, g.constant([1], "int64"), keepdims=1)
    zero = g.op("Mul", g.op("Unsqueeze", total, g.constant([2], "int64")), g.constant(0.0))
    return g.op("Add", zero, g.weight(array(value)[None]))


def attend(g: GraphBuilder, q: str, k: str, v: str, layer: Attention) -> str:
    """Attention among tokens, (N, T, dim) each."""
    heads, inner = layer.heads, layer.inner
    width = inner // heads
    with g.scope("q_proj"):
        queries = split_heads(g, scaled(g, q, layer.q_proj, layer.scale), heads, width)
    with g.scope("k_proj"):
        split = g.shape(linear(g, k, layer.k_proj), [0, -1, heads, width])
        keys = g.op("Transpose", split, perm=[0, 2, 3, 1])
    with g.scope("v_proj"):
        values = split_heads(g, linear(g, v, layer.v_proj), heads, width)
    weights = g.op("Softmax", g.op("MatMul", queries, keys), axis=-1)
    mixed = merge_heads(g, g.op("MatMul", weights, values), inner)
    with g.scope("out_proj"):
        return linear(g, mixed, layer.out_proj)


def self_attention(g: GraphBuilder, tokens: str, code: str, block: TwoWayBlock) -> str:
    """Self-attention of a two-way block with its residual and norm."""
    coded = tokens if block.first else g.op("Add", tokens, code)
    with g.scope("self_attn"):
        if block.plain_residual:
            tokens = g.op("Add", coded, attend(g, coded, coded, coded, block.self_attn))
        elif block.first:
            tokens = attend(g, tokens, tokens, tokens, block.self_attn)
        else:
            tokens = g.op("Add", tokens, attend(g, coded, coded, tokens, block.self_attn))
    with g.scope("norm1"):
        return norm(g, tokens, block.norm1)


def mlp(g: GraphBuilder, tokens: str, block: TwoWayBlock, activation: str) -> str:
    """The MLP of a two-way block with its residual and norm."""
    first, second = block.mlp.linears()
    with g.scope("mlp"):
        hidden = activate(g, linear(g, tokens, first), activation)
        tokens = g.op("Add", tokens, linear(g, hidden, second))
    with g.scope("norm3"):
        return norm(g, tokens, block.norm3)


def activate(g: GraphBuilder, x: str, kind: str) -> str:
    """ReLU or exact GELU."""
    return g.gelu(x) if kind == GELU else g.op("Relu", x)


def stacked_mlp(
    g: GraphBuilder, x: str, networks: Sequence[Sequence[nn.Linear]], activation: str
) -> str:
    """M networks of equal shape at once, network m on row m: x (M, N, in) to (M, N, out)."""
    for k, layers in enumerate(zip(*networks, strict=True)):
        if k:
            x = activate(g, x, activation)
        weight = torch.stack([layer.weight.T for layer in layers])
        bias = torch.stack([layer.bias[None] for layer in layers])
        product = g.op("MatMul", x, g.weight(array(weight)))
        x = g.op("Add", product, g.weight(array(bias)))
    return x


def chain(g: GraphBuilder, x: str, layers: Sequence[nn.Linear], activation: str) -> str:
    """Linear layers with an activation between them."""
    for k, layer in enumerate(layers):
        x = linear(g, activate(g, x, activation) if k else x, layer)
    return x
