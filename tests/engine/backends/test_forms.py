"""Which form of the encoder ONNX Runtime runs, what is reported, and the manifest's rules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.backends import get_backend, operators
from samrt.backends.base import SessionOptions
from samrt.bundle import Bundle, write_bundle
from samrt.cli import main
from samrt.errors import BackendError, BundleError, OptionError
from samrt.manifest import parse_manifest


def add_form(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The document with a second encoder for ONNX Runtime."""
    encoder = next(a for a in document["artifacts"] if a["role"] == "encoder")
    form = {
        **encoder,
        "file": "encoder.cpu.onnx",
        "runtime": "onnxruntime",
        "operators": operators.OPERATORS,
        **changes,
    }
    document["artifacts"].insert(1, {k: v for k, v in form.items() if v is not None})
    return document


@pytest.fixture
def with_form(bundle_path: Path, manifest_doc: dict[str, Any], tmp_path: Path) -> Path:
    """The fixture's bundle with its encoder once more as the CPU form; it needs no operators."""
    files = {
        "encoder.onnx": bundle_path / "encoder.onnx",
        "encoder.cpu.onnx": renamed(bundle_path / "encoder.onnx"),
        "decoder.onnx": bundle_path / "decoder.onnx",
    }
    return write_bundle(tmp_path / "two.samrt", add_form(manifest_doc), files).path


def renamed(path: Path) -> bytes:
    """The same graph under another name, so that the two files can be told apart."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    model.graph.name = "cpu_form"
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """``library(problem)``: the library of operators has this problem, or none."""

    def make(problem: str | None) -> None:
        monkeypatch.delenv(operators.VARIABLE, raising=False)
        monkeypatch.setattr(operators, "library_problem", lambda: problem)

    return make


@pytest.fixture
def no_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes the stand-in of the CPU form without any library."""
    from samrt.backends import onnxruntime

    monkeypatch.setattr(onnxruntime, "library_path", lambda: None)


def test_the_cpu_form_is_taken_where_the_operators_are(
    with_form: Path, library: Any, no_registration: None
) -> None:
    library(None)
    with samrt.load(with_form, backend="onnxruntime", threads=1) as engine:
        info = engine.info
    assert (info.form_requested, info.form_effective) == ("auto", "cpu")
    assert info.form_reason == "encoder: the library of its operators is installed"
    bundle = Bundle.open(with_form)
    form = bundle.form_for(bundle.artifact("encoder"), "onnxruntime")
    assert form is not None
    assert info.files["encoder"] == form.sha256


def test_without_operators_the_canonical_graph_runs_and_says_why(
    with_form: Path, library: Any
) -> None:
    library("the library samrt/_ops is not installed")
    with samrt.load(with_form, backend="onnxruntime", threads=1) as engine:
        info = engine.info
    assert (info.form_requested, info.form_effective) == ("auto", "canonical")
    assert info.form_reason == "canonical, because the library samrt/_ops is not installed"
    assert info.files["encoder"] == Bundle.open(with_form).artifact("encoder").sha256
    with pytest.raises(BackendError, match="cannot be run: the library samrt/_ops is not inst"):
        samrt.load(with_form, backend="onnxruntime", threads=1, form="cpu")


def test_a_decoder_has_a_form_of_its_own(
    bundle_path: Path,
    manifest_doc: dict[str, Any],
    tmp_path: Path,
    library: Any,
    no_registration: None,
) -> None:
    """Beside an encoder of another precision it runs only in pairs that were compared."""
    library(None)
    encoder, decoder = (
        next(a for a in manifest_doc["artifacts"] if a["role"] == role)
        for role in ("encoder", "decoder")
    )
    manifest_doc["artifacts"] += [
        {**encoder, "file": "encoder.int8.onnx", "precision": "int8"},
        {
            **decoder,
            "file": "decoder.cpu.onnx",
            "runtime": "onnxruntime",
            "operators": operators.OPERATORS,
        },
    ]
    files = {
        "encoder.onnx": bundle_path / "encoder.onnx",
        "encoder.int8.onnx": renamed(bundle_path / "encoder.onnx"),
        "decoder.onnx": bundle_path / "decoder.onnx",
        "decoder.cpu.onnx": renamed(bundle_path / "decoder.onnx"),
    }
    bundle = write_bundle(tmp_path / "pairs.samrt", manifest_doc, files)
    form = bundle.form_for(bundle.artifact("decoder"), "onnxruntime")
    assert form is not None
    found = {}
    for precision in ("fp32", "int8"):
        with samrt.load(
            bundle.path, backend="onnxruntime", precision=precision, threads=1
        ) as engine:
            found[precision] = (engine.info.form_effective, engine.info.files["decoder"])
            reason = engine.info.form_reason
    assert found["fp32"] == ("cpu", form.sha256)
    assert found["int8"] == ("canonical", bundle.artifact("decoder").sha256)
    assert reason == "canonical, because the bundle has no CPU form in int8"


def test_option_and_environment_force_a_form(
    with_form: Path, library: Any, no_registration: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(None)
    forms = {}
    for option, variable in ((None, "canonical"), ("cpu", "canonical"), ("canonical", "cpu")):
        monkeypatch.setenv(operators.VARIABLE, variable)
        with samrt.load(with_form, backend="onnxruntime", threads=1, form=option) as engine:
            forms[option, variable] = (engine.info.form_effective, engine.info.form_reason)
    assert set(forms.values()) == {("canonical", "asked for"), ("cpu", "encoder: asked for")}
    assert forms["cpu", "canonical"][0] == "cpu"  # the call counts more than the environment
    assert forms["canonical", "cpu"][0] == "canonical"
    monkeypatch.setenv(operators.VARIABLE, "fast")
    with pytest.raises(OptionError, match="SAMRT_ONNXRUNTIME_FORM is 'fast', expected one of auto"):
        samrt.load(with_form, backend="onnxruntime", threads=1)
    with pytest.raises(OptionError, match="form must be one of auto, canonical, cpu, got 'fast'"):
        samrt.load(with_form, form="fast")


def test_other_backends_never_see_the_cpu_form(with_form: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(with_form)
    assert bundle.artifact("encoder").file == "encoder.onnx"
    assert bundle.artifact("encoder", "fp32").form == "canonical"
    assert bundle.form_for(bundle.artifact("encoder"), "openvino") is None
    assert bundle.form_for(bundle.artifact("decoder"), "onnxruntime") is None

    class Other(type(get_backend("onnxruntime"))):  # type: ignore[misc]
        name = "other"
        choose_form = samrt.backends.base.Backend.choose_form

    from samrt.model import open_model

    model = open_model(
        with_form, backend=Other(), precision="auto", options=SessionOptions(threads=1)
    )
    assert model.info.form_effective == "canonical"
    assert model.info.form_reason == "other runs the canonical graphs"
    model.close()
    with pytest.raises(OptionError, match="'cpu' is for the backend onnxruntime, other runs"):
        open_model(with_form, backend=Other(), precision="auto",
                   options=SessionOptions(threads=1, form="cpu"))  # fmt: skip


def test_operators_of_another_version_are_not_tried(with_form: Path, library: Any) -> None:
    library(None)
    path = with_form / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"samrt/1"', '"samrt/2"'), "utf-8")
    with samrt.load(with_form, backend="onnxruntime", threads=1) as engine:
        assert engine.info.form_effective == "canonical"
        assert "needs the operators samrt/2, this samrt has samrt/1" in engine.info.form_reason


def test_an_old_bundle_loads_and_says_that_it_has_one_form(bundle_path: Path, library: Any) -> None:
    library(None)
    with samrt.load(bundle_path, backend="onnxruntime", threads=1) as engine:
        assert engine.info.form_effective == "canonical"
        assert engine.info.form_reason == "canonical, because the bundle has no CPU form in fp32"


def test_each_form_has_its_own_record(with_form: Path, library: Any, no_registration: None) -> None:
    """A refused CPU form gives way to the canonical graph; insisting on it is an error."""
    library(None)
    bundle = Bundle.open(with_form)
    encoder = bundle.artifact("encoder")
    form = bundle.form_for(encoder, "onnxruntime")
    assert form is not None
    files = {"encoder": form.sha256, "decoder": bundle.artifact("decoder").sha256}
    record = {
        "precision": "fp32", "passed": False, "failures": ["masks differ"],
        "mask_iou_mean": 0.5, "mask_iou_worst": 0.1, "against": "torch",
        "candidate": {"files": files, "form": "cpu"},
    }  # fmt: skip
    path = with_form / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    document["parity"] = {"other_forms": {"cpu": {"fp32": record}}}
    path.write_text(json.dumps(document), "utf-8")
    with samrt.load(with_form, backend="onnxruntime", threads=1) as engine:
        assert engine.info.form_effective == "canonical"
        assert "refused by its verification: masks differ" in engine.info.form_reason
        assert engine.info.verification.state == "unverified"
    with pytest.raises(samrt.VerificationError, match=r"\(cpu form\) is refused"):
        samrt.load(with_form, backend="onnxruntime", threads=1, form="cpu")
    record.update(passed=True, failures=[], mask_iou_mean=1.0, mask_iou_worst=1.0)
    path.write_text(json.dumps(document), "utf-8")
    with samrt.load(with_form, backend="onnxruntime", threads=1) as engine:
        assert (engine.info.form_effective, engine.info.verification.state) == ("cpu", "passed")


def test_a_library_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "_ops.so"
    bad.write_bytes(b"this is no library")
    monkeypatch.setattr(operators, "library_path", lambda: bad)
    problem = operators.library_problem()
    assert problem is not None
    assert "does not load the library _ops.so" in problem
    monkeypatch.setattr(operators, "library_path", lambda: None)
    assert operators.library_problem() == "the library samrt/_ops is not installed"


def test_a_graph_that_needs_a_missing_operator_names_the_way_out(
    with_form: Path, library: Any, no_registration: None
) -> None:
    onnx = pytest.importorskip("onnx")
    library(None)
    model = onnx.load(with_form / "encoder.cpu.onnx")
    model.graph.node[0].domain = "samrt"
    model.graph.node[0].op_type = "Teleport"
    model.opset_import.append(onnx.helper.make_opsetid("samrt", 1))
    content = model.SerializeToString()
    document = json.loads((with_form / "manifest.json").read_text("utf-8"))
    files = {name: with_form / name for name in ("encoder.onnx", "decoder.onnx")}
    path = write_bundle(
        with_form.with_name("bad.samrt"), document, {**files, "encoder.cpu.onnx": content}
    ).path
    with pytest.raises(BackendError, match="SAMRT_ONNXRUNTIME_FORM=canonical runs the graph"):
        samrt.load(path, backend="onnxruntime", threads=1)
    with samrt.load(path, backend="onnxruntime", threads=1, form="canonical"):
        pass


def test_infer_and_info_report_the_form(
    bundle_path: Path, image: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "i.png")
    words = ["infer", str(tmp_path / "i.png"), "--model", str(bundle_path), "--box", "5,5,40,30"]
    words += ["--output-dir", str(tmp_path / "out")]
    assert main([*words, "--json", "--backend", "onnxruntime"]) == 0
    form = json.loads(capsys.readouterr().out)["model"]["form"]
    assert form["effective"] == "canonical"
    assert "no CPU form" in form["reason"]
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["operators"]
    assert found["version"] == "samrt/1"
    assert found["available"] is (found["error"] is None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": None}, "encoder.cpu.onnx: 'runtime' without 'operators'"),
        ({"runtime": None}, "encoder.cpu.onnx: 'operators' without 'runtime'"),
        ({"precision": "int8"}, "no int8 encoder that every backend can open"),
        ({"runtime": "tensorrt"}, r"artifacts\[1\].runtime"),
        ({"operators": "samrt"}, r"artifacts\[1\].operators"),
        ({"file": "encoder.onnx"}, "'encoder.onnx': name used twice"),
        ({"outputs": []}, r"artifacts\[1\].outputs"),
    ],
)
def test_wrong_forms_are_refused(
    manifest_doc: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    parse_manifest(add_form(json.loads(json.dumps(manifest_doc))))
    with pytest.raises(BundleError, match=message):
        parse_manifest(add_form(manifest_doc, **changes))


def test_forms_must_have_the_same_inputs_and_outputs(manifest_doc: dict[str, Any]) -> None:
    encoder = next(a for a in manifest_doc["artifacts"] if a["role"] == "encoder")
    outputs = [*encoder["outputs"], {"name": "more", "dtype": "float32", "shape": [1]}]
    with pytest.raises(BundleError, match=r"inputs or outputs differ from those of encoder\.onnx"):
        parse_manifest(add_form(manifest_doc, outputs=outputs))
    two = add_form(add_form(manifest_doc), file="third.onnx")
    with pytest.raises(BundleError, match="fp32 onnxruntime encoder listed twice"):
        parse_manifest(two)


def test_data_files_may_be_shared_and_are_stored_once(
    bundle_path: Path, manifest_doc: dict[str, Any], tmp_path: Path
) -> None:
    data = tmp_path / "weights.data"
    data.write_bytes(bytes(range(200)) * 50)
    document = add_form(manifest_doc)
    for artifact in document["artifacts"][:2]:
        artifact["data"] = [{"file": "weights.data", "bytes": 1, "sha256": "0" * 64}]
    files: dict[str, Any] = {
        "encoder.onnx": bundle_path / "encoder.onnx",
        "encoder.cpu.onnx": bundle_path / "encoder.onnx",
        "decoder.onnx": bundle_path / "decoder.onnx",
        "weights.data": data,
    }
    bundle = write_bundle(tmp_path / "a.samrt", document, files)
    assert [a.data for a in bundle.manifest.artifacts[:2]] == [bundle.artifact("encoder").data] * 2
    assert sorted(bundle.files()) == sorted(files)
    assert sum(f.bytes for f in bundle.files().values()) == sum(
        p.stat().st_size for p in bundle.path.iterdir() if p.name != "manifest.json"
    )
    moved = tmp_path / "moved"
    shutil.copytree(bundle.path, moved)
    again = write_bundle(tmp_path / "b.samrt", document, {n: moved / n for n in files}, move=True)
    assert again.sha256 == bundle.sha256
    document = json.loads((bundle.path / "manifest.json").read_text("utf-8"))
    document["artifacts"][1]["data"][0]["bytes"] = 7
    with pytest.raises(BundleError, match=r"'weights\.data': name used twice"):
        parse_manifest(document)


def test_the_canonical_digest_does_not_depend_on_new_fields(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    encoder = bundle.artifact("encoder")
    assert (encoder.runtime, encoder.operators) == (None, None)
    assert replace(encoder, runtime="onnxruntime").form == "cpu"
