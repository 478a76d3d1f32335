"""What ONNX Runtime is told about int8 graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from samrt.backends import get_backend
from samrt.backends import onnxruntime as backend
from samrt.backends.base import SessionOptions
from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph
from samrt_export.quantize import find_layers, to_int8, to_int8_weights
from samrt_export.quantize.choose import choose

from .conftest import ranges, stored


def test_the_largest_products_do_not_saturate(tmp_path: Path) -> None:
    """255 times 127 twice is more than 16 bits hold, in which x86 without VNNI adds."""
    g = GraphBuilder("g")
    x = g.input("image", (1, 64, 64))
    y = g.op("MatMul", x, g.weight(np.full((64, 64), 0.5)))
    graph = stored(g, tmp_path, {y: (1, 64, 64)})
    (layer,) = find_layers(graph)[0]
    full = {"image": np.full((1, 64, 64), 3.0, np.float32)}
    choice = choose(graph, layer, ranges(graph, [layer], [full]))
    file = to_int8(graph, [choice]).write(tmp_path / "q.onnx", "test")[0]
    with get_backend("onnxruntime").create(file, SessionOptions(threads=1)) as session:
        found = session.run(full)["y0"]
    np.testing.assert_allclose(found, 96.0, rtol=0.02)


@pytest.mark.parametrize(
    ("machine", "flags", "exact"),
    [
        ("x86_64", ["avx2"], False), ("AMD64", [], False), ("x86_64", ["avx512_vnni"], True),
        ("x86_64", ["avx_vnni"], True), ("aarch64", ["asimd"], True),
    ],
)  # fmt: skip
def test_which_processors_add_exactly(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: list[str], exact: bool
) -> None:
    monkeypatch.setattr(backend.platform, "machine", lambda: machine)
    monkeypatch.setattr(backend, "cpu_info", lambda: {"flags": flags})
    assert backend._sums_eight_bit_products_exactly() is exact
    options = backend._native_options(SessionOptions(threads=1))
    key = "session.x64quantprecision"
    if exact:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)
    else:
        assert options.get_session_config_entry(key) == "1"


def test_int8_weights_are_expanded_when_the_model_is_opened(
    mixed: FloatGraph, tmp_path: Path
) -> None:
    """Not in every run, which would slow it down."""
    file = to_int8_weights(mixed).write(tmp_path / "w.onnx", "test")[0]
    options = backend._native_options(SessionOptions(threads=1))
    options.add_session_config_entry(backend._NO_INTEGERS, "1")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "DequantizeLinear" not in kinds


def test_unsigned_weights_give_the_same_answer(mixed: FloatGraph, tmp_path: Path) -> None:
    """What x86 without VNNI is told; any processor can run it."""
    layers, _ = find_layers(mixed)
    image = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    statistics = ranges(mixed, layers, [image])
    choices = [choose(mixed, layer, statistics) for layer in layers]
    file = to_int8(mixed, choices).write(tmp_path / "q.onnx", "test")[0]
    found = []
    for unsigned in ("0", "1"):
        options = ort.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", unsigned)
        options.optimized_model_filepath = str(tmp_path / f"{unsigned}.onnx")
        options.log_severity_level = 3
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, image)[0])
        kinds = [node.op_type for node in onnx.load(tmp_path / f"{unsigned}.onnx").graph.node]
        assert kinds.count("MatMulIntegerToFloat") == 2
        assert kinds.count("QLinearConv") == 2
    assert np.abs(found[0] - found[1]).max() < 0.02 * found[0].std()
