"""TinyViT as an ONNX graph: BatchNorm folded, static windows, position biases as constants."""

from __future__ import annotations

from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import linear, neck, norm
from samrt_export.graphs.fold import emit_conv_bn, float64
from samrt_export.graphs.vit_attention import Windows
from samrt_export.graphs.windows import WindowAttention, attend, simplify, unshifted_norm
from samrt_export.nets.tiny_vit import (
    Attention,
    MBConv,
    Mlp,
    PatchMerging,
    Stage,
    TinyViT,
    TinyVitBlock,
)

Size = tuple[int, int]
TO_TOKENS = [0, 2, 3, 1]
TO_CHANNELS = [0, 3, 1, 2]


def emit_tiny_vit(g: GraphBuilder, encoder: TinyViT, image: str) -> str:
    """Emit the encoder; `image` is (1, 3, S_h, S_w) float32.

    Returns the name of the embedding (1, out_chans, h, w).  The pretraining head is left out.
    """
    cfg = encoder.cfg
    first, _, second = encoder.patch_embed.seq
    with g.scope("patch_embed.seq.0"):
        x = g.gelu(emit_conv_bn(g, image, first))
    with g.scope("patch_embed.seq.2"):
        x = emit_conv_bn(g, x, second)
    for index, layer in enumerate(encoder.layers):
        with g.scope(f"layers.{index}"):
            x = _stage(g, x, layer, cfg.grid(index))
    grid = cfg.grid(len(encoder.layers) - 1)
    tokens = g.shape(x, [1, grid[0] * grid[1], cfg.embed_dims[-1]])
    return neck(g, tokens, encoder.neck, grid)


def _stage(g: GraphBuilder, x: str, stage: nn.Module, grid: Size) -> str:
    """(1, C, H, W) to (1, C', H', W'); the last stage returns tokens (1, H, W, C)."""
    if not isinstance(stage, Stage):
        raise TypeError(f"got a {type(stage).__name__}; expected a TinyViT Stage")
    tokens = False
    for index, block in enumerate(stage.blocks):
        with g.scope(f"blocks.{index}"):
            if isinstance(block, MBConv):
                x = _mbconv(g, x, block)
            elif isinstance(block, TinyVitBlock):
                x = x if tokens else g.op("Transpose", x, perm=TO_TOKENS)
                x, tokens = _block(g, x, block, grid), True
    if stage.downsample is None:
        return x
    with g.scope("downsample"):
        x = g.op("Transpose", x, perm=TO_CHANNELS) if tokens else x
        return _patch_merging(g, x, stage.downsample)


def _mbconv(g: GraphBuilder, x: str, block: MBConv) -> str:
    with g.scope("conv1"):
        y = g.gelu(emit_conv_bn(g, x, block.conv1))
    with g.scope("conv2"):
        y = g.gelu(emit_conv_bn(g, y, block.conv2))
    with g.scope("conv3"):
        y = emit_conv_bn(g, y, block.conv3)
    return g.gelu(g.op("Add", x, y))


def _patch_merging(g: GraphBuilder, x: str, module: PatchMerging) -> str:
    with g.scope("conv1"):
        x = g.gelu(emit_conv_bn(g, x, module.conv1))
    with g.scope("conv2"):
        x = g.gelu(emit_conv_bn(g, x, module.conv2))
    with g.scope("conv3"):
        return emit_conv_bn(g, x, module.conv3)


def _block(g: GraphBuilder, x: str, block: TinyVitBlock, grid: Size) -> str:
    """Tokens (1, H, W, C) to the same shape."""
    with g.scope("attn"):
        x = g.op("Add", x, _attention(g, x, block.attn, grid))
    with g.scope("local_conv"):
        y = g.op("Transpose", x, perm=TO_CHANNELS)
        x = g.op("Transpose", emit_conv_bn(g, y, block.local_conv), perm=TO_TOKENS)
    with g.scope("mlp"):
        return g.op("Add", x, _mlp(g, x, block.mlp))


def attention_weights(attn: Attention) -> WindowAttention:
    """The weights of an attention behind `unshifted_norm`.

    The checkpoint holds q, k and v of a head side by side; here all q come first.
    """
    width = attn.proj.in_features
    d = width // attn.heads
    weight = float64(attn.qkv.weight).reshape(attn.heads, 3, d, width).swapaxes(0, 1)
    bias = float64(attn.qkv.bias).reshape(attn.heads, 3, d).swapaxes(0, 1)
    return simplify(weight, bias, attn.proj, attn.scale, shift=float64(attn.norm.bias))


def _attention(g: GraphBuilder, x: str, attn: Attention, grid: Size) -> str:
    with g.scope("norm"):
        x = unshifted_norm(g, x, attn.norm)
    cut = Windows(grid, (attn.window, attn.window))
    return attend(g, x, attention_weights(attn), cut, float64(attn.bias()))


def _mlp(g: GraphBuilder, x: str, mlp: Mlp) -> str:
    with g.scope("norm"):
        x = norm(g, x, mlp.norm)
    with g.scope("fc1"):
        x = g.gelu(linear(g, x, mlp.fc1))
    with g.scope("fc2"):
        return linear(g, x, mlp.fc2)
