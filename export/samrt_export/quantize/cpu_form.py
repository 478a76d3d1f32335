"""The CPU form of an encoder (operators of the domain ``samrt``) with int8 weights.

Weights are symmetric int8 with one scale per column, as in `samrt_export.quantize.write`.  Rows of
activations become integers inside the operators, each with a scale of its own (the largest
magnitude over 127), so nothing has to be calibrated; attention, norms, convolutions of the stem
and the neck stay float32.  See ``cpp_ext/ops``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from samrt_export.quantize.arithmetic import quantise_weight

__all__ = ["DOMAIN", "integer_nodes", "to_int8_operators"]

DOMAIN = "samrt"
_WEIGHTS = {"Linear": (1,), "Mlp": (3, 5), "MbConv": (1, 5)}
_INPUTS = {"Linear": 6, "Mlp": 7, "MbConv": 7}
_SMALLEST = 1024
"""Elements of a matrix below which integers save nothing."""


def integer_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that `to_int8_operators` would change, in the graph's order."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.domain == DOMAIN
        and all(
            np.prod(shapes.get(node.input[at], (0,))) >= _SMALLEST
            for at in _WEIGHTS.get(node.op_type, (0,))
        )
        and node.op_type in _WEIGHTS
    ]


def to_int8_operators(
    source: str | Path, keep_float: Collection[str] = ()
) -> tuple[onnx.ModelProto, list[str]]:
    """Read a CPU form in float32 and give its linear layers int8 weights.

    Args:
        source: the ``.onnx`` file; its data files beside it.
        keep_float: names of nodes that stay float32.

    Returns:
        The model, all weights inside, and the names of the nodes that were changed.
    """
    model = onnx.load(str(source))
    chosen = [name for name in integer_nodes(model) if name not in keep_float]
    values = {item.name: item for item in model.graph.initializer}
    made: dict[str, tuple[str, str]] = {}
    for node in model.graph.node:
        if node.name not in set(chosen):
            continue
        inputs = [*node.input, *[""] * (_INPUTS[node.op_type] - len(node.input))]
        scales = []
        for at in _WEIGHTS[node.op_type]:
            name = inputs[at]
            if name not in made:
                made[name] = _integers(model, values[name])
            inputs[at], scale = made[name]
            scales.append(scale)
        node.op_type += "Int8"
        del node.input[:]
        node.input.extend([*inputs, *scales])
    _drop_unused(model)
    return model, chosen


def _integers(model: onnx.ModelProto, weight: onnx.TensorProto) -> tuple[str, str]:
    """Adds the int8 matrix and its scales; their names."""
    whole, scale = quantise_weight(numpy_helper.to_array(weight), axis=1)
    names = f"{weight.name}.int8", f"{weight.name}.scale"
    model.graph.initializer.append(numpy_helper.from_array(whole, names[0]))
    model.graph.initializer.append(numpy_helper.from_array(scale, names[1]))
    return names


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
