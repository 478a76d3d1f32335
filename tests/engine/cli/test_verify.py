"""``samrt verify``: files, a run on built-in pictures, and the comparison with a checkpoint."""

from __future__ import annotations

import argparse
import builtins
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.backends.base import SessionOptions
from samrt.bundle import Bundle, write_bundle
from samrt.cli import verify
from samrt.model import Model, open_model
from samrt.prompts import DecoderInput

Verify = Callable[..., Any]


class Shifted(Model):
    """A reference whose logits differ by a constant."""

    shift = 0.0

    def run_decoder(
        self, features: Mapping[str, NDArray[np.float32]], prompts: DecoderInput
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, scores = super().run_decoder(features, prompts)
        return logits + np.float32(self.shift), scores


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> dict[str, Any]:
    """A reference in place of the exporter's; holds its ``shift`` and what it was asked for."""
    notes: dict[str, Any] = {"shift": 0.0}

    def reference(checkpoint: str, manifest: Any, args: argparse.Namespace) -> Model:
        notes.update(checkpoint=checkpoint, family=args.family or manifest.family)
        options = SessionOptions(threads=1)
        model = open_model(bundle_path, backend="auto", precision="auto", options=options)
        model.__class__ = Shifted
        model.shift = notes["shift"]  # type: ignore[attr-defined]
        return model

    monkeypatch.setattr(verify, "load_reference", reference)
    return notes


def test_a_sound_bundle(samrt_command: Verify, bundle_path: Path) -> None:
    good = samrt_command("verify", bundle_path)
    assert (good.code, good.err) == (0, "")
    assert "run on overview" in good.out
    assert "same result twice" in good.out
    assert "is intact and runs: fixture@" in good.out
    document = json.loads(samrt_command("verify", bundle_path, "--json").out)
    assert (document["passed"], document["problems"], document["comparison"]) == (True, [], None)
    assert document["engine"]["backend"] == "onnxruntime"
    assert document["engine"]["precision"] == "fp32"
    assert {"schema", "sha256 of encoder.onnx", "run on ct_abdomen"} <= {
        check["name"] for check in document["checks"]
    }


def test_files_only_runs_nothing(
    samrt_command: Verify, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samrt.predictor.load", None)
    good = samrt_command("verify", bundle_path, "--files-only")
    assert (good.code, good.err) == (0, "")
    assert "is intact: fixture@" in good.out
    document = json.loads(samrt_command("verify", bundle_path, "--files-only", "--json").out)
    assert document["engine"] is None


def test_a_damaged_file(samrt_command: Verify, edit_bundle: Callable[..., Path]) -> None:
    damaged = edit_bundle({}, "damaged")
    content = (damaged / "decoder.onnx").read_bytes()
    (damaged / "decoder.onnx").write_bytes(content[:-1] + b"\0")
    bad = samrt_command("verify", damaged)
    assert bad.code == 3
    assert len(bad.err.splitlines()) == 1
    assert bad.err.startswith("samrt: verification failed: intact: ")
    document = json.loads(samrt_command("verify", damaged, "--json").out)
    assert (document["passed"], document["checks"][0]["passed"]) == (False, False)
    assert document["engine"] is None
    assert samrt_command("verify", "nobody").error


def test_a_bundle_that_no_longer_computes_what_was_recorded(
    samrt_command: Verify, edit_bundle: Callable[..., Path]
) -> None:
    entry = {"embedding": [0.0] * 16, "answers": []}
    parity = {"precision": "fp32", "expected": {"portrait": entry}}
    bad = samrt_command("verify", edit_bundle({"parity": parity}))
    assert bad.code == 3
    assert "FAILED" in bad.out
    assert "as verified on portrait" in bad.err


def test_precision_and_backend_are_passed_on(samrt_command: Verify, bundle_path: Path) -> None:
    assert (
        "no precision 'int8'" in samrt_command("verify", bundle_path, "--precision", "int8").error
    )
    assert "nonsense" in samrt_command("verify", bundle_path, "--backend", "nonsense").error


@pytest.mark.parametrize("option", [["--images", "x"], ["--record"], ["--base", "x"]])
def test_options_of_the_comparison_need_one(
    samrt_command: Verify, bundle_path: Path, option: list[str]
) -> None:
    assert "only with --against" in samrt_command("verify", bundle_path, *option).error


def test_files_only_and_a_comparison_exclude_each_other(
    samrt_command: Verify, bundle_path: Path
) -> None:
    words = ("verify", bundle_path, "--files-only", "--against", "x.pth")
    assert "leave one out" in samrt_command(*words).error


def test_an_equal_checkpoint(
    samrt_command: Verify, bundle_path: Path, asked: dict[str, Any]
) -> None:
    pytest.importorskip("cv2")
    good = samrt_command("verify", bundle_path, "--against", "sam.pth", "--family", "medsam")
    assert (good.code, good.err) == (0, "")
    assert (asked["checkpoint"], asked["family"]) == ("sam.pth", "medsam")
    for words in ("embedding", "low-res logits", "predicted IoU", "HD95", "Dice", "0.999, 0.99"):
        assert words in good.out
    assert "is intact, runs and equals its checkpoint: fixture@" in good.out
    assert "run on overview" not in good.out
    assert "120 masks, 120 of them neither empty nor full" in good.out


def test_another_checkpoint(
    samrt_command: Verify, bundle_path: Path, asked: dict[str, Any]
) -> None:
    pytest.importorskip("cv2")
    asked["shift"] = 0.4
    bad = samrt_command("verify", bundle_path, "--against", "sam.pth")
    assert bad.code == 3
    assert len(bad.err.splitlines()) == 1
    assert bad.err.startswith("samrt: verification failed: mean mask IoU 0.")
    document = json.loads(samrt_command("verify", bundle_path, "--against", "s", "--json").out)
    assert document["passed"] is False
    assert document["comparison"]["passed"] is False
    assert document["comparison"]["masks"]["iou_worst"] < 0.99
    assert document["comparison"]["outputs"]["low_res_masks"]["max_abs"] == pytest.approx(
        0.4, rel=1e-4
    )


def test_pictures_of_the_user(
    samrt_command: Verify, bundle_path: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("cv2")
    folder = tmp_path / "scans"
    folder.mkdir()
    canvas = np.zeros((60, 90), np.uint8)
    canvas[10:30, 20:70] = 200
    Image.fromarray(canvas).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"damaged")
    words = ("verify", bundle_path, "--against", "sam.pth", "--images", folder)
    good = samrt_command(*words)
    assert good.code == 0
    assert "b.png was left out" in good.err
    document = json.loads(samrt_command(*words, "--json").out)
    (name,) = document["image_files"]
    assert name in document["comparison"]["image_names"]
    assert document["image_files"][name] == str(folder / "a.png")
    assert list(document["skipped_files"]) == [str(folder / "b.png")]
    assert "is not a folder" in samrt_command(*words[:-1], folder / "none").error


def test_recording(
    samrt_command: Verify, edit_bundle: Callable[..., Path], asked: dict[str, Any]
) -> None:
    pytest.importorskip("cv2")
    path = edit_bundle()
    before = (path / "manifest.json").read_bytes()
    assert samrt_command("verify", path, "--against", "sam.pth").code == 0
    assert (path / "manifest.json").read_bytes() == before
    assert samrt_command("verify", path, "--against", "sam.pth", "--record").code == 0
    parity = Bundle.open(path).manifest.parity
    assert parity is not None
    assert (parity["passed"], parity["images"]) == (True, 5)
    again = samrt_command("verify", path)
    assert again.code == 0
    assert again.out.count("agrees with the record") == 5


def test_without_the_export_extra_it_says_what_to_install(
    samrt_command: Verify, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("samrt_export"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    error = samrt_command("verify", bundle_path, "--against", "sam.pth").error
    assert "needs torch, which is not installed: pip install 'samrt[export]'" in error


def test_the_frame_of_the_bundle_reaches_the_exporter(
    edit_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = pytest.importorskip("samrt_export.exporter")
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(exporter, "load_reference", lambda path, **opts: calls.append(opts))
    args = argparse.Namespace(family=None, base="base.pth", threads=2)
    source = json.loads((edit_bundle() / "manifest.json").read_text())["source"]
    for mode in ("native", "interpolate", "crop"):
        path = edit_bundle({"source": {**source, "frame": {"mode": mode}}}, mode)
        verify.load_reference("sam.pth", Bundle.open(path).manifest, args)
    frames = [(call["image_size"], call["crop_padding"]) for call in calls]
    assert frames == [(None, None), ((64, 64), None), (None, (64, 64))]
    assert calls[0]["family"] == "fixture"
    assert (calls[0]["base"], calls[0]["threads"]) == ("base.pth", 2)


# -- against the bundle's own FP32 graphs ----------------------------------------------------------


@pytest.fixture
def halves(bundle_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """``halves(change)``: the bundle with an int8 encoder, which is the other one changed."""
    onnx = pytest.importorskip("onnx")

    def make(factor: float = 1.0) -> Path:
        document = json.loads((bundle_path / "manifest.json").read_text("utf-8"))
        files: dict[str, Any] = {a["file"]: bundle_path / a["file"] for a in document["artifacts"]}
        (encoder,) = [a for a in document["artifacts"] if a["role"] == "encoder"]
        model = onnx.load(str(bundle_path / encoder["file"]))
        weight = next(w for w in model.graph.initializer if len(w.dims) >= 2)
        weight.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * factor, weight.name)
        )
        files["int8.onnx"] = model.SerializeToString()
        document["artifacts"].append({**encoder, "file": "int8.onnx", "precision": "int8"})
        return write_bundle(tmp_path / "two.samrt", document, files).path

    return make


def test_another_precision_against_fp32(samrt_command: Verify, halves: Callable[..., Path]) -> None:
    words = ("--precision", "int8", "--against", "fp32")
    good = samrt_command("verify", halves(), *words)
    assert (good.code, good.err) == (0, "")
    assert "compared with its fp32 graphs in ONNX Runtime" in good.out
    assert "is intact, runs and equals its FP32 graphs: fixture@" in good.out
    no = samrt_command("verify", halves_path(good.out), *words, "--record").error
    assert "--record with --against fp32 is for engines" in no


def halves_path(out: str) -> str:
    return out.splitlines()[-1].split(" is intact")[0].removeprefix("samrt: ")


def test_a_wrong_precision_names_the_node(
    samrt_command: Verify, halves: Callable[..., Path]
) -> None:
    pytest.importorskip("cv2")
    path = halves(1000.0)
    bad = samrt_command("verify", path, "--precision", "int8", "--against", "fp32")
    assert bad.code == 3
    assert "the error grows from 0.0e+00 to " in bad.out
    assert " in the encoder, at node " in bad.out
    words = ("--precision", "int8", "--against", "fp32", "--json")
    document = json.loads(samrt_command("verify", path, *words).out)
    assert document["where"].startswith("the error grows from ")
    assert document["comparison"]["first_wrong"].startswith("first far off is the encoder's")


def test_options_of_a_checkpoint_are_refused(samrt_command: Verify, bundle_path: Path) -> None:
    error = samrt_command("verify", bundle_path, "--against", "fp32", "--family", "sam").error
    assert "--base and --family describe a checkpoint" in error


def test_a_refused_bundle_is_looked_at_and_fails(
    samrt_command: Verify, edit_bundle: Callable[..., Path]
) -> None:
    parity = {"precision": "fp32", "passed": False, "failures": ["mean mask IoU 0.5"]}
    bad = samrt_command("verify", edit_bundle({"parity": parity}))
    assert bad.code == 3
    assert "verification failed: gate: refused: mean mask IoU 0.5" in bad.err
    assert "run on overview" in bad.out
