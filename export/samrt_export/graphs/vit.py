"""The plain-ViT image encoder (SAM, MedSAM, SAM-Med2D, SAMed, Medical SAM Adapter) as a graph."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import (
    F32,
    array,
    gelu_mlp,
    linear,
    mlp_tiles,
    neck,
    norm,
    patch_tokens,
)
from samrt_export.graphs.vit_attention import Attention, AttentionWriter, Windows
from samrt_export.nets.vit import MSA_MLP_ADAPTER_SCALE, Block, ImageEncoderViT
from samrt_export.nets.vit_adapters import BottleneckAdapter, SamMed2dAdapter

Size = tuple[int, int]


def emit_vit(g: GraphBuilder, encoder: ImageEncoderViT, image: str, *, tiled: bool = False) -> str:
    """Emit the encoder; `image` is (1, 3, S_h, S_w) float32.

    tiled: attention over the whole grid and MLPs are cut into tiles that fit a processor's cache.
        The result is the same; it is the faster and smaller form for runtimes without a fused
        attention, the slower one for those that have it.

    Returns the name of the embedding (1, out_chans, h, w).
    """
    cfg = encoder.cfg
    x = patch_tokens(g, image, encoder.patch_embed, cfg.grid)
    with g.scope("pos_embed"):
        x = g.op("Add", x, g.weight(array(encoder.pos_embed).reshape(1, -1, cfg.dim)))
    attention = AttentionWriter(g, tiled=tiled)
    for index, block in enumerate(encoder.blocks):
        with g.scope(f"blocks.{index}"):
            x = _block(g, attention, x, block, cfg.grid)
    return neck(g, x, encoder.neck, cfg.grid)


def _block(
    g: GraphBuilder, attention: AttentionWriter, x: str, block: nn.Module, grid: Size
) -> str:
    if not isinstance(block, Block):
        raise TypeError(f"expected a Block of samrt_export.nets.vit, got {type(block)}")
    x = g.op("Add", x, _attention(g, attention, x, block, grid))
    with g.scope("norm2"):
        normed = norm(g, x, block.norm2)
    with g.scope("mlp"):
        mlp = block.mlp
        tiles = mlp_tiles(grid, mlp.lin1.out_features) if attention.tiled else 1
        hidden = gelu_mlp(g, normed, mlp.lin1, mlp.lin2, ("lin1", "lin2"), tiles)
        x = g.op("Add", x, hidden)
    if block.adapters == "sam_med2d":
        with g.scope("Adapter"):
            x = g.op("Add", x, gated_adapter(g, normed, block.Adapter, grid))
    elif block.adapters == "msa":
        with g.scope("MLP_Adapter"):
            side = _bottleneck(g, normed, block.MLP_Adapter, MSA_MLP_ADAPTER_SCALE)
            x = g.op("Add", x, side)
    return x


def block_attention(block: Block, grid: Size) -> tuple[Attention, Windows, F32]:
    """A block's attention, its windows, and the bias (dim) that its norm keeps."""
    attn, norm1 = block.attn, block.norm1
    cut = Windows(grid, (block.window, block.window) if block.window else grid)
    qkv_bias, shift = array(attn.qkv.bias), array(norm1.bias)
    if block.pads_before_norm:
        # Padding tokens hold the norm's bias.  Behind the projection it is part of qkv's bias.
        moved = array(attn.qkv.weight).astype(np.float64) @ shift
        qkv_bias, shift = (qkv_bias + moved).astype(np.float32), np.zeros_like(shift)
    rows, columns = attn.tables()
    weights = Attention(
        heads=attn.heads,
        qkv_weight=array(attn.qkv.weight),
        qkv_bias=qkv_bias,
        proj_weight=array(attn.proj.weight),
        proj_bias=array(attn.proj.bias),
        tables=(array(rows), array(columns)),
    )
    return weights, cut, shift


def _attention(
    g: GraphBuilder, attention: AttentionWriter, x: str, block: Block, grid: Size
) -> str:
    """norm1, attention and, in the Medical SAM Adapter, the adapter that follows them."""
    weights, cut, shift = block_attention(block, grid)
    with g.scope("norm1"):
        normed = g.layer_norm(x, array(block.norm1.weight), shift, block.norm1.eps)
    with g.scope("attn"):
        out = attention.emit(normed, weights, cut)
    if block.adapters == "msa":
        with g.scope("Space_Adapter"):
            out = g.op("Add", out, _bottleneck(g, out, block.Space_Adapter))
    return out


def _bottleneck(g: GraphBuilder, x: str, adapter: BottleneckAdapter, scale: float = 1.0) -> str:
    """The adapter's result times `scale`, which is folded into its last layer."""
    with g.scope("D_fc1"):
        hidden = g.gelu(linear(g, x, adapter.D_fc1))
    with g.scope("D_fc2"):
        last = adapter.D_fc2
        factor = np.float32(scale)
        return g.linear(hidden, array(last.weight) * factor, array(last.bias) * factor)


def gated_adapter(g: GraphBuilder, x: str, adapter: SamMed2dAdapter, grid: Size) -> str:
    """SAM-Med2D's adapter on tokens (1, h * w, dim)."""
    squeeze, excite = (cast(nn.Linear, adapter.channel[k]) for k in (0, 2))
    down, up = cast(nn.Conv2d, adapter.spatial[0]), cast(nn.ConvTranspose2d, adapter.spatial[2])
    dim = int(down.weight.shape[0])
    with g.scope("channel"):
        gate = g.op("ReduceMean", x, axes=[1], keepdims=1)
        gate = g.op("Relu", linear(g, gate, squeeze))
        gate = g.op("Sigmoid", linear(g, gate, excite))
        gated = g.op("Mul", x, gate)
    with g.scope("spatial"):
        y = g.shape(g.op("Transpose", gated, perm=[0, 2, 1]), [1, dim, *grid])
        y = g.op("Relu", g.conv(y, array(down.weight), None, stride=2))
        y = g.op(
            "ConvTranspose", y, g.weight(array(up.weight)), kernel_shape=[4, 4],
            strides=[2, 2], pads=[1, 1, 1, 1],
        )  # fmt: skip
        y = g.shape(g.op("Relu", y), [1, dim, grid[0] * grid[1]])
        y = g.op("Transpose", y, perm=[0, 2, 1])
    with g.scope("norm"):
        return norm(g, g.op("Add", x, y), adapter.norm)
