"""One node of samrt's operators in ONNX Runtime, for tests of what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

import samrt

F32 = NDArray[np.float32]
LIBRARY = next(Path(samrt.__file__).parent.glob("_ops*.so"))


def noise(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> F32:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def run(
    op: str,
    inputs: list[F32 | None],
    threads: int = 2,
    feed: int = 1,
    result: int = 0,
    **attributes: Any,
) -> F32:
    """One node; the first inputs are fed, the others are constants."""
    names = ["" if value is None else f"i{k}" for k, value in enumerate(inputs)]
    fed = {f"i{k}": value for k, value in enumerate(inputs[:feed]) if value is not None}
    several = {"ImagePass": 2, "DrawPrompts": 2, "FineMasks": 3, "FineEncoder": 4}
    outputs = ["y", "z", "w", "v"][: several.get(op, 1)]
    node = helper.make_node(op, names, outputs, domain="samrt", **attributes)
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(k, floats, value.shape) for k, value in fed.items()],
        [helper.make_tensor_value_info(k, floats, None) for k in outputs],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in zip(names[feed:], inputs[feed:], strict=True)
            if value is not None
        ],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("samrt", 1)]
    )
    model.ir_version = 9
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(LIBRARY))
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    out: F32 = session.run(None, fed)[result]
    return out


def close(got: F32, expected: Any, tolerance: float = 2e-6) -> None:
    scale = float(np.abs(expected).max())
    assert got.shape == expected.shape
    assert float(np.abs(got - expected).max()) <= tolerance * scale
