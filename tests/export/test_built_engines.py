"""Engines of TensorRT-RTX from exported graphs in every precision; building needs no GPU.

Sizes are what version 1.7.1 gives within a few percent.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from samrt import BackendError, BackendUnavailableError
from samrt.bundle import Bundle, find_model
from samrt.engines.apart import build_apart
from samrt.engines.api import Api, load_api
from samrt.engines.builder import BuiltEngine, build_engine
from samrt.engines.messages import BuildLog, make_logger
from samrt.engines.options import BuildOptions
from samrt.manifest import TensorSpec
from samrt_export.exporter import export
from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.precision.half import settle, statistics_of, to_half
from samrt_export.seeded import seeded_state

# Bytes of the encoder's engine over those of its FP32 form, at most.
SHARE = {"fp32": 1.0, "fp16": 0.70, "int8": 0.80}
SMALL = BuildOptions(max_prompts=2, max_points=4)
MALFORMED = 32
Build = Callable[[str, str, str], BuiltEngine]


@pytest.fixture(scope="module")
def rtx() -> Api:
    try:
        return load_api("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bundle]]:
    """``bundle_of("mobile_sam")``: random weights in a published shape; ``tiny`` has its own."""
    known = {"tiny": Bundle.open(find_model("tiny"))}

    def make(name: str) -> Bundle:
        if name not in known:
            target = tmp_path_factory.mktemp(name) / f"{name}.samrt"
            known[name] = export(seeded_state(name), target, family=name, verify=False)
            gc.collect()
        return known[name]

    yield make
    known.clear()


@pytest.fixture(scope="module")
def file_of(
    bundle_of: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, str], Path]:
    """``file_of(model, role, precision)``: a graph that carries its precision.

    Float16 without measuring islands and int8 without calibration: a builder does not care.
    """
    made: dict[tuple[str, str, str], Path] = {}

    def make(model: str, role: str, precision: str) -> Path:
        plain = bundle_of(model).file_of(bundle_of(model).artifact(role))
        key = (model, role, precision)
        if precision == "fp32":
            return plain
        if key not in made:
            folder = tmp_path_factory.mktemp("-".join(key))
            made[key] = MAKERS[precision](plain, folder / f"{role}.onnx")
        return made[key]

    return make


def half(plain: Path, target: Path) -> Path:
    graph = FloatGraph(plain)
    found = to_half(graph, settle(graph, statistics_of(graph)))
    return found.builder.write(target, "test")[0]


def int8(plain: Path, target: Path) -> Path:
    quantize = pytest.importorskip("samrt_export.quantize")
    graph = FloatGraph(plain)
    choices = [
        quantize.Choice(
            layer, "max", 4.0, 0.0, None,
            np.zeros(graph.weights.shape_of(layer.weight)[layer.channel_axis], np.float32),
            4.0 if layer.quantise_output else None, None, 0.0, 0.0,
        )
        for layer in quantize.find_layers(graph)[0]
    ]  # fmt: skip
    assert len(choices) > 3
    path: Path = quantize.to_int8(graph, choices).write(target, "test")[0]
    return path


MAKERS: dict[str, Callable[[Path, Path], Path]] = {"fp16": half, "int8": int8}


@pytest.fixture(scope="module")
def build(
    rtx: Api, bundle_of: Callable[[str], Bundle], file_of: Callable[[str, str, str], Path]
) -> Build:
    made: dict[tuple[str, str, str], BuiltEngine] = {}

    def run(model: str, role: str, precision: str) -> BuiltEngine:
        key = (model, role, precision)
        if key not in made:
            artifact = bundle_of(model).artifact(role)
            path = file_of(model, role, precision)
            made[key] = build_apart(rtx, path, artifact.inputs, artifact.outputs, SMALL)
        return made[key]

    return run


def model_and_precision(*models: str) -> list[tuple[str, str]]:
    return [(model, precision) for model in models for precision in SHARE]


def check_encoder(rtx: Api, build: Build, model: str, precision: str) -> None:
    built = build(model, "encoder", precision)
    assert built.content[:4] == b"vtrt"
    runtime = rtx.module.Runtime(make_logger(rtx, BuildLog()))
    assert int(runtime.get_engine_validity(built.content)[1]) == 0
    assert int(runtime.get_engine_validity(b"rubbish" * 999)[1]) == MALFORMED
    full = len(build(model, "encoder", "fp32").content)
    assert 0.2 * full < len(built.content) <= SHARE[precision] * full
    assert built.ranges == {}
    # A warning about LayerNorm in FP16 would mean that its statistics are not float32.
    assert not [text for text in built.warnings if "norm" in text.lower()]


@pytest.mark.parametrize(("model", "precision"), model_and_precision("tiny", "mobile_sam"))
def test_encoders(rtx: Api, build: Build, model: str, precision: str) -> None:
    check_encoder(rtx, build, model, precision)


@pytest.mark.parametrize(("model", "precision"), model_and_precision("sam"))
def test_a_vit_b(rtx: Api, build: Build, model: str, precision: str) -> None:
    check_encoder(rtx, build, model, precision)
    if precision == "int8":
        assert len(build(model, "encoder", "int8").content) < 0.5 * len(
            build(model, "encoder", "fp32").content
        )


@pytest.mark.parametrize("model", ["tiny", "mobile_sam", "sam"])
def test_half_decoders_for_many_prompts(build: Build, model: str) -> None:
    full, half_ = (build(model, "decoder", precision) for precision in ("fp32", "fp16"))
    assert half_.content[:4] == b"vtrt"
    assert len(half_.content) < len(full.content)
    assert half_.ranges["point_coords"].largest == (2, 4, 2)


GRAPHS = [("encoder", "fp32"), ("encoder", "fp16"), ("encoder", "int8"),
          ("decoder", "fp32"), ("decoder", "fp16")]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "role", "precision"),
    [(model, *graph) for model in ("tiny", "mobile_sam", "sam") for graph in GRAPHS],
)
def test_the_same_file_gives_the_same_bytes(
    rtx: Api, build: Build, bundle_of: Callable[[str], Bundle],
    file_of: Callable[[str, str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    model: str, role: str, precision: str,
) -> None:  # fmt: skip
    """Built from another shell, in another folder."""
    first = build(model, role, precision)
    path = file_of(model, role, precision)
    copy = tmp_path / "a folder with another and longer name" / "x" / path.name
    shutil.copytree(path.parent, copy.parent)
    monkeypatch.setenv("SAMRT_TEST", "x" * 50_000)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/some/where:/opt/else/where")
    monkeypatch.chdir(tmp_path)
    artifact = bundle_of(model).artifact(role)
    again = build_apart(rtx, copy, artifact.inputs, artifact.outputs, SMALL)
    for built in (first, again):
        if built.varying is not None:
            pytest.skip(built.varying)
    assert again.content == first.content


@pytest.mark.parametrize("what", ["zero point", "integer bias"])
def test_what_tensorrt_cannot_take_is_refused_with_its_node(
    rtx: Api, tmp_path: Path, what: str
) -> None:
    """Forms of int8 that other tools write."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    values = {
        "scale": np.float32(0.1),
        "zero": np.int8(3) if what == "zero point" else np.int32(0),
        "bias": np.zeros(4, np.int32),
    }
    if what == "zero point":
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="/in/Q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="/in/DQ"),
        ]
        del values["bias"]
    else:
        nodes = [
            helper.make_node("DequantizeLinear", ["bias", "scale", "zero"], ["b"], name="/b/DQ"),
            helper.make_node("Add", ["x", "b"], ["y"], name="/add"),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", kind.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "odd.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    specs = [[TensorSpec(name, "float32", (1, 4))] for name in ("x", "y")]
    with pytest.raises(BackendError) as caught:
        build_engine(rtx, path, *specs, BuildOptions())
    text = str(caught.value)
    assert "odd.onnx" in text
    assert {"zero point": "zero point", "integer bias": "Int32"}[what].lower() in text.lower()
    assert "\n" not in text
