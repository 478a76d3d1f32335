"""Which records pass, which are refused, which say nothing; and what a refused model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samrt
from samrt import OptionError, Prompt, VerificationError
from samrt.bundle import Bundle, write_bundle
from samrt.gate import (
    THRESHOLDS,
    Verdict,
    admit,
    graph_verdict,
    judge_record,
    parity_record,
    remark,
)
from samrt.manifest import parse_manifest

GOOD = {"passed": True, "against": "the truth", "mask_iou_mean": 0.9995, "mask_iou_worst": 0.995}
BOX = Prompt(box=(4, 4, 60, 40))


def test_the_thresholds_are_those_promised() -> None:
    limits = {name: (t.mask_iou_mean, t.mask_iou_worst) for name, t in THRESHOLDS.items()}
    assert limits == {
        "fp32": (0.999, 0.99), "fp16": (0.998, 0.99), "int8": (0.98, 0.93),
        "int8-weights": (0.98, 0.93),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "mean", "worst", "state"),
    [
        ("fp32", 0.999, 0.99, "passed"), ("fp32", 0.9989, 1.0, "refused"),
        ("fp16", 0.998, 0.99, "passed"), ("fp16", 0.9979, 0.99, "refused"),
        ("fp16", 0.998, 0.9899, "refused"), ("int8", 0.98, 0.93, "passed"),
        ("int8", 0.9799, 1.0, "refused"), ("int8", 1.0, 0.9299, "refused"),
        ("int8", float("nan"), 1.0, "refused"),
    ],
)  # fmt: skip
def test_the_limits_themselves_pass(precision: str, mean: float, worst: float, state: str) -> None:
    record = {**GOOD, "mask_iou_mean": mean, "mask_iou_worst": worst}
    verdict = judge_record(record, precision)
    assert verdict.state == state
    if state == "passed":
        assert (verdict.detail, verdict.mask_iou_mean) == ("compared with the truth", mean)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"passed": False, "failures": ["a", "b", "c", "d"]}, "a; b; c"),
        ({"passed": False, "failures": ["a"], "first_wrong": "the decoder"}, "a; the decoder"),
        ({"passed": "yes"}, "its verification failed"),
        ({"passed": None}, "its verification failed"),
        ({"masks": {"iou_worst_judged": 0.5}}, "worst mask IoU 0.500000, at least 0.99 expected"),
        ({"masks": {"iou_mean_informative": 0.5}}, "mean IoU of informative masks 0.500000, at l"),
        ({"outputs": {"image_embeddings": {"rms_rel_worst": 0.1}}}, "embedding differs by 1.00e-"),
    ],
)
def test_refusals(change: dict[str, Any], text: str) -> None:
    verdict = judge_record({**GOOD, **change}, "fp32")
    assert verdict.state == "refused"
    assert verdict.detail.startswith(text)


def test_masks_that_differ_by_pixels_are_excused_as_when_they_were_compared() -> None:
    record = {**GOOD, "mask_iou_worst": 0.5, "masks": {"iou_worst_judged": 0.995}}
    assert judge_record(record, "fp32").state == "passed"


@pytest.mark.parametrize("record", [None, [], "passed", {}, {"passed": True}, {"mask_iou_mean": 1}])
def test_what_says_nothing(record: object) -> None:
    assert judge_record(record, "fp32").state == "unverified"


def test_a_verdict_says_which_runtime_was_looked_at() -> None:
    record = {**GOOD, "candidate": {"backend": "onnxruntime"}}
    verdict = judge_record(record, "fp32")
    assert verdict.detail == "compared with the truth, when run by onnxruntime"


def test_a_record_about_other_files_says_nothing() -> None:
    record = {**GOOD, "candidate": {"files": {"encoder": "a", "decoder": "b"}}}
    same, other = {"encoder": "a", "decoder": "b"}, {"encoder": "a", "decoder": "c"}
    assert judge_record(record, "fp32", files=same).state == "passed"
    assert judge_record(record, "fp32", files=other).detail == "its record is about other files"
    assert judge_record({**record, "passed": False}, "fp32", files=other).state == "unverified"


def test_unknown_precisions() -> None:
    with pytest.raises(OptionError, match="no thresholds for precision 'int4': choose one of fp32"):
        judge_record(GOOD, "int4")


def test_records_of_a_manifest(manifest_doc: dict[str, Any]) -> None:
    def found(parity: object, precision: str) -> Any:
        return parity_record(parse_manifest({**manifest_doc, "parity": parity}), precision)

    half = {"precision": "fp16", "mask_iou_mean": 0.999}
    assert found(None, "fp32") is None
    assert found({"mask_iou_mean": 1.0}, "fp32") == {"mask_iou_mean": 1.0}  # an older form
    assert found({"mask_iou_mean": 1.0}, "fp16") is None
    assert found({"other_precisions": {"fp16": half}}, "fp16") == half
    assert found({"other_precisions": {"fp16": half}}, "fp32") is None
    assert found({"other_precisions": {"fp16": "good"}}, "fp16") is None


def test_only_refusals_are_held_up() -> None:
    def ask(state: Any, *, insist: bool = False) -> Verdict:
        return admit(Verdict(state, "why"), "it", allow_refused=insist, advice="do this")

    assert not ask("passed", insist=True).override
    assert not ask("unverified").override
    with pytest.raises(VerificationError, match=r"it is refused, .*: why; do this, or use it all"):
        ask("refused")
    insisted = ask("refused", insist=True)
    assert insisted == Verdict("refused", "why", override=True)
    assert remark(insisted, "it", "fp32") == (
        "it was refused by its verification and is used on request: why"
    )
    assert remark(Verdict("unverified", "why"), "it", "fp32") is None
    assert remark(Verdict("unverified", "why"), "it", "int8") == "it is not verified: why"
    assert remark(Verdict("passed", ""), "it", "int8") is None


# -- bundles ---------------------------------------------------------------------------------------


@pytest.fixture
def two_precisions(bundle_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """``two_precisions(record)``: the bundle with an encoder called int8 and its record."""

    def make(record: dict[str, Any] | None) -> Path:
        document = json.loads((bundle_path / "manifest.json").read_text("utf-8"))
        files = {a["file"]: bundle_path / a["file"] for a in document["artifacts"]}
        (encoder,) = [a for a in document["artifacts"] if a["role"] == "encoder"]
        document["artifacts"].append({**encoder, "file": "int8.onnx", "precision": "int8"})
        document["parity"] = {"other_precisions": {"int8": record}} if record else None
        files["int8.onnx"] = files[encoder["file"]]
        return write_bundle(tmp_path / "two.samrt", document, files).path

    return make


REFUSED = {"precision": "int8", "passed": False, "failures": ["mean mask IoU 0.41"]}


def test_a_refused_precision_is_not_opened(two_precisions: Callable[..., Path]) -> None:
    path = two_precisions(REFUSED)
    with pytest.raises(
        VerificationError, match=r"fixture in int8 is refused, .*mean mask IoU 0.41"
    ):
        samrt.load(path, precision="int8", threads=1)
    with samrt.load(path, threads=1) as engine:  # the other one is not touched by it
        assert engine.info.verification.state == "unverified"
        assert engine.info.warnings == ()


def test_the_override_is_in_every_result(two_precisions: Callable[..., Path], image: Any) -> None:
    path = two_precisions(REFUSED)
    with samrt.load(path, precision="int8", threads=1, allow_refused=True) as engine:
        assert engine.info.verification.override
        embedding = engine.encode(image)
        (answer,) = engine.decode(embedding, [BOX])
        assert answer.verification == "refused"
        text = (
            "fixture in int8 was refused by its verification and is used on request: "
            "mean mask IoU 0.41"
        )
        assert embedding.warnings == answer.warnings == (text,)
        assert engine.info.as_dict()["verification"]["state"] == "refused"


def test_a_precision_without_a_record_says_so(
    two_precisions: Callable[..., Path], image: Any
) -> None:
    with samrt.load(two_precisions(None), precision="int8", threads=1) as engine:
        answer = engine.decode(engine.encode(image), BOX)[0]
    assert answer.verification == "unverified"
    assert answer.warnings == (
        "fixture in int8 is not verified: it has not been compared with the FP32 model",
    )


def test_int8_is_judged_for_the_runtime_it_was_compared_in(
    two_precisions: Callable[..., Path],
) -> None:
    good = {"precision": "int8", "passed": True, "mask_iou_mean": 0.99, "mask_iou_worst": 0.95}
    record = {**good, "candidate": {"backend": "onnxruntime"}}
    bundle = Bundle.open(two_precisions(record))
    chosen = {role: bundle.artifact(role, "int8") for role in ("encoder", "decoder")}
    assert graph_verdict(bundle.manifest, chosen, "onnxruntime").state == "passed"
    assert graph_verdict(bundle.manifest, chosen).state == "passed"
    other = graph_verdict(bundle.manifest, chosen, "openvino")
    assert other.state == "unverified"
    assert other.detail == (
        "its int8 arithmetic was compared when run by onnxruntime, not by openvino"
    )
    with samrt.load(bundle.path, backend="onnxruntime", precision="int8", threads=1) as engine:
        assert engine.info.verification.state == "passed"


def test_the_shipped_model_has_passed() -> None:
    with samrt.load("tiny", threads=1) as engine:
        assert engine.info.verification.state == "passed"
        assert engine.info.verification.mask_iou_worst is not None
        assert engine.info.warnings == ()
