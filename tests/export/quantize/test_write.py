"""The int8 graphs: what is in them, what they compute, and that integer kernels run them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from samrt_export.precision import FloatGraph, GraphSession
from samrt_export.quantize import find_layers, to_int8, to_int8_weights
from samrt_export.quantize.choose import Choice, choose
from samrt_export.quantize.write import _output_axis

from .conftest import F32, normal, ranges


def chosen(graph: FloatGraph) -> list[Choice]:
    layers, _ = find_layers(graph)
    runs: list[dict[str, F32]] = [{"image": normal(k, 1, 3, 32, 32)} for k in range(4)]
    statistics = ranges(graph, layers, runs)
    found, tied = [], dict[str, float]()
    for layer in layers:
        choice = choose(graph, layer, statistics, tied=tied.get(layer.source))
        if choice.output_clip is not None:
            tied[layer.result] = choice.output_clip
        found.append(choice)
    return found


def output(builder: Any, image: F32) -> F32:
    session = GraphSession(builder, "test")
    found: F32 = session.run({"image": image})["y0"]
    return found


def relative(wanted: F32, found: F32) -> float:
    return float(np.sqrt(np.mean((wanted - found) ** 2)) / wanted.std())


def test_it_computes_nearly_the_same(mixed: FloatGraph) -> None:
    image = normal(9, 1, 3, 32, 32)
    wanted = output(mixed.builder(), image)
    assert 1e-4 < relative(wanted, output(to_int8(mixed, chosen(mixed)), image)) < 0.03
    assert relative(wanted, output(to_int8(mixed, []), image)) < 1e-6
    assert 1e-4 < relative(wanted, output(to_int8_weights(mixed), image)) < 0.02


def test_migration_alone_changes_nothing(mixed: FloatGraph) -> None:
    """Norm divided, weight multiplied: without rounding they cancel."""
    (choice,) = [c for c in chosen(mixed) if c.layer.norm]
    factors = np.exp2(np.random.default_rng(2).integers(-1, 2, 32)).astype(np.float32)
    from dataclasses import replace

    none = np.zeros_like(choice.correction)
    fine = replace(choice, smooth=factors, alpha=0.5, correction=none)
    builder = to_int8(mixed, [fine])
    for node in builder.nodes:  # the pair at the input is left out
        if node.input[:1] == [f"{choice.layer.key}/in/dequantised"]:
            node.input[0] = f"{choice.layer.source}/migrated"
    builder.nodes = [n for n in builder.nodes if not n.name.startswith(f"{choice.layer.key}/in")]
    image = normal(9, 1, 3, 32, 32)
    assert relative(output(mixed.builder(), image), output(builder, image)) < 0.015


def test_the_form_that_tensorrt_takes(mixed: FloatGraph, tmp_path: Path) -> None:
    choices = chosen(mixed)
    file = to_int8(mixed, choices).write(tmp_path / "q.onnx", "test")[0]
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = arrays[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert arrays[node.input[1]].dtype == np.float32
    assert not any(a.dtype in (np.int32, np.uint8) for a in arrays.values())
    quantised = [n for n in pairs if n.op_type == "QuantizeLinear"]
    assert len(quantised) == len(choices) + sum(c.output_clip is not None for c in choices)
    by_tensor = Counter(n.input[0] for n in quantised)
    scales = {(n.input[0], float(arrays[n.input[1]])) for n in quantised}
    assert len(scales) == sum(by_tensor.values())


def test_equal_scales_of_one_tensor_are_told_apart(mixed: FloatGraph) -> None:
    first, *_ = chosen(mixed)
    from samrt_export.quantize.write import _Writer

    writer = _Writer(mixed, {})
    writer._pair(first.layer.source, 1.0, "a")
    writer._pair(first.layer.source, 1.0, "b")
    a, b = (float(writer.arrays[f"{name}/scale"]) for name in ("a", "b"))
    assert a != b
    assert a == pytest.approx(b, rel=1e-6)


def test_onnx_runtime_runs_integer_kernels(mixed: FloatGraph, tmp_path: Path) -> None:
    """Without them int8 is slower than float32, and nothing would say so."""
    file = to_int8(mixed, chosen(mixed)).write(tmp_path / "q.onnx", "test")[0]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == 2
    assert kinds["QLinearConv"] == 2
    assert kinds["Gelu"] == 1
    image = normal(9, 1, 3, 32, 32)
    found = session.run(None, {"image": image})[0]
    assert relative(output(mixed.builder(), image), found) < 0.03


def test_int8_weights_are_small(mixed: FloatGraph, tmp_path: Path) -> None:
    before = mixed.builder().nbytes()
    after = to_int8_weights(mixed).nbytes()
    assert after < 0.4 * before
    kinds = Counter(n.op_type for n in to_int8_weights(mixed).nodes)
    assert kinds["DequantizeLinear"] == 4
    assert kinds["QuantizeLinear"] == 0


@pytest.mark.parametrize(
    ("kind", "position", "attributes", "axis"),
    [
        ("MatMul", 1, {}, 1), ("MatMul", 0, {}, 0), ("Gemm", 1, {"transB": 1}, 0),
        ("Gemm", 0, {}, 0), ("Gemm", 0, {"transA": 1}, 1), ("Add", 1, {}, None),
    ],
)  # fmt: skip
def test_the_axis_of_the_outputs(
    mixed: FloatGraph, kind: str, position: int, attributes: dict[str, int], axis: int | None
) -> None:
    weight = next(n for n in mixed.weights if mixed.weights.shape_of(n) == (64, 32))
    inputs = ["x", weight] if position else [weight, "x"]
    node = onnx.helper.make_node(kind, inputs, ["y"], **attributes)
    assert _output_axis(mixed, node, position) == axis
    assert _output_axis(mixed, node, 1 - position) is None
