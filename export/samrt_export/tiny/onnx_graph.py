"""The `tiny` network as ONNX graphs, written node by node from its weights.

Batch norm is folded, position codes and what they multiply are constants, projections of the same
tensor share a MatMul, click bumps are outer products of one-dimensional bumps.  `model.Tiny` is
the reference; the tests and the export compare the two.
"""

from __future__ import annotations

from samrt_export.graph import GraphBuilder
from samrt_export.tiny.model import ConvNorm, Encoder, Tiny
from samrt_export.tiny.onnx_blocks import FEATURES, Writer
from samrt_export.tiny.onnx_cpu_decoder import cpu_decoder_graph
from samrt_export.tiny.onnx_cpu_encoder import cpu_encoder_graph
from samrt_export.tiny.onnx_decoder import decoder_graph

__all__ = ["FEATURES", "cpu_graphs", "decoder_graph", "encoder_graph", "graphs"]


def encoder_graph(encoder: Encoder, size: int, *, half_weights: bool = True) -> GraphBuilder:
    """image (1, 3, S, S) float32 to the four maps of `FEATURES`."""
    g = Writer("tiny_encoder", half_weights=half_weights)
    image = g.input("image", [1, 3, size, size])
    x2 = g.conv_norm(image, encoder.stem)
    maps, x = [], x2
    for stage in encoder.stages:
        x = g.sequence(x, stage)
        maps.append(x)
    x4, x8, x16, x32 = maps

    def merge(lateral: ConvNorm, fine: str, down: ConvNorm, coarse: str, smooth: ConvNorm) -> str:
        up = g.double(g.conv_norm(coarse, down))
        both = g.op("Relu", g.op("Add", g.conv_norm(fine, lateral), up))
        return g.conv_norm(both, smooth)

    p16 = merge(encoder.lateral16, x16, encoder.lateral32, x32, encoder.smooth16)
    p8 = merge(encoder.lateral8, x8, encoder.down8, p16, encoder.smooth8)
    p4 = merge(encoder.lateral4, x4, encoder.down4, p8, encoder.smooth4)
    p2 = g.op("Add", g.conv_plain(x2, encoder.out2), g.double(g.conv_plain(p4, encoder.down2)))
    outs = [g.conv_plain(p16, encoder.out16), g.conv_plain(p8, encoder.out8)]
    outs += [g.conv_plain(p4, encoder.out4), p2]
    widths = [encoder.out16, encoder.out8, encoder.out4, encoder.out2]
    for name, tensor, layer, stride in zip(FEATURES, outs, widths, (16, 8, 4, 2), strict=True):
        g.output(tensor, name, [1, layer.out_channels, size // stride, size // stride])
    return g


def graphs(
    model: Tiny, size: int, *, half_weights: bool = True
) -> tuple[GraphBuilder, GraphBuilder]:
    """Encoder and decoder."""
    return (
        encoder_graph(model.encoder, size, half_weights=half_weights),
        decoder_graph(model.decoder, size, half_weights=half_weights),
    )


def cpu_graphs(
    model: Tiny, size: int, *, half_weights: bool = True
) -> tuple[GraphBuilder, GraphBuilder]:
    """The same in samrt's own operators for ONNX Runtime."""
    return (
        cpu_encoder_graph(model.encoder, size, half_weights=half_weights),
        cpu_decoder_graph(model.decoder, size, half_weights=half_weights),
    )
