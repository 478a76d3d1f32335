"""A checkpoint becomes a bundle, by the command line and in Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import samrt
import samrt_export
from samrt.bundle import Bundle
from samrt.cli import main
from samrt.errors import OptionError, OutputError, VerificationError
from samrt.phantoms import phantom_case
from samrt_export import loading
from samrt_export.checkpoint import CheckpointError
from samrt_export.families import FAMILIES, family_named
from samrt_export.seeded import seeded_state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LiteMedSAM with random weights, wrapped as a training script leaves it."""
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_3.pth"
    state = {f"module.{key}": value for key, value in seeded_state("lite_medsam").items()}
    torch.save({"model": state, "epoch": 3}, path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundle") / "mine.samrt"
    assert main(["export", str(checkpoint), "-o", str(out)]) == 0
    return Bundle.open(out, verify="full")


def test_the_manifest_says_what_was_found_and_proven(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.family, manifest.variant) == ("mine", "lite_medsam", "vit_t")
    assert manifest.input.interpolation == "area"
    assert any("module." in remark for remark in manifest.source["remarks"])
    assert manifest.parity is not None
    assert manifest.parity["passed"] is True
    assert manifest.parity["masks"]["informative"] > 0
    assert manifest.parity["outputs"]["image_embeddings"]["rms_rel"] < 1e-4


def test_the_graphs_are_plain(bundle: Bundle) -> None:
    for role in ("encoder", "decoder"):
        model = onnx.load(bundle.file_of(bundle.artifact(role)))
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version >= 17
        assert [entry.domain for entry in model.opset_import] == [""]
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"Shape", "Expand", "Tile", "OneHot", "NonZero", "BatchNormalization"}
        assert "LayerNormalization" in kinds


def test_the_bundle_answers_through_the_command_line(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "i.png")
    words = ["infer", str(tmp_path / "i.png"), "--model", str(bundle.path)]
    assert main([*words, "--box", "10,10,80,70", "--output-dir", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").glob("*mask*.png"))


def test_same_checkpoint_same_bytes(checkpoint: Path, bundle: Bundle, tmp_path: Path) -> None:
    again = samrt_export.export(checkpoint, tmp_path / "mine.samrt", verify=False)
    assert again.model_id == bundle.model_id


def test_a_state_dict_in_memory_gives_the_same_graphs(bundle: Bundle, tmp_path: Path) -> None:
    made = samrt_export.export(seeded_state("lite_medsam"), tmp_path / "m.samrt", verify=False)
    assert [a.sha256 for a in made.manifest.artifacts] == [
        a.sha256 for a in bundle.manifest.artifacts
    ]


def test_an_existing_bundle_is_kept(checkpoint: Path, bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        samrt_export.export(checkpoint, bundle.path)
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_all_keys_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = seeded_state("lite_medsam")
    del state["mask_decoder.iou_token.weight"]
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(5, 256)
    state["image_encoder.surprise"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        samrt_export.export(state, tmp_path / "bad.samrt")
    for part in ("iou_token", "mask_tokens", "surprise"):
        assert part in str(caught.value)
    assert not (tmp_path / "bad.samrt").exists()


def test_a_family_whose_keys_do_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="image_encoder"):
        samrt_export.export(checkpoint, tmp_path / "x.samrt", family="mobile_sam")
    with pytest.raises(OptionError, match="unknown family"):
        samrt_export.export(checkpoint, tmp_path / "x.samrt", family="sam3")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The network of the proof gets other weights than the graph: exit code 3, nothing written."""
    from samrt_export import exporter

    class Shifted(exporter.TorchModel):
        def run_encoder(self, image):  # type: ignore[no-untyped-def]
            return {k: v + 0.05 for k, v in super().run_encoder(image).items()}

    monkeypatch.setattr(exporter, "TorchModel", Shifted)
    monkeypatch.setattr(exporter, "phantom_cases", lambda: [phantom_case("portrait")])
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.samrt")]) == 3
    assert "do not compute" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VerificationError):
        samrt_export.export(checkpoint, tmp_path / "x.samrt")


def test_a_refused_bundle_is_kept_on_request_and_used_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written with its record, exit code 3; `load` refuses it, or every result says so."""
    from samrt_export import exporter

    class Shifted(exporter.TorchModel):
        def run_encoder(self, image):  # type: ignore[no-untyped-def]
            return {k: v + 0.05 for k, v in super().run_encoder(image).items()}

    case = phantom_case("portrait")
    monkeypatch.setattr(exporter, "TorchModel", Shifted)
    monkeypatch.setattr(exporter, "phantom_cases", lambda: [case])
    checkpoint, out = tmp_path / "lite.pth", tmp_path / "bad.samrt"
    torch.save(seeded_state("lite_medsam"), checkpoint)
    words = ["export", str(checkpoint), "-o", str(out), "--keep-refused"]
    assert main([*words, "--no-verify"]) == 1
    assert "cannot be left out" in capsys.readouterr().err
    assert main([*words, "--no-cpu-form"]) == 3
    printed = capsys.readouterr()
    assert "bad in fp32 is refused and was kept as asked: " in printed.err.splitlines()[-1]
    assert "equal to the checkpoint" not in printed.out
    bundle = Bundle.open(out, verify="full")
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity["passed"] is False
    figure = bundle.manifest.parity["failures"][0]
    assert "expected" in figure
    with pytest.raises(VerificationError, match=r"bad in fp32 is refused.*allow_refused") as caught:
        samrt.load(out)
    assert figure in str(caught.value)
    with samrt.load(out, allow_refused=True) as engine:
        assert engine.info.verification.override
        embedding = engine.encode(case.image)
        (answer,) = engine.decode(embedding, [case.prompts[0]])
    assert (answer.verification, answer.warnings) == ("refused", embedding.warnings)
    assert "was refused by its verification and is used on request" in answer.warnings[0]


def test_a_refused_cpu_form_is_kept_and_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canonical graphs are good, those in samrt's operators are said not to be."""
    from samrt.backends.operators import library_problem
    from samrt_export import exporter

    problem = library_problem()
    if problem is not None:
        pytest.skip(problem)
    real = exporter.compare

    def compare(truth: Any, candidate: Any, *rest: Any, **more: Any) -> Any:
        record = real(truth, candidate, *rest, **more)
        bad = candidate.info.form_effective == "cpu"
        return replace(record, passed=False, failures=("IoU 0.1",)) if bad else record

    monkeypatch.setattr(exporter, "compare", compare)
    monkeypatch.setattr(exporter, "phantom_cases", lambda: [phantom_case("portrait")])
    state, out = seeded_state("lite_medsam"), tmp_path / "half.samrt"
    samrt_export.export(state, out, keep_refused=True)
    with samrt.load(out) as engine:
        assert engine.info.form_effective == "canonical"
        assert "the CPU form was refused by its verification: IoU 0.1" in engine.info.form_reason
        assert engine.info.verification.state == "passed"
    with pytest.raises(VerificationError, match=r"IoU 0\.1"):
        samrt.load(out, form="cpu")


@pytest.mark.parametrize("option", ["--image-size=512", "--crop-padding=192x256"])
def test_frames_that_a_family_does_not_allow(
    checkpoint: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.samrt"), option]) == 1
    assert "does not allow" in capsys.readouterr().err


def test_frames() -> None:
    sam = family_named("sam")
    assert sam.frame().mode == "native"
    assert sam.frame(crop=(768, 1024)).grid(16) == (48, 64)
    assert sam.frame(crop=(768, 1024)).whole_grid(16) == (64, 64)
    assert sam.frame(image_size=(512, 512)).whole_grid(16) == (32, 32)
    for bad in ({"crop": (768, 768)}, {"crop": (760, 1024)}, {"image_size": (500, 500)}):
        with pytest.raises(ValueError, match=r"crop|multiple"):
            sam.frame(**bad)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_has_rules_that_the_runtime_takes(name: str) -> None:
    from samrt.manifest import parse_manifest

    family = FAMILIES[name]
    frame = family.frame()
    with torch.device("meta"):
        network = family.build(family.variants[0], frame)
    nothing = loading.RawCheckpoint({}, "none", (), "memory", None, None)
    loaded = loading.Loaded(family, family.variants[0], frame, network, nothing, ())
    manifest = loading._rules_only(loaded)
    assert manifest.family == name
    assert parse_manifest(json.loads(json.dumps(loading.plain_document(loaded)))) == manifest


def test_reference_and_bundle_agree_on_a_prompt(checkpoint: Path, bundle: Bundle) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (120, 200, 3), dtype=np.uint8)
    truth = samrt.Predictor(samrt_export.load_reference(checkpoint))
    with samrt.load(bundle.path) as engine:
        for predictor in (truth, engine):
            predictor.set_image(image)
        want, have = (p.predict(box=(20, 15, 150, 100)) for p in (truth, engine))
    assert np.abs(want.logits - have.logits).max() < 1e-3 * np.abs(want.logits).max()
    assert (want.masks != have.masks).mean() < 1e-3
