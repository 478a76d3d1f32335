"""MobileSAM with random weights answers in OpenVINO as in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import samrt
from samrt.phantoms import phantom_case
from samrt_export import export
from samrt_export.seeded import seeded_state

pytest.importorskip("openvino", reason="the extra openvino is not installed")


@pytest.mark.slow
def test_mobile_sam_gives_the_same_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    bundle = export(seeded_state("mobile_sam"), tmp_path / "mobile.samrt", verify=False)
    case = phantom_case("ct_abdomen")
    answers, features = {}, {}
    for name in ("onnxruntime", "openvino"):
        with samrt.load(bundle.path, backend=name, threads=2) as engine:
            embedding = engine.encode(case.image)
            features[name] = embedding.features["image_embeddings"]
            answers[name] = engine.decode(embedding, case.prompts)
    gap = features["openvino"] - features["onnxruntime"]
    assert float(gap.std()) <= 1e-4 * float(features["onnxruntime"].std())
    for ours, theirs in zip(answers["openvino"], answers["onnxruntime"], strict=True):
        for a, b in zip(ours.masks, theirs.masks, strict=True):
            union = int(np.count_nonzero(a | b))
            assert int(np.count_nonzero(a & b)) >= 0.999 * union
            assert union > 0, "an empty mask proves nothing"
