"""SAM 2.1's image encoder as an ONNX graph: static windows, cheap pooling, merged steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.bicubic import bicubic_matrix
from samrt_export.graphs.blocks import array, gelu_mlp, linear, mlp_tiles, norm
from samrt_export.graphs.fold import Array64, float64
from samrt_export.graphs.vit_attention import Windows
from samrt_export.graphs.windows import WindowAttention, attend, pool_tokens, simplify
from samrt_export.nets.hiera import (
    PATCH_PADDING,
    PATCH_STRIDE,
    Attention,
    Block,
    HieraEncoder,
    Trunk,
)

Size = tuple[int, int]
WriteBlock = Callable[[GraphBuilder, str, Block, Size], str]
"""Tokens (1, H, W, C) of a grid through one block, to (1, H', W', C')."""
EMBEDDING = "image_embeddings"
FINE, COARSE = "dec_high_res_0", "dec_high_res_1"


def emit_hiera(
    g: GraphBuilder, encoder: HieraEncoder, image: str, no_mem_embed: Tensor | None = None,
    projections: tuple[nn.Conv2d, nn.Conv2d] | None = None, *, tiled: bool = False,
    write_block: WriteBlock | None = None,
) -> dict[str, str]:  # fmt: skip
    """Emit the encoder; `image` is (1, 3, S_h, S_w) float32.

    no_mem_embed: 256 values that SAM 2 adds to the embedding of a single image.
    projections: the mask decoder's `conv_s0` and `conv_s1`; they follow the pyramid's
        convolutions of the fine maps without anything between, and are multiplied into them.
    tiled: attention over the whole grid and MLPs are cut into tiles that fit a processor's cache.
    write_block: writes the blocks in place of `block_of` (the CPU form).

    Returns `image_embeddings` (1, 256, h, w), `dec_high_res_0` (1, c0, 4 h, 4 w) and
    `dec_high_res_1` (1, c1, 2 h, 2 w); c0 and c1 are the widths of the projections, 256 without.
    """
    with g.scope("trunk"):
        levels = _trunk(g, encoder.trunk, image, write_block or partial(block_of, tiled=tiled))
    coarsest, third, second, first = (
        _affine(encoder.neck.get_submodule(f"convs.{i}.conv")) for i in range(len(levels))
    )
    if no_mem_embed is not None:
        third = third[0], third[1] + float64(no_mem_embed).reshape(-1)
    if projections is not None:
        first, second = _after(projections[0], first), _after(projections[1], second)
    cfg = encoder.cfg
    with g.scope("neck.convs.0"):
        above = g.linear(levels[3], *coarsest)
    with g.scope("neck.convs.1"):
        x = g.linear(levels[2], *third)
        embedding = _channels_first(g, _add_doubled(g, x, above, cfg.grid(3), cfg.out_chans))
    maps = {EMBEDDING: embedding}
    for name, layer, tokens, weights in (
        (FINE, "neck.convs.3", levels[0], first), (COARSE, "neck.convs.2", levels[1], second),
    ):  # fmt: skip
        with g.scope(layer):
            maps[name] = _channels_first(g, g.linear(tokens, *weights))
    return maps


def _affine(layer: nn.Module) -> tuple[Array64, Array64]:
    """Weight (out, in) and bias (out) of a 1x1 convolution."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is None or layer.kernel_size != (1, 1):
        raise TypeError(f"got {layer}; expected a 1x1 convolution with a bias")
    return float64(layer.weight)[:, :, 0, 0], float64(layer.bias)


def _after(layer: nn.Conv2d, first: tuple[Array64, Array64]) -> tuple[Array64, Array64]:
    """`layer` after an affine map, as one."""
    weight, bias = _affine(layer)
    return weight @ first[0], weight @ first[1] + bias


def _channels_first(g: GraphBuilder, tokens: str) -> str:
    return g.op("Transpose", tokens, perm=[0, 3, 1, 2])


def _add_doubled(g: GraphBuilder, x: str, coarse: str, grid: Size, channels: int) -> str:
    """x (1, 2 h, 2 w, C) plus `coarse` (1, h, w, C) with every token repeated 2 x 2."""
    h, w = grid
    x = g.shape(x, [h, 2, w, 2, channels])
    x = g.op("Add", x, g.shape(coarse, [h, 1, w, 1, channels]))
    return g.shape(x, [1, 2 * h, 2 * w, channels])


def _trunk(g: GraphBuilder, trunk: Trunk, image: str, write_block: WriteBlock) -> list[str]:
    cfg = trunk.cfg
    with g.scope("patch_embed.proj"):
        proj = trunk.patch_embed.proj
        if proj.bias is None:
            raise TypeError("the patch embedding should have a bias")
        x = g.conv(image, array(proj.weight), array(proj.bias), PATCH_STRIDE, [PATCH_PADDING] * 4)
        x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    with g.scope("pos_embed"):
        x = g.op("Add", x, _position(g, trunk))
    levels = []
    for index, block in enumerate(trunk.blocks):
        if not isinstance(block, Block):
            raise TypeError(f"got a {type(block).__name__}; expected a Block of Hiera")
        with g.scope(f"blocks.{index}"):
            grid = cfg.grid(cfg.stage(index) - int(block.pooled))
            x = write_block(g, x, block, grid)
        if index in cfg.ends:
            levels.append(x)
    return levels


def _position(g: GraphBuilder, trunk: Trunk) -> str:
    """(1, H, W, C) from constants: runtimes compute it when they load the graph.

    Stored whole it would be a fifth of the file.
    """
    (height, width), side = trunk.cfg.grid(0), trunk.cfg.windows[0]
    background = array(trunk.pos_embed)[0].transpose(1, 2, 0)
    rows, columns, channels = background.shape
    x = g.op("MatMul", g.constant(bicubic_matrix(columns, width)), g.weight(background))
    x = g.shape(x, [rows, width * channels])
    x = g.op("MatMul", g.constant(bicubic_matrix(rows, height)), x)
    x = g.shape(x, [height // side, side, width // side, side, channels])
    window = array(trunk.pos_embed_window)[0].transpose(1, 2, 0)
    x = g.op("Add", x, g.weight(np.ascontiguousarray(window)[None, :, None]))
    return g.shape(x, [1, height, width, channels])


def block_of(g: GraphBuilder, x: str, block: Block, grid: Size, tiled: bool = False) -> str:
    """Tokens (1, H, W, C) of `grid` to (1, H', W', C')."""
    x, grid = attention_of(g, x, block, grid, tiled)
    with g.scope("norm2"):
        normed = norm(g, x, block.norm2)
    with g.scope("mlp"):
        return g.op("Add", x, _mlp(g, normed, block, grid, tiled))


def attention_of(
    g: GraphBuilder, x: str, block: Block, grid: Size, tiled: bool = False
) -> tuple[str, Size]:
    """The first half of a block: norm, attention, shortcut; the tokens and their grid."""
    with g.scope("norm1"):
        normed = norm(g, x, block.norm1)
    with g.scope("attn"):
        mixed = attend(
            g, normed, weights_of(block.attn), windows_of(block, grid), pool=block.pooled,
            tiled=tiled,
        )  # fmt: skip
    if block.pooled:
        with g.scope("proj"):
            x = _pooled_shortcut(g, normed, block, grid)
        grid = grid[0] // 2, grid[1] // 2
    return g.op("Add", x, mixed), grid


def windows_of(block: Block, grid: Size) -> Windows:
    """The windows of a block on a grid."""
    side = block.window
    return Windows(grid, (side, side) if side else grid)


def _pooled_shortcut(g: GraphBuilder, normed: str, block: Block, grid: Size) -> str:
    """The projection's bias comes after the maxima: a quarter of the additions."""
    weight, bias = array(block.proj.weight), array(block.proj.bias)
    y = g.op("MatMul", normed, g.weight(weight.T))
    return g.op("Add", pool_tokens(g, y, grid, len(bias)), g.weight(bias))


def weights_of(attn: Attention) -> WindowAttention:
    """The weights of an attention behind its norm."""
    width, heads = attn.proj.in_features, attn.heads
    weight = float64(attn.qkv.weight).reshape(3, heads, width // heads, -1)
    bias = float64(attn.qkv.bias).reshape(3, heads, width // heads)
    return simplify(weight, bias, attn.proj, attn.scale)


def mlp_layers(block: Block) -> tuple[nn.Linear, nn.Linear]:
    """The two layers of a block's MLP."""
    first, second = (layer for layer in block.mlp.layers if isinstance(layer, nn.Linear))
    return first, second


def _mlp(g: GraphBuilder, x: str, block: Block, grid: Size, tiled: bool) -> str:
    first, second = mlp_layers(block)
    names = ("layers.0", "layers.1")
    if not tiled:
        with g.scope(names[0]):
            x = g.gelu(linear(g, x, first))
        with g.scope(names[1]):
            return linear(g, x, second)
    width = first.in_features
    x = g.shape(x, [1, grid[0] * grid[1], width])
    x = gelu_mlp(g, x, first, second, names, mlp_tiles(grid, first.out_features))
    return g.shape(x, [1, *grid, width])
