"""A small builder of ONNX graphs: named tensors, shared constants, no shape tensors.

Weights may be stored as float16 with one Cast to float32 each: half the bytes on disk, and
runtimes fold the cast away when they load the file, so that all arithmetic stays float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]
HALF_FROM_ELEMENTS = 64
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


class GraphBuilder:
    """Collects nodes; every method that makes a tensor returns its name."""

    def __init__(self, name: str, opset: int = 17, *, half_weights: bool = False) -> None:
        self.name, self.opset, self.half_weights = name, opset, half_weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

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
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, value: npt.ArrayLike, dtype: str = "float32") -> str:
        """A constant, stored as it is; equal ones are shared."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("c")
            self.initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

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

    def shape(self, tensor: str, sizes: Sequence[int]) -> str:
        """Reshape; 0 keeps a size, -1 infers one."""
        return self.op("Reshape", tensor, self.constant(np.asarray(sizes), "int64"))

    def linear(self, tensor: str, weight: Array, bias: Array) -> str:
        """x W^T + b over the last axis; weight (out, in), bias (out)."""
        product = self.op("MatMul", tensor, self.weight(weight.T))
        return self.op("Add", product, self.weight(bias))

    def conv(self, tensor: str, weight: Array, bias: Array, stride: int = 1) -> str:
        """Convolution with half-kernel padding; weight (out, in, k, k), bias (out)."""
        k = weight.shape[-1]
        return self.op(
            "Conv", tensor, self.weight(weight), self.weight(bias),
            kernel_shape=[k, k], strides=[stride, stride], pads=[k // 2] * 4,
        )  # fmt: skip

    def double(self, tensor: str) -> str:
        """Bilinear upsampling by two with half-pixel centres, (N, C, h, w)."""
        scales = self.constant([1, 1, 2, 2])
        return self.op(
            "Resize", tensor, "", scales, mode="linear",
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def model(self, producer_version: str) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, self.initializers
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            producer_name="samrt",
            producer_version=producer_version,
            ir_version=9,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
