"""samrt's operators for `onnx.reference`: graphs of the CPU form without the C++ library."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from samrt import reference_operators as plain


class Attention(OpRun):
    op_domain = "samrt"

    def _run(
        self, qkv: Any, query_bias: Any = None, rows: Any = None, columns: Any = None,
        bias: Any = None, heads: Any = None, grid_h: Any = None, grid_w: Any = None,
        window_h: Any = None, window_w: Any = None, **_: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        # `onnx` adds what it knows of its own operator of this name.
        y = plain.attention(
            qkv, query_bias, rows, columns, bias, heads=heads, grid_h=grid_h, grid_w=grid_w,
            window_h=window_h, window_w=window_w,
        )  # fmt: skip
        return (y,)


class Linear(OpRun):
    op_domain = "samrt"

    def _run(
        self, x: Any, weight: Any, bias: Any = None, gamma: Any = None, beta: Any = None,
        residual: Any = None, epsilon: Any = None, gelu: Any = None, norm: Any = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        y = plain.linear(
            x, weight, bias, gamma, beta, residual, epsilon=epsilon, gelu_after=bool(gelu),
            norm=bool(norm),
        )  # fmt: skip
        return (y,)


class Mlp(OpRun):
    op_domain = "samrt"

    def _run(self, *inputs: Any, epsilon: Any = None) -> tuple[Any, ...]:
        return (plain.mlp(*inputs, epsilon=epsilon),)


class DepthwiseConv(OpRun):
    op_domain = "samrt"

    def _run(self, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
        return (plain.depthwise_conv(x, weight, bias),)


class Conv3x3(OpRun):
    op_domain = "samrt"

    def _run(self, x: Any, weight: Any) -> tuple[Any]:
        return (plain.conv3x3(x, weight),)


class Stem(OpRun):
    op_domain = "samrt"

    def _run(self, image: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> tuple[Any]:
        return (plain.stem(image, w1, b1, w2, b2),)


class MbConv(OpRun):
    op_domain = "samrt"

    def _run(self, *inputs: Any, stride: Any = None, residual: Any = None) -> tuple[Any, ...]:
        return (plain.mb_conv(*inputs, stride=stride, residual=bool(residual)),)


class UpscaleMasks(OpRun):
    op_domain = "samrt"

    def _run(
        self, *inputs: Any, height: Any = None, width: Any = None, epsilon: Any = None
    ) -> tuple[Any, ...]:
        return (plain.upscale_masks(*inputs, height=height, width=width, epsilon=epsilon),)


class MaskRows(OpRun):
    op_domain = "samrt"

    def _run(self, *inputs: Any, epsilon: Any = None) -> tuple[Any, ...]:
        return (plain.mask_rows(*inputs, epsilon=epsilon),)


class ReadImage(OpRun):
    op_domain = "samrt"

    def _run(self, *inputs: Any) -> tuple[Any, ...]:
        return (plain.read_image(*inputs),)


class ImagePass(OpRun):
    op_domain = "samrt"

    def _run(self, *inputs: Any, heads: Any = None, epsilon: Any = None) -> tuple[Any, ...]:
        return plain.image_pass(*inputs, heads=heads, epsilon=epsilon)


OPERATORS = [
    Attention, Linear, Mlp, DepthwiseConv, MbConv, Stem, Conv3x3, UpscaleMasks, MaskRows, ReadImage,
    ImagePass,
]  # fmt: skip


def evaluate(model: onnx.ModelProto, feeds: Any) -> dict[str, Any]:
    """Outputs of a model by name; `feeds` by name, or the image alone."""
    names = [output.name for output in model.graph.output]
    evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
    given = feeds if isinstance(feeds, dict) else {"image": feeds}
    return dict(zip(names, evaluator.run(None, given), strict=True))
