"""What the check of a model on the built-in pictures notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samrt
from samrt.backends.base import Session
from samrt.errors import BackendError
from samrt.manifest import PromptSpec
from samrt.phantoms import PhantomCase, phantom_case
from samrt.selfcheck import (
    Check,
    check_model,
    far_off,
    figures_of,
    quick_check,
    supported_prompts,
)
from samrt.types import Prompt


@pytest.fixture
def cases() -> list[PhantomCase]:
    return [phantom_case("portrait"), phantom_case("microscopy")]


class Tampered:
    """A session whose results are changed on their way out."""

    def __init__(self, session: Session, change: Callable[[dict[str, Any]], Any]) -> None:
        self._session, self._change = session, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feeds: Any) -> Any:
        return self._change(dict(self._session.run(feeds)))


def tamper(predictor: samrt.Predictor, role: str, change: Callable[[dict[str, Any]], Any]) -> None:
    model: Any = predictor._model
    setattr(model, f"_{role}", Tampered(getattr(model, f"_{role}"), change))


def record_of(predictor: samrt.Predictor, cases: list[PhantomCase]) -> dict[str, Any]:
    expected = {}
    for case in cases:
        embedding = predictor.encode(case.image)
        expected[case.name] = figures_of(embedding, predictor.decode(embedding, list(case.prompts)))
    return {"precision": "fp32", "expected": expected}


def failed(predictor: samrt.Predictor, cases: list[PhantomCase]) -> list[str]:
    return [check.name for check in check_model(predictor, cases) if not check.passed]


def test_a_sound_model_passes(predictor: samrt.Predictor, cases: list[PhantomCase]) -> None:
    said: list[str] = []
    checks = check_model(predictor, cases, progress=said.append)
    assert [check.name for check in checks] == [
        "run on portrait",
        "same result twice",
        "run on microscopy",
    ]
    assert all(check.passed for check in checks)
    assert checks[0].detail == "15 masks, 15 neither empty nor full"
    assert checks[1].detail == "identical to the last bit"
    assert said == ["portrait", "microscopy"]


def test_a_constant_embedding_is_noticed(
    predictor: samrt.Predictor, cases: list[PhantomCase]
) -> None:
    tamper(predictor, "encoder", lambda out: {k: np.ones_like(v) for k, v in out.items()})
    assert failed(predictor, cases) == ["run on portrait", "run on microscopy"]


def test_chance_is_noticed(predictor: samrt.Predictor, cases: list[PhantomCase]) -> None:
    rng = np.random.default_rng()

    def shake(out: dict[str, Any]) -> Any:
        return {k: v + rng.normal(0, 0.5, v.shape).astype(np.float32) for k, v in out.items()}

    tamper(predictor, "decoder", shake)
    assert failed(predictor, cases) == ["same result twice"]


def test_rounding_between_runs_is_tolerated_and_told(
    predictor: samrt.Predictor, cases: list[PhantomCase]
) -> None:
    rng = np.random.default_rng()

    def round_(out: dict[str, Any]) -> Any:
        return {k: v * np.float32(1 + 1e-6 * rng.normal()) for k, v in out.items()}

    tamper(predictor, "decoder", round_)
    (twice,) = (c for c in check_model(predictor, cases) if c.name == "same result twice")
    assert twice.passed
    assert twice.detail.startswith("relative rms ")


def test_nan_ends_the_run(predictor: samrt.Predictor, cases: list[PhantomCase]) -> None:
    def broken(out: dict[str, Any]) -> Any:
        raise BackendError("output low_res_masks holds NaN")

    tamper(predictor, "decoder", broken)
    (check,) = check_model(predictor, cases)
    assert (check.passed, check.detail) == (False, "output low_res_masks holds NaN")


def test_a_model_that_takes_nothing_of_ours_is_not_passed(
    load_edited: Callable[..., samrt.Predictor], cases: list[PhantomCase]
) -> None:
    edits = {"prompts.box": False, "prompts.points": False, "prompts.box_and_points": False}
    try:
        masks_only = load_edited(edits)
    except samrt.BundleError:
        pytest.skip("bundles without box and points have other decoder inputs")
    assert failed(masks_only, cases) == ["run on portrait", "run on microscopy"]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("embedding", 3), 9.0, "embedding differs by"),
        (("answers", 1, "logits", 5), 99.0, "prompt 1: logits differ by"),
        (("answers", 0, "scores", 0), 5.0, "prompt 0: scores differ by"),
        (("answers", 2, "areas_px", 1), 9000, "prompt 2: areas differ by"),
    ],
)
def test_what_was_recorded_is_compared(
    predictor: samrt.Predictor,
    load_edited: Callable[..., samrt.Predictor],
    cases: list[PhantomCase],
    place: tuple[Any, ...],
    value: float,
    words: str,
) -> None:
    record = record_of(predictor, cases)
    assert failed(load_edited({"parity": record}), cases) == []
    entry = record["expected"]["portrait"]
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    checks = check_model(load_edited({"parity": record}), cases)
    (bad,) = (check for check in checks if not check.passed)
    assert bad.name == "as verified on portrait"
    assert bad.detail.startswith(words)


@pytest.mark.parametrize(
    "parity",
    [
        {"expected": None},
        {"precision": "fp32", "expected": []},
        {"precision": "int8", "expected": {"portrait": 1}},
        {"precision": "fp32", "expected": {"brain": {}}},
        {"other_precisions": 3},
    ],
)
def test_records_without_such_figures_are_passed_over(
    load_edited: Callable[..., samrt.Predictor], cases: list[PhantomCase], parity: Any
) -> None:
    checks = check_model(load_edited({"parity": parity}), cases)
    assert all(check.passed for check in checks)
    assert not any(check.name.startswith("as verified") for check in checks)


@pytest.mark.parametrize("entry", [7, {}, {"embedding": "x", "answers": []}, {"embedding": [1.0]}])
def test_records_that_do_not_fit_are_failures(
    load_edited: Callable[..., samrt.Predictor], cases: list[PhantomCase], entry: Any
) -> None:
    parity = {"precision": "fp32", "expected": {"portrait": entry}}
    (bad,) = (c for c in check_model(load_edited({"parity": parity}), cases) if not c.passed)
    assert "does not fit this model" in bad.detail


def test_the_self_test_runs_one_picture_and_one_prompt(
    predictor: samrt.Predictor, load_edited: Callable[..., samrt.Predictor],
    cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    record = record_of(predictor, cases)
    engine = load_edited({"parity": record})
    calls: list[str] = []
    for name in ("run_encoder", "run_decoder"):
        real = getattr(engine.model, name)
        monkeypatch.setattr(
            engine.model, name, lambda *a, n=name, r=real: (calls.append(n), r(*a))[1]
        )
    check = quick_check(engine)
    assert check == Check("self-test on portrait", True, "agrees with the record")
    assert calls == ["run_encoder", "run_decoder"]
    wrong = {"portrait": {**record["expected"]["portrait"], "embedding": [9.0] * 16}}
    assert quick_check(engine, wrong).detail.startswith("embedding differs by")
    assert not quick_check(engine, {"portrait": 3}).passed
    nothing = quick_check(engine, {})
    assert (nothing.passed, "no figures to compare with" in nothing.detail) == (True, True)


def test_load_tests_itself_on_request(
    predictor: samrt.Predictor, edit_bundle: Callable[..., Path], cases: list[PhantomCase]
) -> None:
    record = record_of(predictor, cases)
    path = edit_bundle({"parity": record}, "sound")
    samrt.load(path, threads=1, self_test=True).close()
    record["expected"]["portrait"]["embedding"][3] = 9.0
    path = edit_bundle({"parity": record}, "other")
    samrt.load(path, threads=1).close()  # off on the CPU
    text = (
        r"fixture on onnxruntime does not compute what it did when it was verified: embedding "
        r"differs by .*check it with samrt verify \(self_test=False or --no-self-test"
    )
    with pytest.raises(samrt.VerificationError, match=text):
        samrt.load(path, backend="onnxruntime", threads=1, self_test=True)


def test_the_first_stage_that_is_far_off() -> None:
    def outputs(*errors: float) -> dict[str, Any]:
        names = ("image_embeddings", "low_res_masks", "iou_predictions")
        return {n: {"rms_rel_worst": e} for n, e in zip(names, errors, strict=True)}

    assert far_off(outputs(1e-5, 1e-5, 1e-5), "fp32") is None
    assert "encoder's output image_embeddings" in str(far_off(outputs(0.5, 0.5, 0.5), "fp16"))
    assert "decoder's output low_res_masks" in str(far_off(outputs(1e-5, 0.5, 0.5), "fp32"))
    assert far_off(outputs(0.05, 0.1, 0.1), "int8") is None
    assert far_off({}, "fp32") is None


def test_a_model_without_prompts_is_asked_without() -> None:
    spec = PromptSpec(False, False, False, False, False, "scale", None, False, False)
    (prompt,) = supported_prompts([Prompt(box=(0, 0, 9, 9))], (10, 10), spec)
    assert prompt.is_empty
