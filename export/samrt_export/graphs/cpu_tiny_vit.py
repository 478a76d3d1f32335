"""The CPU form of TinyViT: the same network in samrt's own operators, channels last throughout.

Behind the stem every tensor is (1, H, W, C) up to the neck.
"""

from __future__ import annotations

from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import operators as op
from samrt_export.graphs.fold import float64
from samrt_export.graphs.tiny_vit import TO_TOKENS, attention_weights
from samrt_export.graphs.vit_attention import Windows
from samrt_export.nets.tiny_vit import MBConv, PatchMerging, Stage, TinyViT, TinyVitBlock

Size = tuple[int, int]


def emit_cpu_tiny_vit(g: GraphBuilder, encoder: TinyViT, image: str) -> str:
    """As `tiny_vit.emit_tiny_vit`: `image` (1, 3, S_h, S_w) to (1, out_chans, h, w)."""
    cfg = encoder.cfg
    with g.scope("patch_embed"):
        x = _stem(g, image, encoder)
    for index, layer in enumerate(encoder.layers):
        with g.scope(f"layers.{index}"):
            x = _stage(g, x, layer, cfg.grid(index))
    grid = cfg.grid(len(encoder.layers) - 1)
    return op.neck(g, x, encoder.neck, grid)


def _stem(g: GraphBuilder, image: str, encoder: TinyViT) -> str:
    """(1, 3, S_h, S_w) to (1, H, W, C) of the first stage."""
    cfg = encoder.cfg
    first, _, second = encoder.patch_embed.seq
    if (cfg.stem_kernel, cfg.stem_stride) == (3, 2):
        return op.stem(g, image, cfg.image_size, first, second)
    x = g.op("Transpose", image, perm=TO_TOKENS)  # LiteMedSAM's are 1 x 1
    x = op.pointwise(g, x, cfg.image_size, first, gelu=True)
    return op.pointwise(g, x, cfg.image_size, second)


def _stage(g: GraphBuilder, x: str, stage: nn.Module, grid: Size) -> str:
    """(1, H, W, C) of `grid` to the tokens of the next stage."""
    if not isinstance(stage, Stage):
        raise TypeError(f"got a {type(stage).__name__}; expected a TinyViT Stage")
    for index, block in enumerate(stage.blocks):
        with g.scope(f"blocks.{index}"):
            if isinstance(block, MBConv):
                parts = (block.conv1, block.conv2, block.conv3)
                x = op.mb_conv(g, x, grid, parts, residual=True)
            elif isinstance(block, TinyVitBlock):
                x = _block(g, x, block, grid)
    if stage.downsample is None:
        return x
    with g.scope("downsample"):
        return _patch_merging(g, x, grid, stage.downsample)


def _patch_merging(g: GraphBuilder, x: str, grid: Size, module: PatchMerging) -> str:
    parts = (module.conv1, module.conv2, module.conv3)
    stride = int(module.conv2.c.stride[0])
    return op.mb_conv(g, x, grid, parts, stride=stride, residual=False)


def _block(g: GraphBuilder, x: str, block: TinyVitBlock, grid: Size) -> str:
    lead = (1, *grid)
    attn = block.attn
    with g.scope("attn"):
        weights = attention_weights(attn)
        before = op.Norm(float64(attn.norm.weight), None, float(attn.norm.eps))
        with g.scope("qkv"):
            matrix = weights.qkv.reshape(3 * weights.width, -1)
            y = op.linear(g, x, lead, matrix, norm=before)
        y = op.attention(
            g, y, lead, weights.width, weights.heads, Windows(grid, (attn.window, attn.window)),
            query_bias=weights.query_bias.reshape(-1), position_bias=float64(attn.bias()),
        )  # fmt: skip
        with g.scope("proj"):
            x = op.linear(g, y, lead, weights.proj_weight, weights.proj_bias, residual=x)
    with g.scope("local_conv"):
        x = op.depthwise(g, x, grid, block.local_conv)
    with g.scope("mlp"):
        return op.mlp(g, x, lead, block.mlp.norm, block.mlp.fc1, block.mlp.fc2)
