"""The two-way transformer as a graph, shared by the decoders of all families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array, norm
from samrt_export.graphs.decoder_cross import (
    F64,
    Image,
    ImageSide,
    MaskPrompt,
    PlainImage,
    Start,
    double,
)
from samrt_export.graphs.decoder_tokens import chain, mlp, self_attention, stacked_mlp
from samrt_export.nets.two_way import TwoWayBlock, TwoWayTransformer

EMBEDDING = "image_embeddings"
KEYS, VALUES, QUERIES = "dec_keys", "dec_values", "dec_queries"
Shapes = Mapping[str, tuple[int, ...]]


def hoist_first_block(
    g: GraphBuilder,
    transformer: TwoWayTransformer,
    embedding: str,
    base: Tensor | None,
    code: Tensor,
) -> dict[str, str]:
    """Emit the image's projections by the first block into the encoder graph.

    Args:
        g: the encoder graph.
        transformer: of the decoder.
        embedding: (1, dim, h, w).
        base: (dim), added to every position (the embedding of "no mask"), or None.
        code: (1, dim, h, w) position codes.

    Returns:
        `dec_keys` (1, heads, d, h w), `dec_values` (1, heads, h w, d) of the attention of tokens to
        image, and `dec_queries` (1, heads, d, h w) of the attention of image to tokens.
    """
    block = first_block(transformer)
    read, write = block.cross_attn_token_to_image, block.cross_attn_image_to_token
    dim, heads, inner = read.q_proj.in_features, read.heads, read.inner
    codes = double(code).reshape(dim, -1)
    shift = np.zeros((dim, 1)) if base is None else double(base)[:, None]
    pixels, width = codes.shape[1], inner // heads
    flat = g.shape(embedding, [dim, pixels])

    def project(layer: nn.Linear, added: F64) -> str:
        constant = double(layer.weight) @ added + double(layer.bias)[:, None]
        product = g.op("MatMul", g.weight(array(layer.weight)), flat)
        return g.op("Add", product, g.weight(constant))

    with g.scope("cross_attn_token_to_image"):
        keys = g.shape(project(read.k_proj, shift + codes), [1, heads, width, pixels])
        values = g.shape(project(read.v_proj, shift), [1, heads, width, pixels])
        values = g.op("Transpose", values, perm=[0, 1, 3, 2])
    with g.scope("cross_attn_image_to_token"):
        queries = g.shape(project(write.q_proj, shift + codes), [1, heads, width, pixels])
    return {KEYS: keys, VALUES: values, QUERIES: queries}


def first_block(transformer: TwoWayTransformer) -> TwoWayBlock:
    """The block whose image no prompt has changed."""
    block = transformer.layers[0]
    if not isinstance(block, TwoWayBlock):
        raise TypeError(f"expected TwoWayBlock, got {type(block)}")
    return block


def first_block_shapes(
    transformer: TwoWayTransformer, grid: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the image embedding and of what `hoist_first_block` adds to it."""
    read = first_block(transformer).cross_attn_token_to_image
    width, pixels = read.inner // read.heads, grid[0] * grid[1]
    return {
        EMBEDDING: (1, read.q_proj.in_features, *grid),
        KEYS: (1, read.heads, width, pixels),
        VALUES: (1, read.heads, pixels, width),
        QUERIES: (1, read.heads, width, pixels),
    }


def image_inputs(g: GraphBuilder, expected: Shapes, shapes: Shapes) -> str:
    """Declare the inputs that come from the encoder graph, in the order of `shapes`.

    Raises ValueError where `shapes`, those of the encoder's outputs, are not the `expected` ones.
    """
    given = {name: tuple(shape) for name, shape in shapes.items()}
    if given != {name: tuple(shape) for name, shape in expected.items()}:
        raise ValueError(
            f"the encoder graph gives {given}, the decoder needs {dict(expected)}: write both "
            "graphs with the same prompt encoder and mask decoder"
        )
    for name, shape in given.items():
        g.input(name, shape)
    return EMBEDDING


def point_inputs(g: GraphBuilder) -> tuple[str, str]:
    """Declare `point_coords` (N, P, 2) and `point_labels` (N, P)."""
    return g.input("point_coords", ["N", "P", 2]), g.input("point_labels", ["N", "P"])


def two_way(
    g: GraphBuilder, transformer: TwoWayTransformer, code: str, embedding: str,
    base: Tensor | None, image_code: Tensor, mask: MaskPrompt | None, keep: int,
    image_of: Callable[[GraphBuilder, Start], Image] = PlainImage,
) -> tuple[str, str]:  # fmt: skip
    """The transformer on tokens `code` (N, T, dim), which are their own position codes.

    Args:
        g: the decoder graph, with the inputs of `image_inputs`.
        transformer: of the decoder.
        code: (N, T, dim).
        embedding: (1, dim, h, w).
        base: (dim), added to every position, or None; the same as for `hoist_first_block`.
        image_code: (1, dim, h, w) position codes.
        mask: what mask prompts add to the image, or None.
        keep: how many of the first tokens are wanted.
        image_of: writes the image's side; the CPU form has another.

    Returns:
        Tokens (N, keep, dim) and the image (N, h w, dim).
    """
    side = ImageSide(KEYS, VALUES, QUERIES)
    shift = 0.0 if base is None else double(base)
    image = image_of(g, Start(embedding, image_code, shift, side, mask))
    blocks = [first_block(transformer), *transformer.layers[1:]]
    with g.scope("layers.0"):
        tokens = self_attention(g, code, code, blocks[0])
        with g.scope("cross_attn_token_to_image"):
            read = blocks[0].cross_attn_token_to_image
            seen = image.read_first(g.op("Add", tokens, code), read)
    for k, block in enumerate(blocks):
        with g.scope(f"layers.{k}"):
            with g.scope("norm2"):
                tokens = norm(g, g.op("Add", tokens, seen), block.norm2)
            tokens = mlp(g, tokens, block, transformer.cfg.activation)
            q = g.op("Add", tokens, code)
            image.write(q, tokens, block)
        if k + 1 < len(blocks):
            with g.scope(f"layers.{k + 1}"):
                tokens = self_attention(g, tokens, code, blocks[k + 1])
                q = g.op("Add", tokens, code)
                with g.scope("cross_attn_token_to_image"):
                    seen = image.read(q, blocks[k + 1].cross_attn_token_to_image)
    tokens, q = cut(g, tokens, 0, keep), cut(g, q, 0, keep)
    with g.scope("final_attn_token_to_image"):
        seen = image.read(q, transformer.final_attn_token_to_image)
    with g.scope("norm_final_attn"):
        tokens = norm(g, g.op("Add", tokens, seen), transformer.norm_final_attn)
    return tokens, image.result()


def cut(g: GraphBuilder, tokens: str, start: int, stop: int) -> str:
    """Tokens start to stop of (N, T, dim)."""
    bounds = [g.constant([value], "int64") for value in (start, stop, 1)]
    return g.op("Slice", tokens, *bounds)


def token_head(
    g: GraphBuilder, tokens: str, index: int, layers: Sequence[nn.Linear], activation: str
) -> str:
    """Linear layers on one token of (N, T, dim): (N, out)."""
    dim = layers[0].in_features
    token = g.shape(cut(g, tokens, index, index + 1), [-1, dim])
    return chain(g, token, layers, activation)


def hyper_weights(
    g: GraphBuilder,
    tokens: str,
    start: int,
    networks: Sequence[Sequence[nn.Linear]],
    activation: str,
) -> str:
    """Network m on token start + m of (N, T, dim), all M at once: (N, M, out)."""
    own = cut(g, tokens, start, start + len(networks))
    own = g.op("Transpose", own, perm=[1, 0, 2])
    return g.op("Transpose", stacked_mlp(g, own, networks, activation), perm=[1, 0, 2])
