"""Conversion: one type per tensor, casts at the border of islands, weights, inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from samrt_export import graph as graph_module
from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph, PrecisionError, key_of, settle, to_half
from samrt_export.precision.half import as_half, statistics_of

from .graphs import F32, emulated, half, stored

RNG = np.random.default_rng(5)


def network(folder: Path, *, half_weights: bool = False) -> tuple[FloatGraph, dict[str, F32]]:
    """Product, norm, softmax between transpositions, upsampling, a comparison."""
    g = GraphBuilder("net", half_weights=half_weights)
    x = g.input("x", [1, 8, 4, 4])
    coords = g.input("point_coords", [1, 2, 2])
    weights = {"w": RNG.standard_normal((8, 8)).astype(np.float32)}
    tokens = g.op("Transpose", g.shape(x, [1, 8, 16]), perm=[0, 2, 1])
    with g.scope("block"):
        hidden = g.gelu(g.linear(tokens, weights["w"], np.arange(8, dtype=np.float32) / 7))
        hidden = g.layer_norm(hidden, np.ones(8), np.zeros(8), 1e-6)
    scores = g.op("Softmax", g.op("MatMul", hidden, g.op("Transpose", hidden, perm=[0, 2, 1])))
    mixed = g.op("Transpose", g.op("MatMul", scores, hidden), perm=[0, 2, 1])
    image = g.double(g.shape(mixed, [1, 8, 4, 4]))
    near = g.op("Cast", g.op("Greater", coords, g.constant(3.0)), to=TensorProto.FLOAT)
    shift = g.op("ReduceSum", near, g.constant([1, 2], "int64"), keepdims=1)
    moved = g.op("Add", image, g.op("Unsqueeze", shift, g.constant([3], "int64")))
    return stored(g, folder, {moved: (1, 8, 8, 8), near: (1, 2, 2)}), weights


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*found.value_info, *found.output,
                                                            *found.input]}  # fmt: skip
    return {**types, **{t.name: t.data_type for t in found.initializer}}


@pytest.mark.parametrize("half_io", [False, True])
@pytest.mark.parametrize("half_weights", [False, True])
def test_no_node_mixes_types(tmp_path: Path, half_io: bool, half_weights: bool) -> None:
    graph, _ = network(tmp_path, half_weights=half_weights)
    made = to_half(graph, settle(graph, statistics_of(graph)), half_io=half_io)
    model = made.builder.model("test")  # checked in full, with strict inference of shapes
    types = types_of(model)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for node in model.graph.node:
        names = node.input[:1] if node.op_type in ("Resize", "Cast") else node.input
        seen = {types[n] for n in (*names, *node.output) if n and types[n] in floats}
        assert node.op_type == "Cast" or len(seen) <= 1, (node.name, seen)
        if node.op_type in ("LayerNormalization", "Softmax"):
            assert seen == {TensorProto.FLOAT}
        if node.op_type == "MatMul":
            assert seen == {TensorProto.FLOAT16}
    want = TensorProto.FLOAT16 if half_io else TensorProto.FLOAT
    assert {types[v.name] for v in model.graph.output} == {want}
    assert types["x"] == want
    assert types["point_coords"] == TensorProto.FLOAT
    assert {v.name for v in model.graph.output} == {"y0", "y1"}
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert made.half_nodes + made.float_nodes == len(graph.arithmetic())


def test_the_answer_is_that_of_float32_but_for_rounding(tmp_path: Path) -> None:
    graph, _ = network(tmp_path)
    feeds = {
        "x": RNG.standard_normal((1, 8, 4, 4)).astype(np.float32),
        "point_coords": np.array([[[2.9, 3.1], [7, 0]]], np.float32),
    }
    exact = ort.InferenceSession(tmp_path / "g.onnx").run(None, feeds)
    found = emulated(to_half(graph, statistics_of(graph)), feeds)
    assert 0 < np.abs(found["y0"] - exact[0]).max() < 0.02
    assert np.array_equal(found["y1"], exact[1])


def test_casts_are_shared_and_moves_join_their_island(tmp_path: Path) -> None:
    g = GraphBuilder("moves")
    x = g.input("x", [1, 8, 4])
    y = g.op("Relu", x)
    first = g.op("Softmax", y)
    turned = g.op("Reshape", g.op("Transpose", first, perm=[0, 2, 1]), g.constant([1, 32], "int64"))
    last = g.op("Softmax", turned)
    side = g.op("Softmax", y, axis=1)
    graph = stored(g, tmp_path, {last: (1, 32), side: (1, 8, 4)})
    made = to_half(graph, settle(graph, statistics_of(graph)))
    assert made.casts == 2  # x to half; Relu to float once, for both of its readers
    assert made.half_nodes == 1


def test_weights_are_rounded_subnormals_kept_and_overflow_refused() -> None:
    small = np.array([2.0**-24, 2.0**-25 * 1.5, 6e-8, 1.0 + 2**-12], np.float32)
    assert as_half(small, "w").astype(np.float32).tolist() == [2.0**-24, 2.0**-24, 2.0**-24, 1.0]
    assert np.isinf(as_half(np.array([np.inf], np.float32), "w")).all()
    assert as_half(np.array([65519.0], np.float32), "w")[0] == 65504
    with pytest.raises(PrecisionError, match=r"70000.*keep its node in float32"):
        as_half(np.array([1.0, -70000.0], np.float32), "w")


def test_weights_of_islands_stay_exact_and_are_stored_small_if_they_can(tmp_path: Path) -> None:
    g = GraphBuilder("weights")
    x = g.input("x", [1, 16])
    whole = np.arange(256, dtype=np.float32).reshape(16, 16)
    y = g.op("MatMul", g.op("MatMul", x, g.weight(whole)), g.weight(whole / 3))
    graph = stored(g, tmp_path, {y: (1, 16)})
    made = to_half(graph, {key_of(node) for node in graph.nodes})
    stored_as = sorted(str(array.dtype) for array in made.builder.arrays.values())
    assert stored_as == ["float16", "float32"]
    feeds = {"x": RNG.standard_normal((1, 16)).astype(np.float32)}
    exact = ort.InferenceSession(tmp_path / "g.onnx").run(None, feeds)[0]
    assert np.allclose(emulated(made, feeds)["y0"], exact, rtol=1e-6)


def test_external_weights_are_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "EXTERNAL_FROM_BYTES", 1 << 14)
    g = GraphBuilder("large")
    x = g.input("x", [1, 128])
    w = RNG.standard_normal((128, 128)).astype(np.float32)
    graph = stored(g, tmp_path, {g.op("MatMul", x, g.weight(w)): (1, 128)})
    assert (tmp_path / "g.onnx.data").stat().st_size == w.nbytes
    made = to_half(graph, set())
    model, data = made.builder.write(tmp_path / "half.onnx", "test")
    assert data.stat().st_size == w.nbytes // 2
    again = onnx.load(model)
    onnx.checker.check_model(str(model), full_check=True)
    array = onnx.numpy_helper.to_array(again.graph.initializer[0])
    assert np.array_equal(array, w.astype(np.float16))


def test_every_half_tensor_is_rounded(tmp_path: Path) -> None:
    """Between any two nodes there are values of float16, as numpy's own float16 has them."""
    graph, weights = network(tmp_path)
    made = to_half(graph, statistics_of(graph))
    from samrt_export.precision import GraphSession, rounded

    names = {n for node in made.builder.nodes for n in node.output if n in made.half_tensors}
    watch = {n: graph.shapes[n] for n in names if n in graph.shapes}
    assert len(watch) >= 10
    session = GraphSession(rounded(made), "test", watch=watch)
    x = RNG.standard_normal((1, 8, 4, 4)).astype(np.float32)
    session.run({"x": x, "point_coords": np.zeros((1, 2, 2), np.float32)})
    for name, array in session.watched.items():
        assert np.array_equal(array, half(array)), name
    tokens = half(x).reshape(1, 8, 16).transpose(0, 2, 1)
    product = next(n.output[0] for n in graph.nodes if n.op_type == "MatMul")
    want = half(tokens.astype(np.float64) @ half(weights["w"]).T.astype(np.float64))
    gap = np.abs(session.watched[product] - want)
    assert gap.max() <= 2.0**-9  # sums of float32 may round the other way at a tie
    assert (gap == 0).mean() > 0.95


def test_overflow_between_nodes_is_seen(tmp_path: Path) -> None:
    g = GraphBuilder("square")
    x = g.input("x", [1, 2])
    y = g.op("Sqrt", g.op("Mul", x, x))
    graph = stored(g, tmp_path, {y: (1, 2)})
    feeds = {"x": np.array([[255.0, 256.0]], np.float32)}
    assert emulated(to_half(graph, set()), feeds)["y0"].tolist() == [[255.0, np.inf]]
    square = {key_of(node) for node in graph.nodes}
    assert emulated(to_half(graph, square), feeds)["y0"].tolist() == [[255.0, 256.0]]


def test_half_statistics_are_taken_apart(tmp_path: Path) -> None:
    """With float16 statistics 1.4e3 squared is infinite, and the norm returns its bias."""
    g = GraphBuilder("norm")
    x = g.input("x", [1, 4])
    bias = np.array([0.5, 0.25, -1.0, 2.0], np.float32)
    graph = stored(g, tmp_path, {g.layer_norm(x, np.ones(4), bias, 1e-6): (1, 4)})
    feeds = {"x": np.array([[1400.0, 1.0, 2.0, 3.0]], np.float32)}
    exact = ort.InferenceSession(tmp_path / "g.onnx").run(None, feeds)[0]
    naive = emulated(to_half(graph, set(), half_statistics=True), feeds)["y0"]
    ours = emulated(to_half(graph, statistics_of(graph)), feeds)["y0"]
    assert np.array_equal(naive[0], bias)
    assert np.abs(ours - exact).max() < 2e-3


@pytest.mark.parametrize("half_io", [False, True])
def test_tensorrt_rtx_takes_it_strongly_typed(tmp_path: Path, half_io: bool) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    graph, _ = network(tmp_path)
    made = to_half(graph, settle(graph, statistics_of(graph)), half_io=half_io)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    strong = builder.create_network(flags)
    parser = trt.OnnxParser(strong, trt.Logger(trt.Logger.ERROR))
    path = made.builder.write(tmp_path / "half.onnx", "test")[0]
    assert parser.parse_from_file(str(path)), [
        parser.get_error(k).desc() for k in range(parser.num_errors)
    ]
    kinds = {strong.get_output(k).dtype for k in range(strong.num_outputs)}
    assert kinds == {trt.DataType.HALF if half_io else trt.DataType.FLOAT}
    assert builder.build_serialized_network(strong, builder.create_builder_config()) is not None
