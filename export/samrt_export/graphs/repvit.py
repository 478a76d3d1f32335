"""RepViT as an ONNX graph: BatchNorm folded, parallel branches and linear steps merged."""

from __future__ import annotations

import math

from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.bicubic import bicubic_double
from samrt_export.graphs.blocks import array, channel_norm
from samrt_export.graphs.fold import add_depthwise_branches, emit_conv_bn, float64
from samrt_export.nets.common import LayerNorm2d
from samrt_export.nets.repvit import RepVggDw, RepViT, RepVitBlock, SqueezeExcite

Size = tuple[int, int]


def emit_repvit(g: GraphBuilder, encoder: RepViT, image: str) -> str:
    """Emit the encoder; `image` is (1, 3, S_h, S_w) float32.

    Returns the name of the embedding (1, out_chans, h, w).
    """
    x, stages = image, []
    for index, block in enumerate(encoder.features):
        grid = encoder.cfg.grid(sum(index > last for last in encoder.last))
        with g.scope(f"features.{index}"):
            x = _block(g, x, block, grid) if isinstance(block, RepVitBlock) else _chain(g, x, block)
        if index in encoder.last:
            stages.append(x)
    return _neck(g, encoder, stages[2], stages[3])


def _chain(g: GraphBuilder, x: str, chain: nn.Module) -> str:
    """Convolution, GELU, convolution."""
    first, _, second = chain.children()
    with g.scope("0"):
        x = g.gelu(emit_conv_bn(g, x, first))
    with g.scope("2"):
        return emit_conv_bn(g, x, second)


def _block(g: GraphBuilder, x: str, block: RepVitBlock, grid: Size) -> str:
    with g.scope("token_mixer"):
        for index, part in enumerate(block.token_mixer):
            with g.scope(str(index)):
                x = _mix(g, x, part, grid)
    with g.scope("channel_mixer.m"):
        return g.op("Add", x, _chain(g, x, block.channel_mixer.m))


def _mix(g: GraphBuilder, x: str, part: nn.Module, grid: Size) -> str:
    if isinstance(part, nn.Identity):
        return x
    if isinstance(part, RepVggDw):
        weight, bias = add_depthwise_branches(part.conv, part.conv1, identity=True)
        return g.conv(x, weight, bias, group=len(weight))
    if isinstance(part, SqueezeExcite):
        gate = spatial_mean(g, x, grid)
        with g.scope("fc1"):
            gate = g.op("Relu", _conv(g, gate, part.fc1))
        with g.scope("fc2"):
            gate = g.op("Sigmoid", _conv(g, gate, part.fc2))
        return g.op("Mul", x, gate)
    return emit_conv_bn(g, x, part)


def spatial_mean(g: GraphBuilder, x: str, grid: Size) -> str:
    """Mean over rows and columns, (1, C, H, W) to (1, C, 1, 1), `grid` is (H, W).

    Means of blocks first: a runtime that adds 65536 numbers one by one in float32 errs ten times
    more (6e-6 against 4e-7), and the gates that follow can be steep.
    """
    tile = [max(k for k in range(1, math.isqrt(side) + 1) if side % k == 0) for side in grid]
    if tile != [1, 1]:
        x = g.op("AveragePool", x, kernel_shape=tile, strides=tile)
    return g.op("GlobalAveragePool", x)


def _conv(g: GraphBuilder, x: str, layer: nn.Conv2d) -> str:
    bias = None if layer.bias is None else array(layer.bias)
    return g.conv(x, array(layer.weight), bias)


def _neck(g: GraphBuilder, encoder: RepViT, fine: str, coarse: str) -> str:
    """The sum of the last two stages and the neck.

    The two 1x1 convolutions, the upsampling and the neck's first convolution follow each other
    without a bias or a norm, so the last one is multiplied into the first two.
    """
    norms = [part for part in encoder.neck if isinstance(part, LayerNorm2d)]
    outer = float64(encoder.neck.get_parameter("0.weight"))[:, :, 0, 0]
    coarse_grid = encoder.cfg.grid(3)
    with g.scope("fuse_stage2"):
        inner = float64(encoder.fuse_stage2.weight)[:, :, 0, 0]
        fine = g.conv(fine, (outer @ inner)[:, :, None, None], None)
    with g.scope("fuse_stage3"):
        inner = float64(encoder.fuse_stage3.get_parameter("op_list.0.weight"))[:, :, 0, 0]
        coarse = g.conv(coarse, (outer @ inner)[:, :, None, None], None)
        coarse = bicubic_double(g, coarse, coarse_grid)
    with g.scope("neck.1"):
        x = channel_norm(g, g.op("Add", fine, coarse), norms[0])
    with g.scope("neck.2"):
        x = g.conv(x, array(encoder.neck.get_parameter("2.weight")), None)
    with g.scope("neck.3"):
        return channel_norm(g, x, norms[1])
