"""Nodes of samrt's own operators in mask decoders; see `operators`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper
from torch import nn

from samrt_export.graph import CUSTOM_DOMAIN, GraphBuilder
from samrt_export.graphs.blocks import array

if TYPE_CHECKING:
    from samrt_export.graphs.decoder_cross import Writing


def image_update(
    g: GraphBuilder, image: str, writing: Writing, codes: str, norm: nn.LayerNorm, pixels: int
) -> tuple[str, str]:
    """norm(image + weights^T values) and that plus `codes`, both (N, HW, dim).

    image (1 or N, HW, dim); codes (1, HW, dim).
    """
    dim = int(norm.weight.shape[0])
    inputs = [
        image, writing.scores, writing.values, codes,
        g.weight(array(norm.weight)), g.weight(array(norm.bias)),
        *([] if writing.rows is None else [writing.rows]),
    ]  # fmt: skip
    first, second = g.split_op(
        "ImageUpdate", 2, *inputs, domain=CUSTOM_DOMAIN, heads=writing.heads,
        epsilon=float(norm.eps),
    )  # fmt: skip
    for name in (first, second):
        g.values[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", pixels, dim])
    return first, second
