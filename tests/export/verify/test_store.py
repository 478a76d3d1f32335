"""Records in manifests: complete or not at all, and never of another model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samrt
from samrt.bundle import Bundle
from samrt.errors import BundleError, OutputError
from samrt.phantoms import phantom_case
from samrt.selfcheck import check_model

pytest.importorskip("cv2")
from samrt_export.verify import VerificationRecord, compare, parity_with, store_record

FILES = {"decoder.onnx", "encoder.onnx", "manifest.json"}


@pytest.fixture
def record(predictor: samrt.Predictor) -> VerificationRecord:
    return compare(predictor, predictor, [phantom_case("portrait")])


def test_a_record_is_stored_and_nothing_else_changes(
    edit_bundle: Callable[..., Path], record: VerificationRecord
) -> None:
    path = edit_bundle()
    before = json.loads((path / "manifest.json").read_text())
    bundle = store_record(path, record)
    after = json.loads((path / "manifest.json").read_text())
    assert after.pop("parity") == json.loads(json.dumps(record.as_dict()))
    assert before.pop("parity") is None
    assert after == before
    assert bundle.model_id == record.candidate["model_id"]
    assert sorted(p.name for p in path.iterdir()) == [
        "decoder.onnx",
        "encoder.onnx",
        "manifest.json",
    ]
    with samrt.load(path, threads=1) as predictor:
        checks = check_model(predictor, [phantom_case("portrait")])
    assert "as verified on portrait" in [check.name for check in checks]
    assert all(check.passed for check in checks)
    again = store_record(path, record)
    assert again.manifest.parity == bundle.manifest.parity


def test_precisions_keep_their_own_records() -> None:
    def entry(precision: str, value: float) -> dict[str, Any]:
        return {"precision": precision, "mask_iou_mean": value}

    parity = parity_with(None, entry("int8", 0.98), "fp32")
    parity = parity_with(parity, entry("fp32", 1.0), "fp32")
    parity = parity_with(parity, entry("fp16", 0.99), "fp32")
    parity = parity_with(parity, entry("int8", 0.97), "fp32")
    assert parity == {
        **entry("fp32", 1.0),
        "other_precisions": {"int8": entry("int8", 0.97), "fp16": entry("fp16", 0.99)},
    }


def test_a_record_of_another_model_is_refused(
    edit_bundle: Callable[..., Path], record: VerificationRecord
) -> None:
    path = edit_bundle({"output.threshold": 0.5})
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="this record is of fixture@"):
        store_record(path, record)
    with pytest.raises(BundleError, match="no precision 'int8'"):
        store_record(edit_bundle({}, "b"), dataclasses.replace(record, precision="int8"))
    assert (path / "manifest.json").read_bytes() == before


def test_a_failed_write_leaves_the_old_manifest(
    edit_bundle: Callable[..., Path], record: VerificationRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edit_bundle()
    before = (path / "manifest.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        store_record(path, record)
    assert (path / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in path.iterdir()) == [
        "decoder.onnx",
        "encoder.onnx",
        "manifest.json",
    ]
    assert Bundle.open(path).manifest.parity is None
