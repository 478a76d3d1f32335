"""A float32 ONNX file read for conversion: nodes, types, weights on demand, consumers, groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from samrt.errors import BundleError
from samrt.quoting import one_line
from samrt_export.graph import Array, GraphBuilder

__all__ = ["MOVES", "FloatGraph", "Weights", "key_of"]

# Nodes that only move values: what they return is as exact as what they get.
MOVES = frozenset(
    ("Transpose", "Reshape", "Slice", "Concat", "Split", "Pad", "Gather", "Squeeze", "Unsqueeze",
     "Flatten", "Identity", "Expand", "DepthToSpace", "SpaceToDepth", "Tile")
)  # fmt: skip
# Inputs that stay float32 whatever the precision of the node.
FIXED_INPUTS: Mapping[str, frozenset[int]] = {"Resize": frozenset((1, 2))}
_SHELL_FROM_BYTES = 4096
_TOP = "top level"
RESIDUAL = "residual additions"


def key_of(node: onnx.NodeProto) -> str:
    """What a node is called here: the name of its first output, unique in a graph."""
    return str(node.output[0])


class Weights(Mapping[str, Array]):
    """The constants of a graph by name, read when asked for; external ones are mapped from disk.

    A Cast of a constant counts as a constant too (weights stored as float16, say).
    """

    def __init__(self, tensors: Sequence[onnx.TensorProto], folder: Path) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._casts: dict[str, tuple[str, np.dtype[Any]]] = {}
        self._folder = folder

    def add_cast(self, name: str, source: str, to: int) -> None:
        """`name` is the constant `source` in another type."""
        self._casts[name] = (source, helper.tensor_dtype_to_np_dtype(to))

    def __getitem__(self, name: str) -> Array:
        if name in self._casts:
            source, dtype = self._casts[name]
            return self[source].astype(dtype)
        tensor = self._tensors[name]
        if tensor.data_location != TensorProto.EXTERNAL:
            array: Array = numpy_helper.to_array(tensor)
            return array
        facts = {entry.key: entry.value for entry in tensor.external_data}
        path = self._folder / facts["location"]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        mapped = np.memmap(
            path, dtype, "r", offset=int(facts.get("offset", 0)), shape=tuple(tensor.dims)
        )
        return np.asarray(mapped)

    def __iter__(self) -> Iterator[str]:
        yield from self._tensors
        yield from self._casts

    def __len__(self) -> int:
        return len(self._tensors) + len(self._casts)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors or name in self._casts

    def type_of(self, name: str) -> int:
        """ONNX element type, without reading the values."""
        if name in self._casts:
            return int(helper.np_dtype_to_tensor_dtype(self._casts[name][1]))
        return int(self._tensors[name].data_type)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape, without reading the values."""
        while name in self._casts:
            name = self._casts[name][0]
        return tuple(self._tensors[name].dims)


class FloatGraph:
    """A canonical float32 graph, as `samrt_export.graph.GraphBuilder` writes it.

    Attributes:
        name, opset: of the graph.
        nodes: in topological order, without casts of constants.
        inputs, outputs: the graph's own.
        weights: its constants.
        types: tensor -> ONNX element type, of every tensor.
        shapes: tensor -> shape; free sizes are `None`.
        producer: tensor -> the node that makes it.
        consumers: tensor -> the nodes that read it.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Read a file.

        Raises:
            BundleError: not an ONNX file, or not a graph in which all tensors have a known type.
        """
        file = Path(path)
        try:
            model = onnx.load(str(file), load_external_data=False)
            self._types_of(model)
        except Exception as exc:
            reason = one_line(exc, 300)
            raise BundleError(f"cannot read the graph {file.name}: {reason}") from exc
        graph = model.graph
        self.name, self.opset = str(graph.name), int(model.opset_import[0].version)
        self.inputs, self.outputs = list(graph.input), list(graph.output)
        self.weights = Weights(list(graph.initializer), file.parent)
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.op_type == "Cast" and node.input[0] in self.weights:
                self.weights.add_cast(node.output[0], node.input[0], _target(node))
            else:
                self.nodes.append(node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)

    def _types_of(self, model: onnx.ModelProto) -> None:
        """Types and shapes by inference on a copy without its large weights."""
        shells, small = [], []
        for tensor in model.graph.initializer:
            size = int(np.prod(list(tensor.dims), dtype=np.int64)) * 4
            outside = tensor.data_location == TensorProto.EXTERNAL
            if outside or size > _SHELL_FROM_BYTES:
                shells.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                )
            else:
                small.append(tensor)
        g = model.graph
        bare = helper.make_graph(g.node, g.name, [*g.input, *shells], g.output, small)
        light = helper.make_model(
            bare, opset_imports=model.opset_import, ir_version=model.ir_version
        )
        found = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True).graph
        self.types: dict[str, int] = {t.name: int(t.data_type) for t in small}
        self.shapes: dict[str, tuple[int | None, ...]] = {t.name: tuple(t.dims) for t in small}
        for value in [*found.input, *found.output, *found.value_info]:
            kind = value.type.tensor_type
            self.types[value.name] = int(kind.elem_type)
            self.shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim
            )
        unknown = [n for node in g.node for n in node.output if not self.types.get(n)]
        if unknown:
            raise ValueError(f"no type for {', '.join(unknown[:4])}")

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is float32 (and not, say, a shape)."""
        return self.types.get(tensor) == TensorProto.FLOAT

    def is_activation(self, tensor: str) -> bool:
        """Whether a float32 tensor depends on the graph's inputs."""
        return self.is_float(tensor) and tensor not in self.weights

    def float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Inputs whose type follows the node's precision."""
        fixed = FIXED_INPUTS.get(node.op_type, frozenset())
        return [
            name
            for k, name in enumerate(node.input)
            if name and k not in fixed and self.is_float(name)
        ]

    def arithmetic(self) -> list[onnx.NodeProto]:
        """Nodes that have a precision: they read or make float32 values."""
        return [
            node
            for node in self.nodes
            if self.float_inputs(node) or any(self.is_float(name) for name in node.output)
        ]

    def groups(self, most: int = 24) -> dict[str, tuple[str, ...]]:
        """Nodes with a precision in groups, by the scopes in their names, in the graph's order.

        The residual additions are a group of their own: to keep them in float32 costs little, as
        the norms that read them are float32, and helps where a few channels are far larger than
        the others. The rest follows the finest level of scopes that gives at most `most` groups;
        graphs without scopes are cut into `most` runs of equal length.
        """
        residual = self.residual()
        nodes = [node for node in self.arithmetic() if key_of(node) not in residual]
        best: dict[str, list[str]] = {}
        for depth in range(1, 5):
            found: dict[str, list[str]] = {}
            for node in nodes:
                scopes = node.name.split("/")[:-1][:depth]
                found.setdefault("/".join(scopes) or _TOP, []).append(key_of(node))
            if len(found) > most:
                break
            best = found
        if len(best) < 4:
            size = max(1, -(-len(nodes) // most))
            runs = [nodes[k : k + size] for k in range(0, len(nodes), size)]
            best = {f"{run[0].name} .. {run[-1].name}": [key_of(n) for n in run] for run in runs}
        if residual:
            best = {**best, RESIDUAL: residual}
        return {name: tuple(keys) for name, keys in best.items()}

    def residual(self) -> list[str]:
        """Additions whose sum goes to a LayerNormalization, and those that add to such a sum."""
        found: list[str] = []
        for node in self.nodes:
            if node.op_type not in ("Add", "Sub") or not self.float_inputs(node):
                continue
            adds_on = any(name in found for name in self._sources(node))
            if adds_on or "LayerNormalization" in self._readers(node.output[0]):
                found.append(key_of(node))
        return found

    def _readers(self, tensor: str) -> set[str]:
        """Kinds of the nodes that read a tensor, behind nodes that only move values."""
        kinds: set[str] = set()
        for node in self.consumers.get(tensor, []):
            if node.op_type in MOVES:
                kinds |= set().union(*(self._readers(name) for name in node.output))
            else:
                kinds.add(node.op_type)
        return kinds

    def _sources(self, node: onnx.NodeProto) -> list[str]:
        """Keys of the nodes that made what a node reads, before nodes that only moved it."""
        found = []
        for name in node.input:
            maker = self.producer.get(name)
            while maker is not None and maker.op_type in MOVES:
                maker = self.producer.get(maker.input[0])
            if maker is not None:
                found.append(key_of(maker))
        return found

    def builder(self) -> GraphBuilder:
        """The same graph to add nodes to; all weights are read."""
        made = GraphBuilder(self.name, self.opset)
        made.nodes = [copy_of(node) for node in self.nodes]
        made.inputs, made.outputs = list(self.inputs), list(self.outputs)
        used = {name for node in self.nodes for name in node.input if name in self.weights}
        made.arrays = {name: np.ascontiguousarray(self.weights[name]) for name in used}
        return made

    def constant(self, name: str) -> NDArray[np.float32]:
        """A float32 constant."""
        return self.weights[name].astype(np.float32, copy=False)


def copy_of(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node that can be changed."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    return other


def _target(node: onnx.NodeProto) -> int:
    return int(next(a.i for a in node.attribute if a.name == "to"))
