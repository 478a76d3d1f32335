"""`benchmarks/eval_tiny.py`: which cases are left out, and how much a second model may lose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def tool(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("eval_tiny")


def document(difference: float) -> dict[str, Any]:
    runs = [{"config": {"model": {"precision": p}}} for p in ("fp32", "int8")]
    figures = {"mean of sets": {"dice_difference": [difference, None, None, 9]}}
    return {"main_strategy": "S5", "runs": runs, "strategies": {"S5": figures}}


@pytest.mark.parametrize(
    ("difference", "met"), [(-0.0002, True), (0.01, True), (-0.005, True), (-0.0051, False)]
)
def test_a_drop_is_judged(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], difference: float, met: bool
) -> None:
    assert tool.judge(document(difference), 0.005) is met
    said = capsys.readouterr().out
    assert f"int8: S5 loses {-100 * difference:.2f} Dice points, at most 0.5 allowed" in said
    assert ("MISSED" in said) is not met


def test_every_third_training_case_is_held_out(tool: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"set": "btcv_imis", "image": f"btcv_imis/images/ABD_{case:03d}_{cut}.png"}
        for case in range(1, 7)
        for cut in (10, 20)
    ]
    rows.append({"set": "other", "image": "other/ABD_099_10.png"})
    (tmp_path / "index.json").write_text(json.dumps(rows))
    left_out = [f"btcv_imis/images/ABD_{case:03d}_*" for case in (2, 3, 5, 6)]
    assert tool.trained_patterns(tmp_path) == left_out
