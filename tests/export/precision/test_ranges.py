"""Ranges of tensors, bounds of sums, and the islands that follow from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph, RangeSession, measured_islands
from samrt_export.precision.islands import Island, rounding_error
from samrt_export.precision.ranges import Ranges, cheap_bound, sum_session

from .graphs import stored

RNG = np.random.default_rng(11)


def measured(graph: FloatGraph, *inputs: dict[str, np.ndarray]) -> RangeSession:
    session = RangeSession(graph, "test")
    for feeds in inputs:
        session.run(feeds)
    return session


def kinds(islands: list[Island]) -> set[str]:
    return {island.kind for island in islands}


def test_the_largest_value_of_every_tensor_over_all_runs(tmp_path: Path) -> None:
    g = GraphBuilder("ranges")
    x = g.input("x", ["N", 3])
    doubled = g.op("Mul", x, g.constant(2.0))
    parts = g.split_op("Split", 3, doubled, axis=1)
    graph = stored(g, tmp_path, {g.op("Concat", *parts, axis=0): ("M", 1)})
    first = np.array([[1.0, -5.0, 0.5]], np.float32)
    second = np.array([[2.0, 1.0, 0.25], [0, 0, 0]], np.float32)
    session = measured(graph, {"x": first}, {"x": second})
    seen = session.ranges.abs_max
    assert (seen["x"], seen[doubled]) == (5.0, 10.0)
    assert [seen[part] for part in parts] == [4.0, 10.0, 1.0]
    assert session.ranges.runs == 2
    assert np.array_equal(session.sample["x"], first)


def layer(kind: str, g: GraphBuilder, x: str) -> str:
    if kind == "MatMul":
        return g.op("MatMul", x, g.weight(RNG.standard_normal((6, 5))))
    if kind == "left":
        return g.op("MatMul", g.weight(RNG.standard_normal((5, 4))), x)
    if kind == "Gemm":
        flat = g.op("Reshape", x, g.constant([4, 6], "int64"))
        return g.op("Gemm", flat, g.weight(RNG.standard_normal((5, 6))), transB=1)
    image = g.op("Reshape", x, g.constant([1, 2, 3, 4], "int64"))
    if kind == "Conv":
        return g.conv(image, RNG.standard_normal((3, 2, 3, 3)), None)
    if kind == "ConvTranspose":
        weight = g.weight(RNG.standard_normal((2, 3, 2, 2)))
        return g.op("ConvTranspose", image, weight, kernel_shape=[2, 2], strides=[2, 2])
    if kind == "ReduceMean":
        return g.op("ReduceMean", image, axes=[2, 3], keepdims=0)
    return g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]))


@pytest.mark.parametrize(
    "kind",
    ["MatMul", "left", "Gemm", "Conv", "ConvTranspose", "ReduceMean", "attention"],
)
def test_sums_are_bounded_from_above(tmp_path: Path, kind: str) -> None:
    """|y| <= measured sum of sizes <= cheap bound."""
    g = GraphBuilder("sums")
    y = layer(kind, g, g.input("x", [1, 4, 6]))
    node = g.nodes[-1]
    rank = 4 if "Conv" in kind else 2 if kind in ("Gemm", "ReduceMean") else 3
    g.output(y, "y0", [f"size{axis}" for axis in range(rank)])
    graph = FloatGraph(g.write(tmp_path / "g.onnx", "test")[0])
    node = next(n for n in graph.nodes if n.output[0] == "y0")
    feeds = {"x": RNG.standard_normal((1, 4, 6)).astype(np.float32)}
    ranges = measured(graph, feeds).ranges
    session = sum_session(graph, ["y0"], "test", ranges)
    session.run(feeds)
    count = 12 if kind == "ReduceMean" else 1
    assert ranges.abs_max["y0"] * count <= ranges.sums["y0"] * 1.00001
    assert ranges.sums["y0"] <= cheap_bound(graph, node, ranges.abs_max) * 1.00001
    if kind == "MatMul":
        weight = np.abs(graph.constant(node.input[1]))
        assert ranges.sums["y0"] == pytest.approx((np.abs(feeds["x"]) @ weight).max(), rel=1e-5)


def test_a_sum_that_cancels_is_an_island(tmp_path: Path) -> None:
    g = GraphBuilder("cancels")
    x = g.input("x", [1, 64])
    weight = np.where(np.arange(64)[:, None] % 2, -40.0, 40.0).astype(np.float32)
    graph = stored(g, tmp_path, {g.op("MatMul", x, g.weight(weight)): (1, 1)})
    feeds = {"x": np.full((1, 64), 30.0, np.float32)}
    ranges = measured(graph, feeds).ranges
    assert not measured_islands(graph, ranges)
    assert cheap_bound(graph, graph.nodes[0], ranges.abs_max) == 64 * 40 * 30
    sum_session(graph, ["y0"], "test", ranges).run(feeds)
    (island,) = measured_islands(graph, ranges)
    assert (island.kind, island.figure, island.keys) == ("accumulation", 76800.0, ("y0",))
    assert "76800" in island.reason.replace("7.68e+04", "76800")


def test_islands_by_range(tmp_path: Path) -> None:
    g = GraphBuilder("kinds")
    x = g.input("x", [1, 8])
    with g.scope("large"):
        large = g.op("Mul", x, g.constant(20000.0))
        back = g.op("Mul", large, g.constant(1e-4))
    with g.scope("small"):
        small = g.op("Mul", x, g.constant(1e-6))
    with g.scope("plain"):
        plain = g.op("Relu", x)
    graph = stored(g, tmp_path, {back: (1, 8), small: (1, 8), plain: (1, 8)})
    ranges = measured(graph, {"x": np.linspace(-1, 1, 8, dtype=np.float32)[None]}).ranges
    found = {island.kind: island for island in measured_islands(graph, ranges)}
    assert found["overflow"].scope == "large"
    assert len(found["overflow"].keys) == 2  # what makes the large tensor, and what reads it
    assert found["overflow"].figure == 20000.0
    assert found["underflow"].scope == "small"
    assert set(found) == {"overflow", "underflow"}
    ones = Ranges(dict.fromkeys(graph.types, 1.0))
    assert kinds(measured_islands(graph, ones)) == {"weights"}  # 1e-6 is a subnormal
    assert kinds(measured_islands(graph, ranges, margin=1.0)) == {"underflow"}


def test_coordinates_stay_exact_until_they_are_fractions(tmp_path: Path) -> None:
    g = GraphBuilder("points")
    coords = g.input("point_coords", [1, 4, 2])
    pixels = g.op("Add", coords, g.constant(0.5))
    angle = g.op("MatMul", pixels, g.constant(np.full((2, 3), 0.01)))
    sine = g.op("Sin", angle)
    graph = stored(g, tmp_path, {g.op("Relu", sine): (1, 4, 3)})
    points = np.full((1, 4, 2), 900.0, np.float32)
    far = measured_islands(graph, measured(graph, {"point_coords": points}).ranges)
    found = {island.kind: island.keys for island in far}
    assert found == {"coordinates": (pixels, angle), "angle": (sine,)}
    near = measured(graph, {"point_coords": points / 900}).ranges
    assert not measured_islands(graph, near)


def test_weights_that_float16_spoils(tmp_path: Path) -> None:
    g = GraphBuilder("weights")
    x = g.input("x", [1, 2])
    tiny = g.op("Mul", x, g.constant(np.array([3e-8, 5e-8])))
    big = g.op("Where", g.op("Greater", x, g.constant(0.0)), x, g.constant(-1e9))
    graph = stored(g, tmp_path, {tiny: (1, 2), big: (1, 2)})
    ranges = Ranges(dict.fromkeys(graph.types, 1.0))
    found = measured_islands(graph, ranges)
    assert kinds(found) == {"weights"}
    assert {key for island in found for key in island.keys} == {"y0", "y1"}
    assert rounding_error(np.ones(3, np.float32)) == (0.0, True)
    error, fits = rounding_error(RNG.standard_normal(4096).astype(np.float32))
    assert fits
    assert 1e-4 < error < 5e-4


def test_groups_follow_scopes_or_are_runs(tmp_path: Path) -> None:
    g = GraphBuilder("groups")
    x = g.input("x", [1, 4])
    for block in range(6):
        with g.scope(f"blocks.{block}"):
            y = g.op("Relu", x)
            x = g.op("Add", x, y)
            with g.scope("norm"):
                x = g.layer_norm(x, np.ones(4), np.zeros(4), 1e-6)
    graph = stored(g, tmp_path, {x: (1, 4)})
    groups = graph.groups(most=8)
    assert list(groups) == [f"blocks.{block}" for block in range(6)] + ["residual additions"]
    assert len(groups["residual additions"]) == 6
    assert len(graph.groups(most=24)) == 13
    every = [key for keys in groups.values() for key in keys]
    assert len(every) == len(set(every)) == len(graph.arithmetic())
    runs = graph.groups(most=5)
    assert len(runs) == 5
    assert ".." in next(iter(runs))
