"""Float32 graphs as int8 ones: pairs of QuantizeLinear and DequantizeLinear, or weights alone.

Everything is symmetric int8 with zero points of 0; weights have one scale per output, biases stay
float32.  TensorRT takes no other activations and no int32 biases.  Two properties of the form are
for ONNX Runtime, which turns signed activations into unsigned ones and then fuses integer kernels:

* Each layer has a pair of its own, with a scale that differs from all others of the tensor.  A
  pair that two layers share stays signed, and the layers float32.
* The bias behind a MatMul has the rank of the result.  A bias of one axis is merged to a Gemm
  first, which then is not fused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from samrt_export.graph import HALF_FROM_ELEMENTS, GraphBuilder
from samrt_export.precision.floatgraph import FloatGraph, copy_of, key_of
from samrt_export.precision.half import exact_in_half
from samrt_export.quantize.arithmetic import F32, quantise_weight
from samrt_export.quantize.choose import Choice
from samrt_export.quantize.histogram import LEVELS

__all__ = ["to_int8", "to_int8_weights"]

_ZERO = "int8_zero"
_SMALLEST_WEIGHT, _SMALLEST_TABLE = 1024, 4096


def to_int8(graph: FloatGraph, choices: Sequence[Choice]) -> GraphBuilder:
    """The graph with the chosen layers quantised; all else stays float32.

    Tensors keep their names, except results of norms whose large channels have been migrated.
    """
    writer = _Writer(graph, {choice.layer.key: choice for choice in choices})
    for node in graph.nodes:
        writer.node(node)
    return writer.finished()


def to_int8_weights(graph: FloatGraph) -> GraphBuilder:
    """The graph with int8 weights of its products and convolutions, and float32 arithmetic.

    Other constants of 4096 and more elements are stored as float16 if they fit.
    """
    writer = _Writer(graph, {})
    for node in graph.nodes:
        axes = {k: _output_axis(graph, node, k) for k in range(min(2, len(node.input)))}
        copied = copy_of(node)
        for k, axis in axes.items():
            if axis is not None:
                name = node.input[k]
                copied.input[k] = writer.weight(name, graph.constant(name), axis)
        writer.nodes.append(copied)
    return writer.finished(round_tables=True)


def _migrated(choice: Choice) -> str:
    """What a norm returns when its large channels have been divided."""
    return f"{choice.layer.source}/migrated"


def _output_axis(graph: FloatGraph, node: onnx.NodeProto, k: int) -> int | None:
    """Axis of the outputs of a weight; `None` if input `k` is none that is worth it."""
    name = node.input[k]
    if node.op_type not in ("MatMul", "Conv", "Gemm") or name not in graph.weights:
        return None
    shape = graph.weights.shape_of(name)
    if int(np.prod(shape)) < _SMALLEST_WEIGHT or len(shape) < 2:
        return None
    if node.op_type == "Conv":
        return 0 if k == 1 else None
    turned = any(a.name == ("transA", "transB")[k] and a.i for a in node.attribute)
    last = (k == 1) != turned
    return len(shape) - 1 if last else len(shape) - 2


class _Writer:
    """Emits nodes in order, and the pairs that they need."""

    def __init__(self, graph: FloatGraph, choices: Mapping[str, Choice]) -> None:
        self.graph, self.choices = graph, choices
        self.builder = GraphBuilder(graph.name, graph.opset)
        self.builder.inputs = list(graph.inputs)
        self.builder.outputs = list(graph.outputs)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays = self.builder.arrays
        self.arrays[_ZERO] = np.zeros((), np.int8)
        self.scales: dict[str, set[float]] = {}
        self.norms = {c.layer.norm: c for c in choices.values() if c.smooth is not None}
        self.biases = {c.layer.bias_key: c for c in choices.values() if c.layer.bias_key}

    def node(self, node: onnx.NodeProto) -> None:
        """Copy a node, changed where a choice says so."""
        copied, key = copy_of(node), key_of(node)
        if key in self.norms:
            self._norm(copied, self.norms[key])
        if key in self.biases:
            self._bias(copied, self.biases[key])
        choice = self.choices.get(key)
        if choice is None:
            self.nodes.append(copied)
            return
        layer = choice.layer
        source = layer.source if choice.smooth is None else _migrated(choice)
        copied.input[0] = self._pair(source, choice.clip, f"{key}/in")
        values = self.graph.constant(layer.weight)
        if choice.smooth is not None:
            values = values * choice.smooth[:, None]
        name = layer.weight if choice.smooth is None else f"{key}/weight"
        copied.input[1] = self.weight(name, values, layer.channel_axis)
        if layer.kind == "conv":
            self._conv_bias(copied, choice)
        if choice.output_clip is not None:
            copied.output[0] = f"{key}/exact"
        self.nodes.append(copied)
        if choice.output_clip is not None:
            self._pair(f"{key}/exact", choice.output_clip, f"{key}/out", key)

    def _pair(self, tensor: str, clip: float, stem: str, target: str | None = None) -> str:
        """QuantizeLinear and DequantizeLinear; returns the name of the result."""
        scale, taken = np.float32(clip / LEVELS), self.scales.setdefault(tensor, set())
        while float(scale) in taken:
            scale = np.nextafter(scale, np.float32(np.inf))
        taken.add(float(scale))
        result = target or f"{stem}/dequantised"
        self.arrays[f"{stem}/scale"] = np.asarray(scale, np.float32)
        parameters = [f"{stem}/scale", _ZERO]
        self.nodes.append(
            helper.make_node(
                "QuantizeLinear", [tensor, *parameters], [f"{stem}/int8"], name=f"{stem}/quantise"
            )
        )
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{stem}/int8", *parameters], [result],
                name=f"{stem}/dequantise",
            )
        )  # fmt: skip
        return result

    def weight(self, name: str, values: F32, axis: int) -> str:
        """A DequantizeLinear of int8 weights; one for all nodes that share them."""
        stem = f"{name}/axis{axis}"
        result = f"{stem}/dequantised"
        if f"{stem}/int8" not in self.arrays:
            whole, scales = quantise_weight(values, axis)
            self.arrays[f"{stem}/int8"], self.arrays[f"{stem}/scale"] = whole, scales
            self.arrays[f"{stem}/zero"] = np.zeros(len(scales), np.int8)
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{stem}/int8", f"{stem}/scale", f"{stem}/zero"], [result],
                    name=f"{stem}/dequantise", axis=axis,
                )
            )  # fmt: skip
        return result

    def _norm(self, node: onnx.NodeProto, choice: Choice) -> None:
        """Divide what a norm returns."""
        factors = np.float32(1.0) if choice.smooth is None else choice.smooth
        for k in (1, 2):
            name = f"{key_of(node)}/divided_{k}"
            self.arrays[name] = self.graph.constant(node.input[k]) / factors
            node.input[k] = name
        node.output[0] = _migrated(choice)  # another name, as these are other values

    def _bias(self, node: onnx.NodeProto, choice: Choice) -> None:
        """The corrected bias behind a MatMul, in the rank of the result."""
        bias = choice.layer.bias or ""
        rank = len(self.graph.shapes[choice.layer.key])
        name = f"{choice.layer.key}/bias"
        values = self.graph.constant(bias) + choice.correction
        self.arrays[name] = values.reshape((1,) * (rank - 1) + (-1,))
        for k, other in enumerate(node.input):
            if other == bias:
                node.input[k] = name

    def _conv_bias(self, node: onnx.NodeProto, choice: Choice) -> None:
        bias = choice.layer.bias
        values = self.graph.constant(bias) if bias is not None else np.float32(0.0)
        name = f"{choice.layer.key}/bias"
        self.arrays[name] = np.asarray(values + choice.correction, np.float32)
        del node.input[2:]
        node.input.append(name)

    def finished(self, *, round_tables: bool = False) -> GraphBuilder:
        """The builder with the constants that are used.

        What float16 holds exactly is stored so, with a Cast, as the float32 file may have it;
        with `round_tables` large constants are rounded to float16.
        """
        used = {name for node in self.nodes for name in node.input}
        self.builder.arrays = self.arrays = {n: a for n, a in self.arrays.items() if n in used}
        casts: list[onnx.NodeProto] = []
        for name in dict.fromkeys(n for node in self.nodes for n in node.input):
            if name in self.graph.weights:
                self._keep(name, casts, round_tables)
        self.builder.nodes = [*casts, *self.nodes]
        return self.builder

    def _keep(self, name: str, casts: list[onnx.NodeProto], round_tables: bool) -> None:
        if self.graph.weights.type_of(name) != TensorProto.FLOAT:
            self.arrays[name] = self.graph.weights[name]
            return
        values = np.ascontiguousarray(self.graph.constant(name))
        fits = values.size >= HALF_FROM_ELEMENTS and exact_in_half(values)
        if round_tables and values.size >= _SMALLEST_TABLE:
            with np.errstate(over="ignore"):
                fits = bool(np.isfinite(values.astype(np.float16)).all())
        if not fits:
            self.arrays[name] = values
            return
        self.arrays[f"{name}/half"] = values.astype(np.float16)
        casts.append(
            helper.make_node(
                "Cast", [f"{name}/half"], [name], name=f"{name}/cast", to=TensorProto.FLOAT
            )
        )
