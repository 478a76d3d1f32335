"""A float32 graph as a strongly typed one of float16 with float32 islands.

Every tensor has one type, every change of type is a Cast of its own, and no node mixes types: the
form that strongly typed TensorRT networks take as it is.  A float32 node reads float32 tensors and
returns them; where its neighbour is float16 a Cast stands between the two, one per tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from samrt.errors import SamrtError
from samrt_export.graph import HALF_FROM_ELEMENTS, GraphBuilder
from samrt_export.precision.floatgraph import (
    FIXED_INPUTS,
    MOVES,
    FloatGraph,
    copy_of,
    key_of,
)

__all__ = ["EXACT_INPUTS", "HALF_MAX", "STATISTICS", "HalfGraph", "PrecisionError", "settle",
           "statistics_of", "to_half"]  # fmt: skip

HALF_MAX = 65504.0
# Normalisation and softmax: sums over squares or exponentials, always float32.
STATISTICS = frozenset(
    ("LayerNormalization", "Softmax", "LogSoftmax", "InstanceNormalization", "GroupNormalization")
)
# Half precision cannot tell half pixels of a 1024-pixel frame: these stay float32 at the border.
EXACT_INPUTS = frozenset(("point_coords", "point_labels"))
_STASH_HALF = TensorProto.FLOAT16


class PrecisionError(SamrtError, ValueError):
    """A graph cannot be converted as asked, or no conversion of it is good enough."""


@dataclass
class HalfGraph:
    """A strongly typed graph.

    Attributes:
        builder: the graph; `builder.write` checks it and puts it on disk.
        half_tensors: names of its float16 tensors.
        half_nodes, float_nodes: how many nodes compute in float16 and in float32.
        casts: how many Cast nodes stand between the two.
    """

    builder: GraphBuilder
    half_tensors: set[str] = field(default_factory=set)
    half_nodes: int = 0
    float_nodes: int = 0
    casts: int = 0


def statistics_of(graph: FloatGraph) -> set[str]:
    """Nodes whose statistics must not be float16."""
    return {key_of(node) for node in graph.nodes if node.op_type in STATISTICS}


def settle(graph: FloatGraph, float32: Collection[str]) -> set[str]:
    """Islands and the moves between their nodes, so that nothing is cast forth and back.

    A node that only moves values joins the islands if what it reads comes from an island, or from
    an input of the graph, and everything that reads it is in one.
    """
    chosen = set(float32)
    wants: set[str] = set()
    for node in reversed(graph.nodes):
        readers = [c for name in node.output for c in graph.consumers.get(name, [])]
        if node.op_type in MOVES and readers:
            keys = {key_of(reader) for reader in readers}
            if keys <= (chosen | wants):
                wants.add(key_of(node))
    for node in graph.nodes:
        if key_of(node) in wants:
            sources = [graph.producer.get(name) for name in graph.float_inputs(node)
                       if graph.is_activation(name)]  # fmt: skip
            if all(source is None or key_of(source) in chosen for source in sources):
                chosen.add(key_of(node))
    return chosen


def to_half(
    graph: FloatGraph,
    float32: Collection[str],
    *,
    half_io: bool = False,
    half_statistics: bool = False,
) -> HalfGraph:
    """Convert a graph.

    Args:
        graph: what is converted; it is left as it is.
        float32: keys of the nodes that stay float32, see `key_of`.
        half_io: float16 inputs and outputs too, except coordinates and labels of points.
        half_statistics: let normalisations that are not in `float32` compute their statistics in
            float16 (`stash_type`), as graphs of single operators do.  For experiments: it is what
            breaks.

    Raises:
        PrecisionError: a weight does not fit float16; its node has to stay float32.
    """
    writer = _Writer(graph, frozenset(float32), half_statistics)
    for value in graph.inputs:
        writer.input(value, half_io=half_io)
    for node in graph.nodes:
        writer.node(node)
    for value in graph.outputs:
        writer.output(value, half_io=half_io)
    return writer.made


class _Writer:
    """Emits the converted nodes in order; asks for tensors in the type that a node needs."""

    def __init__(self, graph: FloatGraph, float32: frozenset[str], half_statistics: bool) -> None:
        self.graph, self.float32, self.half_statistics = graph, float32, half_statistics
        self.made = HalfGraph(GraphBuilder(graph.name, graph.opset))
        self.public = {value.name for value in graph.outputs}
        self.renamed: dict[str, str] = {}
        self.cast: dict[tuple[str, bool], str] = {}

    def input(self, value: onnx.ValueInfoProto, *, half_io: bool) -> None:
        copied = onnx.ValueInfoProto()
        copied.CopyFrom(value)
        kind = copied.type.tensor_type
        if half_io and kind.elem_type == TensorProto.FLOAT and value.name not in EXACT_INPUTS:
            kind.elem_type = TensorProto.FLOAT16
            self.made.half_tensors.add(value.name)
        self.made.builder.inputs.append(copied)

    def node(self, node: onnx.NodeProto) -> None:
        graph, copied = self.graph, copy_of(node)
        follows = graph.float_inputs(node)
        makes = [name for name in node.output if graph.is_float(name)]
        half = bool(follows or makes) and key_of(node) not in self.float32
        fixed = FIXED_INPUTS.get(node.op_type, frozenset())
        for k, name in enumerate(node.input):
            if name and graph.is_float(name):
                copied.input[k] = self.typed(name, half=half and k not in fixed)
            elif name in graph.weights:
                self.made.builder.arrays[name] = graph.weights[name]
        if follows or makes:
            self.made.half_nodes += half
            self.made.float_nodes += not half
        for k, name in enumerate(node.output):
            if name in self.public and half and name in makes:
                copied.output[k] = self.renamed[name] = f"{name}/half"
        if half:
            self.made.half_tensors.update(self.renamed.get(name, name) for name in makes)
            _retype(copied, self.half_statistics)
        self.made.builder.nodes.append(copied)

    def typed(self, name: str, *, half: bool) -> str:
        """The tensor in the wanted type, by a Cast where it has the other one."""
        if name in self.graph.weights:
            return self.constant(name, half=half)
        own = self.renamed.get(name, name)
        if (own in self.made.half_tensors) == half:
            return own
        if (name, half) not in self.cast:
            other = f"{name}/as_{'half' if half else 'float'}"
            self.emit_cast(own, other, half=half)
            self.cast[name, half] = other
            self.made.casts += 1
        return self.cast[name, half]

    def emit_cast(self, source: str, target: str, *, half: bool) -> None:
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        node = helper.make_node("Cast", [source], [target], name=target, to=to)
        self.made.builder.nodes.append(node)
        if half:
            self.made.half_tensors.add(target)

    def constant(self, name: str, *, half: bool) -> str:
        """A weight; those that float16 holds exactly are stored so for float32 nodes too."""
        arrays, target = self.made.builder.arrays, f"{name}/half" if half else name
        if target in arrays or (name, half) in self.cast:
            return target
        wide = self.graph.constant(name)
        if half:
            arrays[target] = as_half(wide, name)
            self.made.half_tensors.add(target)
            return target
        if wide.size >= HALF_FROM_ELEMENTS and exact_in_half(wide):
            self.emit_cast(self.constant(name, half=True), name, half=False)
            self.cast[name, False] = name
            return name
        arrays[name] = np.ascontiguousarray(wide)
        return name

    def output(self, value: onnx.ValueInfoProto, *, half_io: bool) -> None:
        """Give an output its public name and type."""
        copied = onnx.ValueInfoProto()
        copied.CopyFrom(value)
        name, builder = value.name, self.made.builder
        if self.graph.is_float(name):
            own = self.renamed.get(name, name)
            is_half = own in self.made.half_tensors
            if half_io:
                copied.type.tensor_type.elem_type = TensorProto.FLOAT16
            if is_half != half_io and own == name:
                own = f"{name}/float"
                _rename(builder.nodes, name, own)
            if is_half != half_io:
                self.emit_cast(own, name, half=half_io)
                self.made.casts += 1
            elif own != name:
                _rename(builder.nodes, own, name)
                self.made.half_tensors.discard(own)
                self.made.half_tensors.add(name)
        builder.outputs.append(copied)


def as_half(array: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round to float16, to nearest even; subnormals are kept, infinities stay infinities.

    Raises:
        PrecisionError: a finite value is too large.
    """
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(array.astype(np.float16))
    if bool((np.isinf(half) & np.isfinite(array)).any()):
        raise PrecisionError(
            f"weight {name} reaches {np.abs(array[np.isfinite(array)]).max():g}, float16 ends at "
            f"{HALF_MAX:g}: keep its node in float32"
        )
    return half


def exact_in_half(array: NDArray[np.float32]) -> bool:
    """Whether float16 holds every value."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(np.float16).astype(np.float32), array))


def _retype(node: onnx.NodeProto, half_statistics: bool) -> None:
    """Attributes that name a type."""
    for attribute in node.attribute:
        is_type = node.op_type == "Cast" and attribute.name == "to"
        if is_type and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
    if node.op_type == "LayerNormalization" and half_statistics:
        node.attribute.append(helper.make_attribute("stash_type", int(_STASH_HALF)))


def _rename(nodes: Iterable[Any], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                if name == old:
                    names[k] = new
