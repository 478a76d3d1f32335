"""The plain-ViT image encoder of EfficientSAM as a graph."""

from __future__ import annotations

import torch
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array, gelu_mlp, mlp_tiles, neck, norm, patch_tokens
from samrt_export.graphs.vit_attention import Attention, AttentionWriter, Windows
from samrt_export.nets.efficient_vit import Block, EfficientSamEncoder


def emit_efficient_vit(
    g: GraphBuilder, encoder: EfficientSamEncoder, image: str, *, tiled: bool = False
) -> str:
    """Emit the encoder; `image` is (1, 3, S_h, S_w) float32; `tiled` as for `emit_vit`.

    Returns the name of the embedding (1, out_chans, h, w).
    """
    cfg = encoder.cfg
    x = patch_tokens(g, image, encoder.patch_embed, cfg.grid)
    with g.scope("pos_embed"), torch.no_grad():
        positions = array(encoder.positions()).reshape(1, -1, cfg.dim)
        x = g.op("Add", x, g.weight(positions))
    attention = AttentionWriter(g, tiled=tiled)
    for index, block in enumerate(encoder.blocks):
        with g.scope(f"blocks.{index}"):
            x = _block(g, attention, x, block, cfg.grid)
    return neck(g, x, encoder.neck, cfg.grid)


def _block(
    g: GraphBuilder, attention: AttentionWriter, x: str, block: nn.Module, grid: tuple[int, int]
) -> str:
    if not isinstance(block, Block):
        raise TypeError(f"expected a Block of samrt_export.nets.efficient_vit, got {type(block)}")
    attn, mlp = block.attn, block.mlp
    with g.scope("norm1"):
        normed = norm(g, x, block.norm1)
    with g.scope("attn"):
        weights = Attention(
            heads=attn.heads,
            qkv_weight=array(attn.qkv.weight),
            qkv_bias=array(attn.qkv.bias),
            proj_weight=array(attn.proj.weight),
            proj_bias=array(attn.proj.bias),
        )
        x = g.op("Add", x, attention.emit(normed, weights, Windows(grid, grid)))
    with g.scope("norm2"):
        normed = norm(g, x, block.norm2)
    with g.scope("mlp"):
        tiles = mlp_tiles(grid, mlp.fc1.out_features) if attention.tiled else 1
        return g.op("Add", x, gelu_mlp(g, normed, mlp.fc1, mlp.fc2, ("fc1", "fc2"), tiles))
