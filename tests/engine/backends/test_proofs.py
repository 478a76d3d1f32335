"""OpenVINO's int8 is compared before its first use; the record is kept and judged again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import Prompt, VerificationError, admission
from samrt.backends._proofs import KeptProof
from samrt.bundle import write_bundle
from samrt.errors import OutputError
from samrt.phantoms import PHANTOM_NAMES

RECORD = {"passed": True, "mask_iou_mean": 1.0, "mask_iou_worst": 1.0}
BOX = Prompt(box=(4, 4, 60, 40))


# -- where records are kept ------------------------------------------------------------------------


@pytest.fixture
def proof(tmp_path: Path) -> KeptProof:
    return KeptProof("some", {"model": "a", "version": "1"}, "do this", tmp_path)


def test_what_was_stored_is_found_again(proof: KeptProof, tmp_path: Path) -> None:
    assert proof.record() is None
    proof.store(RECORD)
    assert proof.record() == RECORD
    proof.store({**RECORD, "passed": False})
    again = KeptProof("some", {"version": "1", "model": "a"}, "do this", tmp_path)
    assert again.record() == {**RECORD, "passed": False}
    assert again.advice() == "do this"


@pytest.mark.parametrize("about", [{"model": "b", "version": "1"}, {"model": "a", "version": "2"}])
def test_another_model_or_version_has_no_record(
    proof: KeptProof, tmp_path: Path, about: dict[str, str]
) -> None:
    proof.store(RECORD)
    assert KeptProof("some", about, "", tmp_path).record() is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace('"model": "a"', '"model": "z"')),
        lambda path: path.write_text(path.read_text().replace('_version": 1', '_version": 2')),
        lambda path: path.write_text(path.read_text() + " " * 5_000_000),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
    ],
)
def test_a_record_that_cannot_be_trusted_is_none(
    proof: KeptProof, spoil: Callable[[Path], object]
) -> None:
    proof.store(RECORD)
    spoil(proof.path)
    assert proof.record() is None


def test_a_link_is_no_record(proof: KeptProof, tmp_path: Path) -> None:
    proof.store(RECORD)
    elsewhere = tmp_path / "elsewhere.json"
    proof.path.rename(elsewhere)
    proof.path.symlink_to(elsewhere)
    assert proof.record() is None


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        KeptProof("some", {}, "", tmp_path / "file").store(RECORD)


# -- OpenVINO --------------------------------------------------------------------------------------


@pytest.fixture
def int8_path(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle with an encoder called int8 that ONNX Runtime has passed; a cache of its own."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    document = json.loads((bundle_path / "manifest.json").read_text("utf-8"))
    files = {a["file"]: bundle_path / a["file"] for a in document["artifacts"]}
    (encoder,) = [a for a in document["artifacts"] if a["role"] == "encoder"]
    document["artifacts"].append({**encoder, "file": "int8.onnx", "precision": "int8"})
    record = {**RECORD, "precision": "int8", "candidate": {"backend": "onnxruntime"}}
    document["parity"] = {"other_precisions": {"int8": record}}
    files["int8.onnx"] = files[encoder["file"]]
    return write_bundle(tmp_path / "two.samrt", document, files).path


def opened(path: Path, **more: Any) -> samrt.Predictor:
    return samrt.load(path, backend="openvino", precision="int8", threads=1, **more)


@pytest.fixture
def no_comparison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """``no_comparison()``: from now on a comparison is an error."""

    def prove(*_: Any, **__: Any) -> Any:
        raise AssertionError("compared a second time")

    return lambda: monkeypatch.setattr(admission, "prove", prove)


@pytest.fixture
def wrong_integers(int8_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO computes something else in the int8 encoder."""
    from samrt.backends.openvino import _OpenVinoSession

    real = _OpenVinoSession._run

    def run(self: Any, feeds: Any) -> dict[str, NDArray[Any]]:
        found = real(self, feeds)
        if self.about["precision"] == "int8":
            rng = np.random.default_rng(1)
            for name, array in found.items():
                noise = rng.standard_normal(array.shape) * array.std() * 0.5
                found[name] = (array + noise).astype(array.dtype)
        return found

    monkeypatch.setattr(_OpenVinoSession, "_run", run)


def test_int8_is_compared_once(
    int8_path: Path, no_comparison: Callable[[], None], caplog: pytest.LogCaptureFixture, image: Any
) -> None:
    with caplog.at_level(logging.WARNING, "samrt"), opened(int8_path) as engine:
        first = engine.info
        answer = engine.decode(engine.encode(image), BOX)[0]
    assert "comparing the engine of fixture in int8 (openvino" in caplog.text
    assert (first.verification.state, first.warnings) == ("passed", ())
    assert "its fp32 graphs in ONNX Runtime" in first.verification.detail
    assert first.verification.detail.endswith("when run by openvino")
    assert (answer.verification, answer.warnings) == ("passed", ())
    no_comparison()
    with opened(int8_path) as engine:
        assert engine.info.verification == first.verification


def test_the_record_names_all_pictures(int8_path: Path) -> None:
    with opened(int8_path) as engine:
        assert engine.model.proof is not None
        record = engine.model.proof.record()
    assert record is not None
    assert record["image_names"] == list(PHANTOM_NAMES)
    assert record["candidate"]["backend"] == "openvino"


@pytest.mark.usefixtures("wrong_integers")
def test_wrong_integers_are_refused_now_and_later(
    int8_path: Path, no_comparison: Callable[[], None], image: Any
) -> None:
    text = (
        r"the engine of fixture in int8 .openvino .* is refused, .*mean mask IoU 0\.\d+, at least "
        r"0\.98 expected.*backend='onnxruntime'.*allow_refused=True"
    )
    with pytest.raises(VerificationError, match=text):
        opened(int8_path)
    no_comparison()
    with pytest.raises(VerificationError, match=text):
        opened(int8_path)
    with opened(int8_path, allow_refused=True) as engine:
        answer = engine.decode(engine.encode(image), BOX)[0]
    assert answer.verification == "refused"
    assert "is used on request: mean mask IoU 0." in answer.warnings[0]
    with samrt.load(int8_path, backend="onnxruntime", precision="int8", threads=1) as usual:
        assert usual.info.verification.state == "passed"


def test_who_insists_waits_for_no_comparison(
    int8_path: Path, no_comparison: Callable[[], None], image: Any
) -> None:
    no_comparison()
    with opened(int8_path, allow_refused=True) as engine:
        assert engine.info.verification.state == "unverified"
        assert "is not verified" in engine.encode(image).warnings[0]


def test_float32_on_the_cpu_needs_no_record_of_its_own(
    int8_path: Path, no_comparison: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_comparison()
    with samrt.load(int8_path, backend="openvino", precision="fp32", threads=1) as engine:
        assert engine.model.proof is None


def test_other_devices_prove_themselves(int8_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's AUTO stands for a GPU here; what it compiles is compared in float32 too."""
    monkeypatch.setenv("SAMRT_OPENVINO_DEVICE", "AUTO")
    monkeypatch.setenv("SAMRT_VERIFY_SECONDS", "0")
    with samrt.load(int8_path, backend="openvino", precision="fp32", threads=1) as engine:
        assert engine.model.proof is not None
        record = engine.model.proof.record()
        assert engine.info.verification.state == "passed"
    assert record is not None
    assert record["precision"] == "fp32"
    with samrt.load(int8_path, backend="openvino", precision="fp32", threads=1) as engine:
        assert engine.info.verification.state == "passed"  # and its self-test
