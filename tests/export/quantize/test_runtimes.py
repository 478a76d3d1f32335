"""Int8 has to be good enough in each runtime that is asked for, not in the first one alone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samrt.backends import BackendInfo
from samrt.bundle import Bundle
from samrt.errors import BackendUnavailableError, VerificationError
from samrt_export.quantize import QuantizeOptions, options, quantise, quantize, search


def record_of(backend: str, worst: float) -> Any:
    return SimpleNamespace(
        passed=worst >= search.TARGET.mask_iou_worst,
        masks=SimpleNamespace(iou_mean=0.99, iou_worst_judged=worst, worst_case="x"),
        candidate={"backend": backend},
    )


@pytest.fixture
def attempt_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``attempt_with(onnxruntime=0.99, openvino=0.9)``: an attempt with these worst masks."""

    def make(**worst: float) -> Any:
        runs: list[str] = []

        def compare(truth: Any, backend: Any, *_: Any, **__: Any) -> Any:
            runs.append(backend)
            return record_of(backend, worst[backend])

        monkeypatch.setattr(search, "compare", compare)
        monkeypatch.setattr(search, "predictor_of", lambda bundle, backend, sessions: backend)
        monkeypatch.setattr(search.Attempt, "_info", lambda self, backend: backend)
        monkeypatch.setattr(search.Attempt, "_session", lambda *_: io.BytesIO())
        monkeypatch.setattr(search, "replace", lambda info, **_: info)
        trial: Any = SimpleNamespace(bundle=None, exact=lambda role: None)
        attempt: Any = search.Attempt(trial, trial, Path(), backends=tuple(worst))
        return attempt, runs

    return make


@pytest.mark.parametrize(
    ("worst", "decisive", "runs"),
    [
        ({"onnxruntime": 0.99, "openvino": 0.98}, "openvino", ["onnxruntime", "openvino"]),
        ({"onnxruntime": 0.97, "openvino": 0.98}, "onnxruntime", ["onnxruntime", "openvino"]),
        ({"onnxruntime": 0.99, "openvino": 0.90}, "openvino", ["onnxruntime", "openvino"]),
        ({"onnxruntime": 0.90, "openvino": 0.80}, "onnxruntime", ["onnxruntime"]),
        ({"onnxruntime": 0.99}, "onnxruntime", ["onnxruntime"]),
    ],
)
def test_the_first_miss_or_the_worst_decides(
    attempt_with: Callable[..., Any], worst: dict[str, float], decisive: str, runs: list[str]
) -> None:
    attempt, run = attempt_with(**worst)
    found = attempt.record(None, None, [])
    assert found.candidate["backend"] == decisive
    assert found.passed == all(value >= search.TARGET.mask_iou_worst for value in worst.values())
    assert run == runs
    run.clear()
    assert attempt.only("openvino").backends == ("openvino",)


def test_layers_return_by_their_error_where_the_target_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["a", "b", "c"]
    choices: Any = [SimpleNamespace(layer=SimpleNamespace(name=n, key=n)) for n in names]
    asked: list[str] = []

    def record(kept: Any, *_: Any) -> Any:
        return record_of("openvino", 0.9 if "b" in [c.layer.name for c in kept] else 0.99)

    def sensitivities(attempt: Any, *_: Any) -> Any:
        asked.append(attempt)
        return [search.Sensitivity(n, (n,), e) for n, e in (("b", 5.0), ("a", 1.0), ("c", 0.1))]

    monkeypatch.setattr(search, "to_int8", lambda graph, kept: kept)
    monkeypatch.setattr(search, "in_words", lambda record: f"{record.masks.iou_worst_judged}")
    monkeypatch.setattr(search, "_sensitivities", sensitivities)
    attempt: Any = SimpleNamespace(record=record, only=lambda backend: f"only {backend}")
    none: Any = None
    found = search.search(
        attempt, none, choices, none, [], few=1, by_block=False, say=lambda _: None
    )
    assert asked == ["only openvino"]
    assert found.returned == ["b"]
    assert found.rounds == [
        "3 layers in int8: 0.9, in openvino", "2 of 3 layers in int8: 0.99, in openvino",
    ]  # fmt: skip


def test_which_runtimes_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*names: str) -> None:
        rows = [BackendInfo(n, n in names, ()) for n in ("onnxruntime", "openvino", "tensorrt")]
        monkeypatch.setattr(options, "available_backends", lambda: rows)

    here("onnxruntime", "openvino", "tensorrt")
    assert QuantizeOptions().judged_in() == ("onnxruntime", "openvino")
    assert QuantizeOptions(backends=["onnxruntime"]).judged_in() == ("onnxruntime",)
    here("onnxruntime")
    assert QuantizeOptions().judged_in() == ("onnxruntime",)


def test_a_runtime_that_is_not_here_is_not_left_out_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(name: str) -> None:
        if name == "openvino":
            raise BackendUnavailableError("openvino is not installed")

    monkeypatch.setattr(options, "get_backend", lacking)
    with pytest.raises(BackendUnavailableError, match="openvino is not installed"):
        QuantizeOptions(backends=("onnxruntime", "openvino"))


@pytest.mark.usefixtures("few_pictures", "cache")
def test_what_fails_in_the_second_runtime_is_not_written(
    small: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "small.samrt"
    shutil.copytree(small.path, copied)
    before = {p.name: p.read_bytes() for p in copied.iterdir()}
    real, seen = quantise._Quantisation._judge, []

    def judge(self: Any, built: Any, truth: Any, backend: str = "onnxruntime") -> Any:
        seen.append(backend)
        found = real(self, built, truth)  # as if ONNX Runtime were both
        if backend == "onnxruntime":
            return replace(found, passed=True, failures=())
        return replace(found, passed=False, failures=("worst mask IoU 0.9",))

    monkeypatch.setattr(quantise._Quantisation, "_judge", judge)
    monkeypatch.setattr(search, "TARGET", replace(search.TARGET, mask_iou_mean=0, mask_iou_worst=0))
    monkeypatch.setattr(QuantizeOptions, "judged_in", lambda self: ("onnxruntime", "openvino"))
    attempt = search.Attempt
    monkeypatch.setattr(
        quantise, "Attempt", lambda *given, backends: attempt(*given, backends=("onnxruntime",))
    )
    quick = QuantizeOptions(method="max", smoothing=False)
    with pytest.raises(VerificationError, match="in openvino not good enough: worst mask"):
        quantize(copied, folder, options=quick)
    assert seen == ["onnxruntime", "openvino"]
    assert {p.name: p.read_bytes() for p in copied.iterdir()} == before
