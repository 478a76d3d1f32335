"""The CPU form of the plain ViT encoders: the same network in samrt's own operators.

Works on tokens (1, h * w, C) as the canonical graphs do (`vit`, `efficient_vit`), from the same
constants, so that both forms share them on disk.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import operators as op
from samrt_export.graphs.blocks import array, norm, patch_tokens
from samrt_export.graphs.vit import block_attention, gated_adapter
from samrt_export.graphs.vit_attention import Attention, Windows, relative_table
from samrt_export.nets.efficient_vit import Block as EfficientBlock
from samrt_export.nets.efficient_vit import EfficientSamEncoder
from samrt_export.nets.vit import MSA_MLP_ADAPTER_SCALE, Block, ImageEncoderViT
from samrt_export.nets.vit_adapters import BottleneckAdapter

Size = tuple[int, int]


def emit_cpu_vit(g: GraphBuilder, encoder: ImageEncoderViT, image: str) -> str:
    """As `vit.emit_vit`: `image` (1, 3, S_h, S_w) to the embedding (1, out_chans, h, w)."""
    cfg = encoder.cfg
    x = patch_tokens(g, image, encoder.patch_embed, cfg.grid)
    with g.scope("pos_embed"):
        x = g.op("Add", x, g.weight(array(encoder.pos_embed).reshape(1, -1, cfg.dim)))
    for index, block in enumerate(encoder.blocks):
        with g.scope(f"blocks.{index}"):
            x = _block(g, x, block, cfg.grid)
    return op.neck(g, x, encoder.neck, cfg.grid)


def emit_cpu_efficient_vit(g: GraphBuilder, encoder: EfficientSamEncoder, image: str) -> str:
    """As `efficient_vit.emit_efficient_vit`, with the same shapes."""
    cfg = encoder.cfg
    x = patch_tokens(g, image, encoder.patch_embed, cfg.grid)
    with g.scope("pos_embed"), torch.no_grad():
        x = g.op("Add", x, g.weight(array(encoder.positions()).reshape(1, -1, cfg.dim)))
    for index, block in enumerate(encoder.blocks):
        with g.scope(f"blocks.{index}"):
            x = _efficient_block(g, x, block, cfg.grid)
    return op.neck(g, x, encoder.neck, cfg.grid)


def _attend(
    g: GraphBuilder, x: str, attn: Attention, cut: Windows, before: op.Norm, residual: str = ""
) -> str:
    """Norm, attention within windows, output projection; tokens (1, h * w, dim)."""
    lead = (1, cut.grid[0] * cut.grid[1])
    with g.scope("qkv"):
        y = op.linear(g, x, lead, attn.scaled_weight(), norm=before)
    tables = None
    if attn.tables is not None:
        rows, columns = (
            relative_table(table, side, attn.scale)
            for table, side in zip(attn.tables, cut.window, strict=True)
        )
        tables = (rows, columns)
    y = op.attention(
        g, y, lead, attn.dim, attn.heads, cut, query_bias=attn.query_bias(), tables=tables
    )
    with g.scope("proj"):
        return op.linear(g, y, lead, attn.proj_weight, attn.output_bias(), residual=residual)


def _block(g: GraphBuilder, x: str, block: nn.Module, grid: Size) -> str:
    if not isinstance(block, Block):
        raise TypeError(f"expected a Block of samrt_export.nets.vit, got {type(block)}")
    lead = (1, grid[0] * grid[1])
    attn, cut, shift = block_attention(block, grid)
    before = op.Norm(array(block.norm1.weight), shift, float(block.norm1.eps))
    with g.scope("attn"):
        if block.adapters != "msa":
            x = _attend(g, x, attn, cut, before, residual=x)
        else:
            mixed = _attend(g, x, attn, cut, before)
            with g.scope("Space_Adapter"):
                mixed = _bottleneck(g, mixed, lead, block.Space_Adapter, residual=mixed)
            x = g.op("Add", x, mixed)
    with g.scope("mlp"):
        y = op.mlp(g, x, lead, block.norm2, block.mlp.lin1, block.mlp.lin2)
    if block.adapters == "sam_med2d":
        with g.scope("norm2"):
            normed = norm(g, x, block.norm2)
        with g.scope("Adapter"):
            y = g.op("Add", y, gated_adapter(g, normed, block.Adapter, grid))
    elif block.adapters == "msa":
        with g.scope("MLP_Adapter"):
            before = op.Norm.of(block.norm2)
            scale = MSA_MLP_ADAPTER_SCALE
            y = _bottleneck(g, x, lead, block.MLP_Adapter, scale, before, residual=y)
    return y


def _bottleneck(
    g: GraphBuilder, x: str, lead: op.Lead, adapter: BottleneckAdapter, scale: float = 1.0,
    before: op.Norm | None = None, *, residual: str,
) -> str:  # fmt: skip
    """residual + scale * adapter(norm?(x)); the scale is folded into the last layer."""
    with g.scope("D_fc1"):
        hidden = op.layer(g, x, lead, adapter.D_fc1, norm=before, gelu=True)
    with g.scope("D_fc2"):
        factor, last = np.float32(scale), adapter.D_fc2
        weight, bias = array(last.weight) * factor, array(last.bias) * factor
        return op.linear(g, hidden, lead, weight, bias, residual=residual)


def _efficient_block(g: GraphBuilder, x: str, block: nn.Module, grid: Size) -> str:
    if not isinstance(block, EfficientBlock):
        raise TypeError(f"expected a Block of samrt_export.nets.efficient_vit, got {type(block)}")
    attn = Attention(
        heads=block.attn.heads,
        qkv_weight=array(block.attn.qkv.weight),
        qkv_bias=array(block.attn.qkv.bias),
        proj_weight=array(block.attn.proj.weight),
        proj_bias=array(block.attn.proj.bias),
    )
    with g.scope("attn"):
        x = _attend(g, x, attn, Windows(grid, grid), op.Norm.of(block.norm1), residual=x)
    with g.scope("mlp"):
        return op.mlp(g, x, (1, grid[0] * grid[1]), block.norm2, block.mlp.fc1, block.mlp.fc2)
