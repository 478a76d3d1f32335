"""Ranges of a float32 graph, measured: the largest and smallest value of every tensor.

The graph gets reductions to scalars beside its own nodes, so a run returns numbers and not
tensors; running figures are kept over any number of pictures.  The nodes run in their written
order, and each reduction right after the node that it looks at, so that memory stays that of the
plain graph.

A second pass bounds sums: in a product A B every partial sum is at most (|A| |B|), in whatever
order and with whatever accumulator a device forms it.  Cheap bounds from ranges and weights decide
for which nodes that pass is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from samrt.backends.base import Arrays
from samrt_export.graph import GraphBuilder
from samrt_export.precision.emulate import GraphSession
from samrt_export.precision.floatgraph import MOVES, FloatGraph, copy_of, key_of

__all__ = ["RangeSession", "Ranges", "cheap_bound", "sum_session"]

_LOW, _HIGH, _SUM = "/range_low", "/range_high", "/range_sum"
_SUMMING = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose"))
_REDUCING = frozenset(("ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool"))


@dataclass
class Ranges:
    """Running figures of one graph.

    Attributes:
        abs_max: tensor -> largest absolute value seen; infinity if NaN or infinity was seen.
        sums: key of a node -> largest sum of absolute products seen, where it was measured.
        runs: how many runs they are from.
    """

    abs_max: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    runs: int = 0


class RangeSession(GraphSession):
    """Runs a float32 graph and keeps `ranges`; answers as the plain graph does.

    Attributes:
        ranges: the figures.
        sample: feeds of the first run.
    """

    def __init__(self, graph: FloatGraph, label: str, *, threads: int | None = None) -> None:
        """Open a graph with a pair of reductions for each of its float32 tensors."""
        self.ranges = Ranges()
        self.sample: dict[str, NDArray[np.generic]] = {}
        builder, self._tensors = _with_extremes(graph)
        watch = {f"{name}{end}": () for name in self._tensors for end in (_LOW, _HIGH)}
        super().__init__(builder, label, threads=threads, watch=watch)

    def _seen(self, feeds: Arrays) -> None:
        self.ranges.runs += 1
        if not self.sample:
            self.sample = {name: np.array(array) for name, array in feeds.items()}
        for name in self._tensors:
            low, high = (float(self.watched[f"{name}{end}"]) for end in (_LOW, _HIGH))
            _raise_to(self.ranges.abs_max, name, max(abs(low), abs(high)))


class _SumSession(GraphSession):
    def __init__(
        self, graph: FloatGraph, keys: Sequence[str], label: str, threads: int | None, to: Ranges
    ) -> None:
        self._keys, self._to = keys, to
        builder = _with_sums(graph, frozenset(keys))
        watch = {f"{key}{_SUM}": () for key in keys}
        super().__init__(builder, label, threads=threads, watch=watch)

    def _seen(self, feeds: Arrays) -> None:
        for key in self._keys:
            _raise_to(self._to.sums, key, float(self.watched[f"{key}{_SUM}"]))


def sum_session(
    graph: FloatGraph, keys: Sequence[str], label: str, to: Ranges, *, threads: int | None = None
) -> GraphSession:
    """A session that measures the sums of absolute products of some nodes into `to.sums`."""
    return _SumSession(graph, keys, label, threads, to)


def _raise_to(table: dict[str, float], name: str, value: float) -> None:
    table[name] = max(table.get(name, 0.0), value if math.isfinite(value) else math.inf)


def _with_extremes(graph: FloatGraph) -> tuple[GraphBuilder, list[str]]:
    builder = graph.builder()
    names = [value.name for value in graph.inputs if graph.is_float(value.name)]
    names += [name for node in graph.nodes for name in node.output if name and graph.is_float(name)]
    wanted = set(names)

    def reductions(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node(kind, [name], [f"{name}{end}"], name=f"{name}{end}", keepdims=0)
            for kind, end in (("ReduceMin", _LOW), ("ReduceMax", _HIGH))
        ]

    nodes = [made for value in graph.inputs if value.name in wanted
             for made in reductions(value.name)]  # fmt: skip
    for node in builder.nodes:
        nodes.append(node)
        for name in node.output:
            if name in wanted:
                nodes += reductions(name)
    builder.nodes = nodes
    return builder, names


def _with_sums(graph: FloatGraph, keys: frozenset[str]) -> GraphBuilder:
    builder = graph.builder()
    nodes: list[onnx.NodeProto] = []
    for node in builder.nodes:
        nodes.append(node)
        key = key_of(node)
        if key not in keys:
            continue
        twin = copy_of(node)
        twin.name = twin.output[0] = f"{key}/of_sizes"
        for k, name in enumerate(node.input):
            if name and graph.is_float(name):
                size = f"{key}/size_{k}"
                nodes.append(helper.make_node("Abs", [name], [size], name=size))
                twin.input[k] = size
        target = f"{key}{_SUM}"
        nodes.append(twin)
        nodes.append(
            helper.make_node("ReduceMax", [twin.output[0]], [target], name=target, keepdims=0)
        )
        if node.op_type in ("ReduceMean", "GlobalAveragePool", "AveragePool"):
            count = _count(graph, node) or 1  # the sum is formed before it is divided
            factor = np.asarray(float(count), np.float32)
            builder.arrays[f"{key}/count"] = factor
            nodes[-1].name = nodes[-1].output[0] = f"{key}/mean_of_sizes"
            nodes.append(helper.make_node("Mul", [f"{key}/mean_of_sizes", f"{key}/count"],
                                          [target], name=target))  # fmt: skip
    builder.nodes = nodes
    return builder


def cheap_bound(graph: FloatGraph, node: onnx.NodeProto, abs_max: Mapping[str, float]) -> float:
    """A bound on every partial sum inside a node, from ranges and weights alone.

    Returns:
        The bound; 0 for nodes that sum nothing; infinity where sizes are not known beforehand.
    """
    if node.op_type in _REDUCING:
        count = _count(graph, node)
        return math.inf if count is None else count * abs_max.get(node.input[0], math.inf)
    if node.op_type not in _SUMMING:
        return 0.0
    first, second = node.input[0], node.input[1]
    if graph.is_activation(first) and graph.is_activation(second):
        if _is_softmax(graph, first):
            return abs_max.get(second, math.inf)
        terms = graph.shapes.get(first, (None,))[-1]
        return math.inf if terms is None else terms * abs_max[first] * abs_max[second]
    weight, moving = (second, first) if second in graph.weights else (first, second)
    extra = 0.0
    if len(node.input) > 2 and node.input[2] in graph.weights:
        extra = float(np.abs(graph.constant(node.input[2])).max(initial=0.0))
    return (
        _heaviest(node, np.abs(graph.constant(weight)), weight == first) * abs_max[moving] + extra
    )


def _heaviest(node: onnx.NodeProto, sizes: NDArray[np.float32], is_left: bool) -> float:
    """The largest sum of absolute weights that make one output."""
    if node.op_type == "Conv":
        axes: tuple[int, ...] = tuple(range(1, sizes.ndim))
    elif node.op_type == "ConvTranspose":
        axes = (0, *range(2, sizes.ndim))
    elif node.op_type == "Gemm":
        turned = any(a.name == ("transA" if is_left else "transB") and a.i for a in node.attribute)
        axes = (0,) if turned == is_left else (1,)
    elif sizes.ndim == 1:
        axes = (0,)
    else:
        axes = (sizes.ndim - 1,) if is_left else (sizes.ndim - 2,)
    return float(sizes.sum(axis=axes, dtype=np.float64).max(initial=0.0))


def _is_softmax(graph: FloatGraph, tensor: str) -> bool:
    """Whether the rows of a tensor are the result of a Softmax: they sum to one."""
    node = graph.producer.get(tensor)
    while node is not None and node.op_type in MOVES - {"Concat", "Pad", "Transpose"}:
        node = graph.producer.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _count(graph: FloatGraph, node: onnx.NodeProto) -> int | None:
    """How many values of the input make one of the output; `None` if that varies."""
    if node.op_type == "AveragePool":
        kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
        return int(math.prod(kernel))
    before = graph.shapes.get(node.input[0], (None,))
    if node.op_type == "GlobalAveragePool":
        reduced: Sequence[int] = range(2, len(before))
    elif len(node.input) > 1 and node.input[1] in graph.weights:
        reduced = [int(a) for a in graph.weights[node.input[1]].reshape(-1)]
    else:
        named = [list(a.ints) for a in node.attribute if a.name == "axes"]
        reduced = named[0] if named else range(len(before))
    sizes = [before[axis] for axis in reduced]
    return None if any(size is None for size in sizes) else math.prod(s for s in sizes if s)
