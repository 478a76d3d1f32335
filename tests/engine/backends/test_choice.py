"""What ``backend="auto"`` takes: the rule, and a measurement that was kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samrt
from samrt import OptionError, backends
from samrt.backends import BackendRow, register_backend
from samrt.backends.choice import choose_backend, remember_times
from samrt.bundle import Bundle


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(autouse=True)
def second(monkeypatch: pytest.MonkeyPatch) -> str:
    """A second backend that is always there: ONNX Runtime under another name."""
    monkeypatch.setattr(backends, "_ROWS", dict(backends._ROWS))
    row = BackendRow("second", "samrt.backends.onnxruntime:OnnxRuntimeBackend", ("numpy",))
    register_backend(row)
    return row.name


def test_without_a_measurement_the_first_one_is_taken(bundle: Bundle, bundle_path: Path) -> None:
    choice = choose_backend(bundle, "fp32", 1)
    assert choice.backend == "onnxruntime"
    assert choice.reason == "the first one that is installed"
    with samrt.load(bundle_path, threads=1) as engine:
        assert engine.info.backend_reason == choice.reason
    with samrt.load(bundle_path, threads=1, backend="onnxruntime") as engine:
        assert engine.info.backend_reason == "asked for"


def test_the_fastest_of_a_measurement_is_taken_and_said(bundle: Bundle, bundle_path: Path) -> None:
    remember_times(bundle, "fp32", 1, {"onnxruntime": 10.0, "second": 8.0})
    choice = choose_backend(bundle, "fp32", 1)
    assert choice.backend == "second"
    assert choice.reason == "measured here: second 8 ms, onnxruntime 10 ms"
    with samrt.load(bundle_path, threads=1) as engine:
        assert engine.info.backend_requested == "auto"
        assert engine.info.backend_reason == choice.reason
    remember_times(bundle, "fp32", 1, {"onnxruntime": 7.0, "second": 8.0})
    assert choose_backend(bundle, "fp32", 1).backend == "onnxruntime"


def test_a_small_difference_changes_nothing(bundle: Bundle) -> None:
    remember_times(bundle, "fp32", 1, {"onnxruntime": 10.0, "second": 9.6})
    choice = choose_backend(bundle, "fp32", 1)
    assert choice.backend == "onnxruntime"
    assert "less than 5 % apart" in choice.reason


def test_it_counts_only_where_it_was_measured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_times(bundle, "fp32", 1, {"onnxruntime": 10.0, "second": 1.0})
    assert choose_backend(bundle, "fp32", 1).backend == "second"
    assert choose_backend(bundle, "fp32", 2).backend == "onnxruntime"
    assert choose_backend(bundle, "fp16", 1).backend == "onnxruntime"
    monkeypatch.setattr("samrt.environment.cpu_info", lambda: {"model": "other", "flags": []})
    assert choose_backend(bundle, "fp32", 1).backend == "onnxruntime"


def test_a_backend_that_has_gone_is_not_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"onnxruntime": 10.0, "second": 5.0, "gone": 1.0}
    remember_times(bundle, "fp32", 1, times)
    assert choose_backend(bundle, "fp32", 1).backend == "second"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: "",
        lambda d: "[" * 100_000,
        lambda d: "[]",
        lambda d: json.dumps({**d, "choice_version": 2}),
        lambda d: json.dumps({**d, "times_ms": {"onnxruntime": "x", "second": 1}}),
        lambda d: json.dumps({**d, "times_ms": {"onnxruntime": 5, "second": -1}}),
        lambda d: json.dumps({**d, "key": {}}),
        lambda d: " " * 100_000 + json.dumps(d),
    ],
)
def test_a_spoiled_file_is_no_measurement(
    bundle: Bundle, spoil: Callable[[dict[str, Any]], str]
) -> None:
    path = remember_times(bundle, "fp32", 1, {"onnxruntime": 10.0, "second": 1.0})
    path.write_text(spoil(json.loads(path.read_text("utf-8"))), "utf-8")
    assert choose_backend(bundle, "fp32", 1).backend == "onnxruntime"


@pytest.mark.parametrize("times", [{}, {"onnxruntime": 1.0}, {"onnxruntime": 1.0, "second": 0.0}])
def test_half_a_measurement_is_refused(bundle: Bundle, times: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="at least two backends"):
        remember_times(bundle, "fp32", 1, times)
