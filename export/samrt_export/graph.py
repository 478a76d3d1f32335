"""A small builder of ONNX graphs: named tensors, shared constants, no shape tensors.

Weights may be stored as float16 with one Cast to float32 each: half the bytes on disk, and
runtimes fold the cast away when they load the file, so that all arithmetic stays float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from samrt_export.weights import WeightStore

Array = npt.NDArray[np.generic]
HALF_FROM_ELEMENTS = 64
SHARE_BELOW_BYTES = 1 << 20
INLINE_BELOW_BYTES = 4096
EXTERNAL_FROM_BYTES = 1 << 30
CUSTOM_DOMAIN, CUSTOM_VERSION = "samrt", 1
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


class GraphBuilder:
    """Collects nodes; every method that makes a tensor returns its name."""

    def __init__(self, name: str, opset: int = 17, *, half_weights: bool = False) -> None:
        self.name, self.opset, self.half_weights = name, opset, half_weights
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, Array] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.values: dict[str, onnx.ValueInfoProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._scope: list[str] = []
        self._count = 0

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes and weights made inside are named `name/...`; scopes nest."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Declare a graph input; strings in `shape` are free sizes."""
        self.inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], list(shape)))
        return name

    def output(self, tensor: str, name: str, shape: Sequence[int | str]) -> None:
        """Give a computed float32 tensor its public name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for k, item in enumerate(names):
                    if item == tensor:
                        names[k] = name
        self.values.pop(tensor, None)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, value: npt.ArrayLike, dtype: str = "float32") -> str:
        """A constant, stored as it is; small equal ones are shared, large ones are not copied."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        if array.nbytes >= SHARE_BELOW_BYTES:
            return self._store(array)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._store(array)
        return self._constants[key]

    def _store(self, array: Array) -> str:
        name = self._fresh("c")
        self.arrays[name] = array
        return name

    def weight(self, value: npt.ArrayLike) -> str:
        """A learned float32 tensor; stored as float16 if the graph stores its weights so."""
        array = np.ascontiguousarray(np.asarray(value, dtype=np.float32))
        if not self.half_weights or array.size < HALF_FROM_ELEMENTS:
            return self.constant(array)
        half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"a weight of {self.name} does not fit float16: max {array.max():g}")
        return self.op("Cast", self.constant(half, "float16"), to=TensorProto.FLOAT)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output."""
        return self.split_op(kind, 1, *inputs, **attributes)[0]

    def split_op(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node with several outputs."""
        names = [self._fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names

    def custom(self, kind: str, shape: Sequence[int | str], *inputs: str, **attributes: Any) -> str:
        """Append an operator of samrt's own domain; its float32 result has this shape.

        Shape inference does not know these operators, so the shape is written down.  Inputs that
        are left out are "".
        """
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        name = self.op(kind, *given, domain=CUSTOM_DOMAIN, **attributes)
        self.values[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        return name

    def shape(self, tensor: str, sizes: Sequence[int]) -> str:
        """Reshape; 0 keeps a size, -1 infers one."""
        return self.op("Reshape", tensor, self.constant(np.asarray(sizes), "int64"))

    def linear(self, tensor: str, weight: Array, bias: Array) -> str:
        """x W^T + b over the last axis; weight (out, in), bias (out)."""
        product = self.op("MatMul", tensor, self.weight(weight.T))
        return self.op("Add", product, self.weight(bias))

    def conv(
        self, tensor: str, weight: Array, bias: Array | None, stride: int = 1,
        pads: Sequence[int] | None = None, group: int = 1,
    ) -> str:  # fmt: skip
        """Convolution; weight (out, in / group, k, k), bias (out); half-kernel padding by default.

        `pads` are top, left, bottom, right.
        """
        k = weight.shape[-1]
        kernel = self.weight(weight)
        extra = [] if bias is None else [self.weight(bias)]
        return self.op(
            "Conv", tensor, kernel, *extra, kernel_shape=[k, k], group=group,
            strides=[stride, stride], pads=[k // 2] * 4 if pads is None else list(pads),
        )  # fmt: skip

    def layer_norm(self, tensor: str, weight: Array, bias: Array, eps: float) -> str:
        """LayerNormalization over the last axis."""
        return self.op(
            "LayerNormalization", tensor, self.weight(weight), self.weight(bias),
            axis=-1, epsilon=eps,
        )  # fmt: skip

    def gelu(self, tensor: str) -> str:
        """Exact GELU, x (1 + erf(x / sqrt 2)) / 2, in the form that runtimes fuse."""
        scaled = self.op("Div", tensor, self.constant(np.sqrt(2.0)))
        gate = self.op("Add", self.op("Erf", scaled), self.constant(1.0))
        return self.op("Mul", self.op("Mul", tensor, gate), self.constant(0.5))

    def double(self, tensor: str) -> str:
        """Bilinear upsampling by two with half-pixel centres, (N, C, h, w)."""
        scales = self.constant([1, 1, 2, 2])
        return self.op(
            "Resize", tensor, "", scales, mode="linear",
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(a.nbytes for a in self.arrays.values())

    def model(self, producer_version: str) -> onnx.ModelProto:
        """The checked model, all weights inside; for graphs below 2 GB."""
        tensors = [numpy_helper.from_array(a, n) for n, a in self.arrays.items()]
        model = self._proto(tensors, producer_version)
        onnx.checker.check_model(model, full_check=True)
        return model

    def write(
        self, path: Path, producer_version: str, store: WeightStore | None = None
    ) -> list[Path]:
        """Write the checked model; from 1 GiB of weights on these go to `NAME.onnx.data`.

        store: where weights go whatever their size, a file that several models share.

        Returns the files written, the model first.  Weights are streamed, not copied.
        """
        if store is not None:
            return self._write_outside(path, producer_version, store)
        if self.nbytes() < EXTERNAL_FROM_BYTES:
            path.write_bytes(self.model(producer_version).SerializeToString(deterministic=True))
            return [path]
        with WeightStore(path.with_name(f"{path.name}.data")) as own:
            return self._write_outside(path, producer_version, own)

    def _write_outside(self, path: Path, producer_version: str, store: WeightStore) -> list[Path]:
        tensors = [
            numpy_helper.from_array(array, name)
            if array.nbytes < INLINE_BELOW_BYTES
            else store.tensor(name, array)
            for name, array in self.arrays.items()
        ]
        store.flush()
        model = self._proto(tensors, producer_version)
        path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path), full_check=True)
        return [path, store.path]

    def opsets(self) -> list[onnx.OperatorSetIdProto]:
        """The operator sets that the graph needs."""
        found = [helper.make_opsetid("", self.opset)]
        if any(node.domain == CUSTOM_DOMAIN for node in self.nodes):
            found.append(helper.make_opsetid(CUSTOM_DOMAIN, CUSTOM_VERSION))
        return found

    def _proto(
        self, initializers: Sequence[onnx.TensorProto], producer_version: str
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, initializers,
            value_info=list(self.values.values()),
        )  # fmt: skip
        return helper.make_model(
            graph,
            opset_imports=self.opsets(),
            producer_name="samrt",
            producer_version=producer_version,
            ir_version=9,
        )

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return "/".join([*self._scope, f"{stem}_{self._count}"])
