"""The image encoder of `tiny` in one of samrt's operators; see `samrt.backends.operators`."""

from __future__ import annotations

from torch import nn

from samrt_export.graph import CUSTOM_DOMAIN, GraphBuilder
from samrt_export.tiny.model import ConvNorm, Encoder
from samrt_export.tiny.onnx_blocks import FEATURES, array, folded


def cpu_encoder_graph(encoder: Encoder, size: int, *, half_weights: bool = True) -> GraphBuilder:
    """The graph of `onnx_graph.encoder_graph`; its weights have the same bytes, to be shared."""
    g = GraphBuilder("tiny_encoder", half_weights=half_weights)
    image = g.input("image", [1, 3, size, size])
    weights: list[str] = []

    def norm(block: ConvNorm) -> None:
        weight, bias = folded(block)
        weights.extend((g.weight(weight), g.weight(bias)))

    def plain(conv: nn.Conv2d) -> None:
        if conv.bias is None:
            raise TypeError("this convolution should have a bias")
        weights.extend((g.weight(array(conv.weight)), g.weight(array(conv.bias))))

    norm(encoder.stem)
    blocks = []
    for stage in encoder.stages:
        parts = [part for part in stage.modules() if isinstance(part, ConvNorm)]
        blocks.append((len(parts) - 1) // 2)
        for part in parts:
            norm(part)
    for lateral, coarse, smooth in (
        (encoder.lateral16, encoder.lateral32, encoder.smooth16),
        (encoder.lateral8, encoder.down8, encoder.smooth8),
        (encoder.lateral4, encoder.down4, encoder.smooth4),
    ):
        for part in (lateral, coarse, smooth):
            norm(part)
    results = [encoder.out16, encoder.out8, encoder.out4, encoder.out2]
    for conv in (*results, encoder.down2):
        plain(conv)
    maps = g.split_op(
        "FineEncoder", 4, image, *weights, domain=CUSTOM_DOMAIN,
        **{f"blocks{number}": count for number, count in enumerate(blocks, 1)},
    )  # fmt: skip
    for name, tensor, conv, stride in zip(FEATURES, maps, results, (16, 8, 4, 2), strict=True):
        g.output(tensor, name, [1, conv.out_channels, size // stride, size // stride])
    return g
