"""Float16 arithmetic on a CPU, honestly: every float16 tensor of a graph is rounded to float16.

ONNX Runtime's CPU provider has few float16 kernels.  It runs a float16 graph by computing in
float32 from end to end and drops the casts between the nodes, at every optimisation level: neither
rounding nor overflow of a tensor inside is seen.  Here the converted graph is rewritten: each node
computes in float32 and its result is cast to float16 and back by two Cast nodes that belong to the
graph, which the runtime keeps.

Seen this way: overflow, rounding and underflow of every weight and every tensor between nodes.
Not seen: rounding inside an operator, such as a matrix product that accumulates in float16, which
`ranges` bounds instead; what a compiler makes by fusing nodes, which rounds less, not more; and
faults of kernels.  Only the device shows these.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from samrt._version import __version__
from samrt.backends.base import Arrays, Session, default_threads
from samrt.errors import BackendError
from samrt.manifest import TensorSpec
from samrt.quoting import one_line
from samrt_export.graph import EXTERNAL_FROM_BYTES, GraphBuilder
from samrt_export.precision.floatgraph import MOVES, copy_of
from samrt_export.precision.half import HalfGraph

__all__ = ["GraphSession", "rounded"]

Shape = Sequence[int | None]

# Results that are among the inputs' values, or their negation: nothing to round.
_EXACT = MOVES | frozenset(
    ("Relu", "Neg", "Abs", "Max", "Min", "Where", "ReduceMax", "ReduceMin", "MaxPool")
)
_BITS = "/bits"


def rounded(half: HalfGraph) -> GraphBuilder:
    """The float32 graph that computes what the float16 graph does, operator by operator.

    Inputs and outputs are float32 and keep their names, and so does every tensor inside; float16
    ones hold values of float16.  LayerNormalization with float16 statistics is taken apart.
    """
    source, halves = half.builder, half.half_tensors
    made = GraphBuilder(source.name, source.opset)
    for name, array in source.arrays.items():
        if array.dtype == np.float16:
            made.arrays[f"{name}{_BITS}"] = array
            made.nodes.append(_cast(f"{name}{_BITS}", name, TensorProto.FLOAT))
        else:
            made.arrays[name] = array
    entering: dict[str, str] = {}
    for value in source.inputs:
        copied = onnx.ValueInfoProto()
        copied.CopyFrom(value)
        if value.name in halves:
            copied.type.tensor_type.elem_type = TensorProto.FLOAT
            entering[value.name] = f"{value.name}/rounded"
            made.nodes += _round(value.name, entering[value.name])
        made.inputs.append(copied)
    for node in source.nodes:
        copied = copy_of(node)
        for k, name in enumerate(copied.input):
            copied.input[k] = entering.get(name, name)
        made.nodes += _emulate(copied, halves)
    for value in source.outputs:
        copied = onnx.ValueInfoProto()
        copied.CopyFrom(value)
        if copied.type.tensor_type.elem_type == TensorProto.FLOAT16:
            copied.type.tensor_type.elem_type = TensorProto.FLOAT
        made.outputs.append(copied)
    return made


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to)


def _round(source: str, target: str) -> list[onnx.NodeProto]:
    """To float16 and back."""
    bits = f"{target}{_BITS}"
    return [_cast(source, bits, TensorProto.FLOAT16), _cast(bits, target, TensorProto.FLOAT)]


def _emulate(node: onnx.NodeProto, halves: set[str]) -> list[onnx.NodeProto]:
    if node.op_type == "LayerNormalization" and node.output[0] in halves:
        stash = next((a for a in node.attribute if a.name == "stash_type"), None)
        if stash is not None and stash.i == TensorProto.FLOAT16:
            return _plain_layer_norm(node)
    if node.op_type == "Cast":
        if node.input[0] in halves and node.output[0] not in halves and _is_to_float(node):
            return [helper.make_node("Identity", list(node.input), list(node.output),
                                     name=node.name)]  # fmt: skip
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    nodes, back = [node], []
    if node.op_type not in _EXACT:
        for k, name in enumerate(node.output):
            if name in halves:
                node.output[k] = f"{name}/exact"
                back += _round(node.output[k], name)
    return nodes + back


def _is_to_float(node: onnx.NodeProto) -> bool:
    return any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)


def _plain_layer_norm(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Mean, squares, their mean, root and quotient over the last axis, each rounded."""
    x, weight, *bias = node.input
    out = node.output[0]
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    nodes: list[onnx.NodeProto] = []

    def step(kind: str, stem: str, *inputs: str, **attributes: Any) -> str:
        target = out if stem == "out" else f"{out}/{stem}"
        exact = f"{target}/exact"
        nodes.append(helper.make_node(kind, list(inputs), [exact], name=exact, **attributes))
        nodes.extend(_round(exact, target))
        return target

    small = helper.make_tensor(f"{out}/epsilon/value", TensorProto.FLOAT, [], [epsilon])
    nodes.append(helper.make_node("Constant", [], [f"{out}/epsilon/exact"], value=small))
    nodes.extend(_round(f"{out}/epsilon/exact", f"{out}/epsilon"))
    mean = step("ReduceMean", "mean", x, axes=[-1], keepdims=1)
    centred = step("Sub", "centred", x, mean)
    squares = step("Mul", "squares", centred, centred)
    variance = step("ReduceMean", "variance", squares, axes=[-1], keepdims=1)
    root = step("Sqrt", "root", step("Add", "shifted", variance, f"{out}/epsilon"))
    quotient = step("Div", "quotient", centred, root)
    scaled = step("Mul", "scaled" if bias else "out", quotient, weight)
    if bias:
        step("Add", "out", scaled, bias[0])
    return nodes


class GraphSession(Session):
    """A graph of a builder, run as it is: no optimisation, nodes in their order.

    Attributes:
        watched: the values of `watch`, from the last run.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        label: str,
        *,
        threads: int | None = None,
        watch: Mapping[str, Shape] | None = None,
    ) -> None:
        """Open a graph whose inputs and outputs are float32.

        Args:
            builder: the graph.
            label: its name in messages.
            threads: threads of the runtime.
            watch: float32 tensors inside that every run leaves in `watched`, with their shapes
                (`None` for a free size).

        Raises:
            BackendError: the runtime does not accept the graph.
        """
        outputs = list(builder.outputs)
        known = {value.name for value in outputs}
        self._extra = [name for name in watch or {} if name not in known]
        builder.outputs = outputs + [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (watch or {})[name])
            for name in self._extra
        ]
        try:
            self._session: ort.InferenceSession | None = _open(builder, label, threads)
        finally:
            builder.outputs = outputs
        super().__init__(label, _specs(builder.inputs), _specs(outputs))
        self.watched: dict[str, NDArray[Any]] = {}

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise BackendError(f"model {self.name} is closed: load it again")
        names = [spec.name for spec in self.outputs] + self._extra
        try:
            results = self._session.run(names, dict(feeds))
        except Exception as exc:
            reason = one_line(exc, 300)
            raise BackendError(f"model {self.name} failed while running: {reason}") from exc
        found = {name: np.asarray(array) for name, array in zip(names, results, strict=True)}
        self.watched = {name: found.pop(name) for name in self._extra}
        self._seen(feeds)
        return found

    def _seen(self, feeds: Arrays) -> None:
        """Called after each run, with `watched` filled."""

    def close(self) -> None:
        """Free the graph; closing twice is fine."""
        super().close()
        self._session = None
        self.watched = {}


def _open(builder: GraphBuilder, label: str, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory(prefix="samrt-") as folder:
        source: bytes | str
        try:
            if builder.nbytes() < EXTERNAL_FROM_BYTES:
                source = builder.model(__version__).SerializeToString()
            else:
                source = str(builder.write(Path(folder) / "graph.onnx", __version__)[0])
            return ort.InferenceSession(
                source, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            reason = one_line(exc, 300)
            raise BackendError(f"ONNX Runtime cannot open graph {label}: {reason}") from exc


def _specs(values: Sequence[onnx.ValueInfoProto]) -> list[TensorSpec]:
    def shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
        dims = value.type.tensor_type.shape.dim
        return tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or f"free{axis}_{value.name}"
            for axis, d in enumerate(dims)
        )

    kinds: Mapping[int, str] = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}
    return [TensorSpec(v.name, kinds[v.type.tensor_type.elem_type], shape(v)) for v in values]
