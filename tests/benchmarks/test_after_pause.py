"""The table of clicks after a pause, and that nothing is timed where answers differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TIMES = {
    "image free": [40.0] * 9 + [80.0],
    "image placed": [20.0] * 10,
    "box free": [10.0] * 10,
    "box placed": [9.0] * 8 + [30.0] * 2,
}


@pytest.fixture
def after_pause(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("after_pause")


def document() -> dict[str, Any]:
    """Results as they are recorded."""
    return {
        "environment": {"cpu": {"model": "A processor"}, "cpus_usable": 2},
        "commit": "0123456789ab",
        "model": "tiny",
        "runs": 10,
        "rows": [{"pause_s": 0.3, "busy": True, "times_ms": TIMES}],
    }


def test_the_table_has_medians_slow_ones_and_ratios(after_pause: ModuleType) -> None:
    row = after_pause.table(document()).splitlines()[2]
    assert row == (
        "| 0.3 s | one processor | 40.0 (80.0) | 20.0 (20.0) | 0.50 | 10.0 (10.0) | 9.0 (30.0) "
        "| 0.90 |"
    )


def test_recorded_results_are_printed_again(
    after_pause: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document()), encoding="utf-8")
    assert after_pause.main(["--results", str(file)]) == 0
    assert "| 0.50 |" in capsys.readouterr().out


def test_a_run_writes_what_it_prints(
    after_pause: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    assert after_pause.main(["--runs", "2", "--pauses", "0", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [row["busy"] for row in found["rows"]] == [False, True]
    assert all(len(times) == 2 for row in found["rows"] for times in row["times_ms"].values())
    assert capsys.readouterr().out.strip() == after_pause.table(found)


def test_other_masks_stop_it(after_pause: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        masks = np.ones((1, 4, 4), bool)

    class Engine:
        def __init__(self, number: int) -> None:
            self.number = number

        def set_image(self, image: Path) -> None:
            pass

        def predict(self, **prompt: Any) -> Answer:
            answer = Answer()
            answer.masks = np.full((1, 4, 4), self.number % 2 == 0)
            return answer

    engines = iter(Engine(number) for number in range(2))
    monkeypatch.setattr(after_pause.samrt, "load", lambda *args, **options: next(engines))
    with pytest.raises(SystemExit, match="different masks"):
        after_pause.open_both("tiny", None)
