"""The node where the error explodes is found among all nodes of a graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from samrt.bundle import Bundle, write_bundle  # noqa: E402
from samrt_export.verify.growth import GraphPair, explosion, relative_error  # noqa: E402

DEPTH = 40


def chain(path: Path, *, spoilt: int | None = None, by: float = 1.0) -> Path:
    """``DEPTH`` additions of one; number ``spoilt`` adds something else."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes, values = [], []
    for k in range(DEPTH):
        source = f"t{k - 1}" if k else "x"
        values.append(onnx.numpy_helper.from_array(
            np.float32([by if k == spoilt else 1.0]), f"c{k}"))  # fmt: skip
        nodes.append(helper.make_node("Add", [source, f"c{k}"], [f"t{k}"], name=f"/step.{k}/Add"))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", kind, [4])],
        [helper.make_tensor_value_info(f"t{DEPTH - 1}", kind, [4])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("spoilt", "by"), [(0, 9.0), (23, 1e3), (39, np.inf)])
def test_the_node_is_found(tmp_path: Path, spoilt: int, by: float) -> None:
    files = [chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", spoilt=spoilt, by=by)]
    with GraphPair(*files, threads=1) as pair:
        found = pair.first_jump({"x": np.ones(4, np.float32)})
        assert found is not None
        before, after, tensor = found
        assert (before, tensor) == (0.0, f"t{spoilt}")
        assert after > 0.1
        assert pair.name_of(tensor) == f"node '/step.{spoilt}/Add' (Add)"


def test_an_even_error_is_no_jump(tmp_path: Path) -> None:
    files = [chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", spoilt=5, by=1.01)]
    with GraphPair(*files, threads=1) as pair:
        assert pair.first_jump({"x": np.ones(4, np.float32)}) is None
        assert 0.0 < pair.last < 0.01


def test_relative_error() -> None:
    ones = np.ones(4, np.float32)
    assert relative_error(ones, ones * 1.5) == pytest.approx(0.5)
    assert relative_error(ones, ones * np.nan) == relative_error(ones, np.ones(3)) == np.inf
    assert relative_error(ones * 0, ones) == 1.0


def spoil(path: Path) -> tuple[bytes, str]:
    """The file with one weight of its middle a thousand times as large; the node that reads it."""
    model = onnx.load(str(path))
    weights = {w.name: w for w in model.graph.initializer if len(w.dims) >= 2}
    users = [n for n in model.graph.node if any(name in weights for name in n.input)]
    node = users[len(users) // 2]
    weight = weights[next(name for name in node.input if name in weights)]
    array = onnx.numpy_helper.to_array(weight) * 1000
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return model.SerializeToString(), node.name or node.output[0]


def test_explosions_of_a_bundle(bundle_path: Path, tmp_path: Path) -> None:
    document = json.loads((bundle_path / "manifest.json").read_text("utf-8"))
    files: dict[str, bytes | Path] = {
        a["file"]: bundle_path / a["file"] for a in document["artifacts"]
    }
    (encoder,) = [a for a in document["artifacts"] if a["role"] == "encoder"]
    files["bad.onnx"], name = spoil(bundle_path / encoder["file"])
    document["artifacts"].append({**encoder, "file": "bad.onnx", "precision": "int8"})
    bundle = write_bundle(tmp_path / "bad.samrt", document, files)
    text = explosion(bundle, "int8", threads=1)
    assert text is not None
    assert text.startswith("the error grows from ")
    assert f"in the encoder, at node {name!r}" in text
    assert explosion(Bundle.open(bundle_path), "fp32") is None
