"""Which layers of a float32 encoder are quantised, and what lies around them.

Linear layers (MatMul by a constant) and convolutions of the image encoder.  Attention products,
Softmax, LayerNormalization, additions, the neck and what the decoder has moved into the encoder
graph are no candidates.  A convolution pays off on a CPU only where its neighbours let its result
stay int8: ONNX Runtime fuses a convolution to an integer kernel if its output is quantised too, and
beside a GELU the conversions cost more than the kernel gains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx

from samrt.errors import OptionError
from samrt_export.precision.floatgraph import FloatGraph, key_of

__all__ = ["CONVS", "ConvShape", "Layer", "find_layers"]

ConvChoice = Literal["auto", "all", "none"]
CONVS: tuple[ConvChoice, ...] = ("auto", "all", "none")

_LEFT_ALONE = re.compile(
    r"(^|/)(neck|mask_decoder|prompt_encoder|fuse_stage|conv_s[01]$|conv_s[01]/|rel_pos)"
)
_SMALLEST_SIDE, _FEWEST_ROWS = 8, 64
_LEAST_WORK = 60.0
# What may stand before and after a convolution that is quantised at its output too.
_PLAIN = frozenset(
    ("Relu", "Clip", "Add", "Conv", "Resize", "Transpose", "Reshape", "Concat",
     "LayerNormalization")
)  # fmt: skip


@dataclass(frozen=True)
class ConvShape:
    """Geometry of a convolution: kernel (h, w), strides (h, w), pads top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def is_patch(self) -> bool:
        """Whether kernels do not overlap: the embedding of patches."""
        return self.kernel == self.strides and self.kernel[0] > 1


@dataclass(frozen=True)
class Layer:
    """A layer that can be quantised.

    Attributes:
        key: what the node is called, see `key_of`.
        name: the node's name.
        kind: ``linear`` or ``conv``.
        source: the tensor that it reads.
        weight: the constant; linear (K, N), convolution (N, C, k, k).
        bias: the constant that is added to the result; ``None`` if there is none.
        bias_key: the addition, for a linear layer.
        norm: the LayerNormalization whose result this layer alone reads.
        relu: the Relu that alone reads the result.
        quantise_output: a pair of nodes stands behind the layer too.
        conv: geometry of a convolution.
    """

    key: str
    name: str
    kind: Literal["linear", "conv"]
    source: str
    weight: str
    bias: str | None = None
    bias_key: str | None = None
    norm: str | None = None
    relu: str | None = None
    quantise_output: bool = False
    conv: ConvShape | None = None

    @property
    def channel_axis(self) -> int:
        """Axis of the weight that counts outputs."""
        return 0 if self.kind == "conv" else 1

    @property
    def result(self) -> str:
        """The tensor whose range the pair behind the layer has: what a Relu leaves of it."""
        return self.relu or self.key


def find_layers(
    graph: FloatGraph, *, convs: ConvChoice = "auto", exclude: Sequence[str] = ()
) -> tuple[list[Layer], dict[str, str]]:
    """Candidates in the graph's order, and why each other layer with weights is left alone.

    Args:
        graph: the float32 encoder.
        convs: ``auto``: embeddings of patches, and convolutions with 60 and more multiplications
            for each value they move and without a GELU beside them; ``all``: also the others
            (faster in OpenVINO and TensorRT, slower in ONNX Runtime, and less exact);
            ``none``: linear layers only.
        exclude: regular expressions; layers whose name one of them is found in are left alone.

    Returns:
        The layers; name of a node -> reason.

    Raises:
        OptionError: an entry of `exclude` is no regular expression.
    """
    try:
        patterns = [re.compile(pattern) for pattern in exclude]
    except re.error as exc:
        raise OptionError(f"a pattern to exclude is no regular expression: {exc}") from exc
    neck = _pyramid(graph)
    found: list[Layer] = []
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type not in ("MatMul", "Conv", "Gemm") or not _has_weight(graph, node):
            continue
        reason = _reason(graph, node, convs)
        if reason is None and key_of(node) in neck:
            reason = "neck"
        if any(pattern.search(node.name) for pattern in patterns):
            reason = "excluded on request"
        if reason is None:
            found.append(_layer(graph, node, convs))
        else:
            reasons[node.name] = reason
    return found, reasons


def _pyramid(graph: FloatGraph) -> set[str]:
    """Nodes of a feature pyramid: behind an upsampling, right before it, or added to its result."""
    behind: set[str] = set()
    for node in graph.nodes:
        sources = {key_of(m) for m in map(graph.producer.get, node.input) if m is not None}
        if node.op_type == "Resize" or sources & behind:
            behind.add(key_of(node))
    found = set(behind)
    for node in graph.nodes:
        readers = {key_of(reader) for reader in graph.consumers.get(node.output[0], [])}
        if readers and readers <= behind:
            found.add(key_of(node))
    return found


def _has_weight(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    constants = [name in graph.weights for name in node.input[:2]]
    return any(constants) and not all(constants)


def _reason(graph: FloatGraph, node: onnx.NodeProto, convs: ConvChoice) -> str | None:
    """Why a node stays float32; `None` if it is a candidate."""
    if _LEFT_ALONE.search(node.name):
        return "neck, decoder or relative positions"
    if node.op_type == "Gemm" or node.input[1] not in graph.weights:
        return "not of the form x W"
    shape, out = graph.weights.shape_of(node.input[1]), graph.shapes[node.output[0]]
    if None in out:
        return "free sizes"
    sizes = [int(size) for size in out if size is not None]
    if node.op_type == "MatMul":
        if len(shape) != 2:
            return "not of the form x W"
        if min(shape) < _SMALLEST_SIDE or math.prod(sizes[:-1]) < _FEWEST_ROWS:
            return "small"
        return None
    return _conv_reason(graph, node, convs, shape, sizes)


def _conv_reason(
    graph: FloatGraph, node: onnx.NodeProto, convs: ConvChoice, shape: Sequence[int],
    sizes: Sequence[int],
) -> str | None:  # fmt: skip
    facts = _attributes(node)
    if facts.get("group", 1) != 1:
        return "convolution in groups"
    if len(shape) != 4 or set(facts.get("dilations", (1,))) != {1} or "auto_pad" in facts:
        return "unusual convolution"
    if math.prod(sizes[2:]) < _FEWEST_ROWS or min(sizes[1], math.prod(shape[1:])) < _SMALLEST_SIDE:
        return "small"
    if convs == "none":
        return "convolutions are left alone on request"
    geometry = _shape_of(node, shape)
    if convs == "all" or geometry.is_patch:
        return None
    if not _is_plain(graph, node):
        return "beside a GELU or another function, where int8 costs time"
    if _work_per_value(geometry, shape) < _LEAST_WORK:
        return "too little work for the values it moves"
    return None


def _work_per_value(geometry: ConvShape, shape: Sequence[int]) -> float:
    """Multiplications for each value that is read or written."""
    outputs, inputs = shape[0], shape[1]
    read = inputs * geometry.strides[0] * geometry.strides[1]
    return inputs * math.prod(geometry.kernel) * outputs / (read + outputs)


def _is_plain(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    """Whether what stands before and after a convolution lets its result be int8."""
    before = graph.producer.get(node.input[0])
    after = {reader.op_type for reader in graph.consumers.get(node.output[0], [])}
    return (before is None or before.op_type in _PLAIN) and after <= _PLAIN


def _layer(graph: FloatGraph, node: onnx.NodeProto, convs: ConvChoice) -> Layer:
    key, source, weight = key_of(node), node.input[0], node.input[1]
    readers = graph.consumers.get(key, [])
    public = {value.name for value in graph.outputs}
    alone = readers[0] if len(readers) == 1 and key not in public else None
    if node.op_type == "Conv":
        geometry = _shape_of(node, graph.weights.shape_of(weight))
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        relu = key_of(alone) if alone is not None and alone.op_type == "Relu" else None
        quantise = _is_plain(graph, node) or (geometry.is_patch and convs != "all")
        return Layer(
            key, node.name, "conv", source, weight, bias=bias, relu=relu,
            quantise_output=quantise, conv=geometry,
        )  # fmt: skip
    bias = bias_key = None
    if alone is not None and alone.op_type == "Add":
        other = next((n for n in alone.input if n != key), "")
        width = graph.weights.shape_of(weight)[1]
        if other in graph.weights and graph.weights.shape_of(other) == (width,):
            bias, bias_key = other, key_of(alone)
    return Layer(
        key, node.name, "linear", source, weight, bias=bias, bias_key=bias_key,
        norm=_norm(graph, source),
    )  # fmt: skip


def _norm(graph: FloatGraph, source: str) -> str | None:
    maker = graph.producer.get(source)
    if maker is None or maker.op_type != "LayerNormalization" or len(maker.input) < 3:
        return None
    public = {value.name for value in graph.outputs}
    alone = len(graph.consumers.get(source, [])) == 1 and source not in public
    constant = all(name in graph.weights for name in maker.input[1:3])
    return key_of(maker) if alone and constant else None


def _shape_of(node: onnx.NodeProto, shape: Sequence[int]) -> ConvShape:
    facts = _attributes(node)
    strides, pads = facts.get("strides", (1, 1)), facts.get("pads", (0, 0, 0, 0))
    top, left, bottom, right = pads
    return ConvShape((shape[2], shape[3]), (strides[0], strides[1]), (top, left, bottom, right))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
