"""`benchmarks/int8_encoder.py`: engines take turns in processes of their own, or are not timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from samrt.bundle import find_model
from samrt.errors import VerificationError


@pytest.fixture
def tool(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("int8_encoder")


def test_two_processes_take_turns(tool: ModuleType) -> None:
    """The shipped model stands for both: no time is spent on quantising it."""
    found = tool.in_turns(find_model("tiny"), 1, 3, 1, {"fp32": "fp32", "int8": "fp32"})
    assert list(found) == ["fp32", "int8"]
    for row in found.values():
        assert row["verification"] == "passed"
        assert row["form"] == "cpu"
        assert len(row["wall_ms"]) == len(row["processor_ms"]) == 3
        assert row["wall_min_ms"] == pytest.approx(min(row["wall_ms"]), abs=1e-3)
        assert row["wall_min_ms"] <= row["wall_median_ms"]
        assert row["peak_mb"] > 50.0
    assert json.loads(json.dumps(found)) == found


def test_what_is_not_proven_is_not_timed(tool: ModuleType, edit_bundle: Any) -> None:
    with pytest.raises(tool.StepError, match="fp32 is unverified, not passed"):
        tool.in_turns(edit_bundle({"parity": None}), 1, 3, 1, {"fp32": "fp32"})
    with pytest.raises(tool.StepError, match="int8"):
        tool.in_turns(find_model("tiny"), 1, 3, 1)


def test_slow_encoders_run_less_often(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "HEAVY_MS", 0.0)
    found = tool.in_turns(find_model("tiny"), 1, 9, 2, {"fp32": "fp32"})
    assert len(found["fp32"]["wall_ms"]) == 2


@pytest.fixture
def arguments(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(threads=1, runs=2, heavy_runs=1, images=tmp_path)


def test_a_refusal_is_listed_without_a_time(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: SimpleNamespace
) -> None:
    pytest.importorskip("onnx", reason="ONNX is not installed (extra export)")
    from samrt_export import quantize as package

    def refuse(*_: Any, **__: Any) -> None:
        raise VerificationError("worst mask IoU 0.5; nothing was written")

    monkeypatch.setattr(package, "quantize", refuse)
    facts = tool.make("tiny", tmp_path / "tiny.samrt", tmp_path)
    assert facts["refused"].startswith("worst mask IoU 0.5")
    (tmp_path / "tiny.json").write_text(json.dumps(facts))
    row = tool.measure("tiny", arguments, tmp_path)
    assert row["refused"] == facts["refused"]
    assert "fp32" not in row
    assert "refused: worst mask IoU 0.5" in tool.line("tiny", row)


def test_a_row_and_its_table(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                             arguments: SimpleNamespace) -> None:  # fmt: skip
    (tmp_path / "sam_vit_b.json").write_text('{"commit": "abc"}')
    bundle = tmp_path / "sam_vit_b.samrt"
    bundle.mkdir()
    form = {"nodes": ["a", "b"], "excluded": ["c"]}
    (bundle / "manifest.json").write_text(json.dumps({"calibration": {"int8": {"cpu_form": form}}}))
    one = {"peak_mb": 300.0, "form": "cpu", "mask_iou_mean": 0.99, "mask_iou_worst": 0.95}
    samples = [{"wall_ms": t, "processor_ms": 2 * t, "others": 0.2} for t in (9.0, 8.0, 10.0)]
    fast = [{**s, "wall_ms": s["wall_ms"] / 2, "processor_ms": 4.0} for s in samples]
    found = {"fp32": {**one, **tool.summary(samples)}, "int8": {**one, **tool.summary(fast)}}
    monkeypatch.setattr(tool, "in_turns", lambda *_: found)
    row = tool.measure("sam:vit_b", arguments, tmp_path)
    assert row["cpu_form_nodes"] == {"nodes": 2, "excluded": 1}
    assert row["bundle"] == {"commit": "abc"}
    assert row["wall_ratio"] == 0.5
    assert row["processor_ratio"] == 0.25
    assert row["int8"]["others"] == pytest.approx(0.2)
    assert tool.line("sam:vit_b", row) == (
        "| SAM ViT-B \\* | 8 (9) | 4 (4) | 0.50 | 0.25 | 300 / 300 | cpu | 0.9900, 0.9500 |"
    )
    assert tool.table({}) == "Not measured: run `make bench-int8`."
