"""Bundles of schema version 1 stay readable: this one is kept as it was, for ever."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import samrt
from samrt.bundle import Bundle

FILES = {
    "decoder.onnx": "e0c85773301ad44040eef672c364915e9808fd731c2ed76ac760109d0aabc62f",
    "encoder.onnx": "ebf1c33e5f95389620d41c1e3ec151e2b83c4ecc2035a77ee49ecbae469a5a55",
    "manifest.json": "c266be44c4929e38ece030fe9e6c8acb9147a1f0b89a43d8fc71f11f9f1ac0e6",
}


def test_the_fixture_is_untouched(bundle_path: Path) -> None:
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle_path.iterdir()}
    assert found == FILES


def test_it_opens_and_answers_as_on_the_day_it_was_made(bundle_path: Path) -> None:
    assert Bundle.open(bundle_path, verify="full").manifest.schema_version == 1
    ys, xs = np.mgrid[:48, :80]
    image = np.stack([xs * 3, ys * 5, xs + ys], -1).astype(np.uint8)
    with samrt.load(bundle_path, threads=1) as predictor:
        predictor.set_image(image)
        pred = predictor.predict([[30, 20]], [1], box=(20, 10, 60, 40))
    assert pred.areas_px == pytest.approx([344, 1144, 2262], abs=4)
    np.testing.assert_allclose(pred.scores, [0.837574, 0.816845, 0.016964], atol=1e-4)


def test_its_script_makes_it_again(bundle_path: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    spec = importlib.util.spec_from_file_location(
        "make_bundle_v1", bundle_path.parent / "make_bundle_v1.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = sys.argv
    try:
        sys.argv = ["make_bundle_v1.py", str(tmp_path)]
        script.main()
    finally:
        sys.argv = arguments
    for name in ("encoder.onnx", "decoder.onnx"):
        new, old = (
            onnx.load(folder / name) for folder in (tmp_path / "bundle_v1.samrt", bundle_path)
        )
        assert list(new.graph.node) == list(old.graph.node)
        assert list(new.graph.initializer) == list(old.graph.initializer)
