"""The CPU form in int8: what is converted, that it computes the same, and the gate before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import samrt
from samrt.backends import operators
from samrt.bundle import Bundle, write_bundle
from samrt.phantoms import PhantomCase, phantom_cases
from samrt_export.quantize import cpu_form, quantize
from samrt_export.quantize.cpu_form import to_int8_operators
from samrt_export.quantize.cpu_order import Costs, encoder_inputs, measure
from samrt_export.quantize.options import QuantizeOptions

from ..test_cpu_bundle import loaded, needs_library, shared, write  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def source(shared: Bundle) -> Path:  # noqa: F811
    form = shared.form_for(shared.artifact("encoder"), "onnxruntime")
    assert form is not None
    return shared.file_of(form)


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node if node.domain == "samrt"}


def test_linear_layers_become_integers_and_the_rest_stays(source: Path) -> None:
    model, changed, kept = to_int8_operators(source)
    before = onnx.load(str(source))
    assert len(changed) >= 8
    assert not kept
    assert {"LinearInt8", "MlpInt8", "MbConvInt8"} <= kinds(model)
    assert {"Attention", "DepthwiseConv"} <= kinds(model)
    assert [n.name for n in model.graph.node] == [n.name for n in before.graph.node]
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    floats = {i.name: numpy_helper.to_array(i) for i in before.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    assert set(arrays) <= used
    assert any("neck" in n.name for n in model.graph.node if n.op_type == "Linear")
    assert not any("neck" in name for name in changed)
    for name, whole in arrays.items():
        if not name.endswith(".int8"):
            continue
        weight, scale = floats[name.removesuffix(".int8")], arrays[f"{name[:-5]}.scale"]
        assert (whole.dtype, scale.shape) == (np.int8, weight.shape[1:])
        assert np.abs(whole * scale - weight).max() <= 0.51 * scale.max()


def test_nodes_that_are_to_stay_float(source: Path) -> None:
    named = [n.name for n in cpu_form.integer_nodes(onnx.load(str(source)))]
    wanted = [name for name in named if "mbconv" in name]
    model, changed, kept = to_int8_operators(source, wanted)
    assert "MbConv" in kinds(model)
    assert "MbConvInt8" not in kinds(model)
    assert (wanted, sorted(named)) == (kept, sorted(kept + changed))


def test_what_costs_most_returns_to_float_until_half_the_error_is_gone() -> None:
    costs = Costs(together=1.0, apart={"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.05, "e": -0.01})
    first = costs.next_kept([])
    assert first == ["a", "b"]
    second = costs.next_kept(first)
    assert second == ["a", "b", "c"]
    third = costs.next_kept(second)
    assert third == ["a", "b", "c", "d"]
    assert costs.next_kept(third) == third  # what is left does not help


@needs_library
def test_costs_are_those_of_the_nodes(shared: Bundle, source: Path) -> None:  # noqa: F811
    named = [n.name for n in cpu_form.integer_nodes(onnx.load(str(source)))]
    image = phantom_cases()[0].image
    feeds = list(encoder_inputs(shared, [image], 1))
    assert [tuple(value.shape) for value in feeds[0].values()] == [
        shared.artifact("encoder").inputs[0].shape
    ]
    worst = named[3]

    def make(kept: Sequence[str]) -> onnx.ModelProto:
        model, _, _ = to_int8_operators(source, kept)
        for node in model.graph.node:  # one node's scales are far off
            for item in model.graph.initializer:
                if node.name == worst and item.name in node.input and item.name.endswith(".scale"):
                    item.CopyFrom(
                        numpy_helper.from_array(2 * numpy_helper.to_array(item), item.name)
                    )
        return model

    said: list[str] = []
    costs = measure(str(source), named, make, feeds, 1, said.append)
    assert next(iter(costs.apart)) == worst
    assert costs.apart[worst] > 0.9 * costs.together
    assert set(costs.apart) == set(named)
    assert worst in said[0]


@needs_library
@pytest.mark.parametrize("passes", [True, False])
def test_quantize_adds_the_form_if_it_passes(
    passes: bool, shared: Bundle, folder: Path, cache: Path, tmp_path: Path,  # noqa: F811
    few_pictures: None, few_cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not passes:

        def spoiled(path: Path, keep: Any = ()) -> Any:
            model, changed, kept = to_int8_operators(path, keep)
            for item in model.graph.initializer:
                if item.name.endswith(".scale"):
                    item.CopyFrom(
                        numpy_helper.from_array(3 * numpy_helper.to_array(item), item.name)
                    )
            return model, changed, kept

        monkeypatch.setattr(cpu_form, "to_int8_operators", spoiled)
    said: list[str] = []
    made = quantize(
        shared.path, folder, out=tmp_path / "q.samrt", progress=said.append,
        options=QuantizeOptions(smoothing=False, method="max"),
    )  # fmt: skip
    form = made.form_for(made.artifact("encoder", "int8"), "onnxruntime")
    assert (form is not None) == passes
    assert any("CPU form" in line for line in said)
    if form is None:
        assert any("not good enough" in line for line in said)
        return
    entry: Any = made.manifest.calibration
    assert entry["int8"]["cpu_form"]["nodes"]
    monkeypatch.setattr(operators, "fast_integers", lambda: True)
    with samrt.load(made.path, precision="int8") as engine:
        assert engine.info.form_effective == "cpu"
        assert engine.info.verification.state == "passed"
        got = engine.encode(few_cases[0].image).features["image_embeddings"]
    with samrt.load(made.path, precision="fp32") as engine:
        truth = engine.encode(few_cases[0].image).features["image_embeddings"]
    assert 0 < float(np.sqrt(np.mean((got - truth) ** 2)) / truth.std()) < 0.1
    monkeypatch.setattr(operators, "fast_integers", lambda: False)
    with samrt.load(made.path, precision="int8") as engine:
        assert engine.info.form_effective == "canonical"
        assert "VNNI" in (engine.info.form_reason or "")


def test_a_bundle_without_a_form_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    shipped = Bundle.open(samrt.available_models()["tiny"])
    document = json.loads((shipped.path / "manifest.json").read_text("utf-8"))
    document["artifacts"] = [a for a in document["artifacts"] if "runtime" not in a]
    files = {f["file"]: shipped.path / f["file"]
             for a in document["artifacts"] for f in (a, *a["data"])}  # fmt: skip
    tiny = write_bundle(tmp_path / "plain.samrt", document, files)
    same = cpu_form.add_int8_form(
        tiny, tiny, None, lambda: [], Path("unused"), say=said.append  # type: ignore[arg-type]
    )  # fmt: skip
    assert same is tiny
    assert said == ["no CPU form in int8: the bundle has no CPU form in fp32"]
