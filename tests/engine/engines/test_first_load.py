"""Engines are compared with the FP32 model before their first use; wrong ones are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import samrt
from samrt import OptionError, Prompt, VerificationError
from samrt.admission import seconds_allowed
from samrt.bundle import Bundle
from samrt.engines.cache import EngineCache
from samrt.engines.record import model_digest
from samrt.errors import OutputError
from samrt.phantoms import PHANTOM_NAMES

Open = Callable[..., samrt.Predictor]
BOX = Prompt(box=(4, 4, 60, 40))


def noise(scale: float) -> Callable[[Any], Any]:
    """Adds noise of this share of the values' spread, the same every time."""

    def spoil(value: Any) -> Any:
        drawn = np.random.default_rng(1).standard_normal(value.shape)
        return (value + scale * value.std() * drawn).astype(value.dtype)

    return spoil


def record_of(bundle: Bundle, tmp_path: Any, role: str = "encoder") -> Any:
    digest = model_digest(bundle.artifact(role))
    (found,) = EngineCache(tmp_path).records(digest, "tensorrt")
    return found.verification


@pytest.fixture
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison ends after its first picture."""
    monkeypatch.setenv("SAMRT_VERIFY_SECONDS", "0")


@pytest.fixture
def fresh(open_model: Open) -> Open:
    """``fresh()``: load engines that nobody has verified; with the self-test."""
    return lambda **more: open_model("10", proven=False, self_test=None, **more)


def test_the_first_load_compares_and_keeps_the_figures(
    fresh: Open, bundle: Bundle, tmp_path: Any, caplog: pytest.LogCaptureFixture, image: Any
) -> None:
    with caplog.at_level(logging.WARNING, "samrt"):
        engine = fresh()
    assert "comparing the engine of fixture in fp32 (tensorrt 10.3.0.30) with the FP32 model" in (
        caplog.text
    )
    assert engine.info.verification.state == "passed"
    assert engine.info.verification.mask_iou_mean == 1.0
    assert engine.info.warnings == ()
    record = record_of(bundle, tmp_path)
    assert record == record_of(bundle, tmp_path, "decoder")
    assert record["image_names"] == list(PHANTOM_NAMES)
    assert set(record["engines"]) == {"encoder", "decoder"}
    assert (record["device"], record["driver"]) == ("Fake 4000 sm89", "12.6")
    assert record["against"].startswith("its fp32 graphs in ONNX Runtime 1.")
    assert record["masks"]["hd95_worst_px"] == 0.0
    answer = engine.decode(engine.encode(image), BOX)[0]
    assert (answer.verification, answer.warnings) == ("passed", ())


def test_the_second_load_compares_nothing(
    fresh: Open, memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fresh().close()
    caplog.clear()
    before = memory.names("to_device").count("image")
    assert fresh().info.verification.state == "passed"
    assert caplog.text == ""
    assert memory.names("to_device").count("image") == before + 1  # the self-test


def test_a_wrong_engine_is_refused_now_and_later(
    fresh: Open, script: Any, bundle: Bundle, tmp_path: Any
) -> None:
    script.spoil["image_embeddings"] = noise(0.5)
    text = (
        r"the engine of fixture in fp32 .tensorrt 10\.3\.0\.30. is refused, .*mean mask IoU 0\.\d+"
        r".*first far off is the encoder's output image_embeddings.*"
        r"samrt build BUNDLE --runtime tensorrt --force.*allow_refused=True"
    )
    with pytest.raises(VerificationError, match=text) as caught:
        fresh()
    assert "\n" not in str(caught.value)
    assert record_of(bundle, tmp_path)["passed"] is False
    with pytest.raises(VerificationError, match=r"the engine of fixture encoder\.onnx for T"):
        fresh()


@pytest.mark.usefixtures("one_picture")
def test_the_stage_that_is_wrong_is_named(fresh: Open, script: Any) -> None:
    script.spoil["low_res_masks"] = noise(0.5)
    with pytest.raises(VerificationError, match="first far off is the decoder's output low_res_m"):
        fresh()


@pytest.mark.usefixtures("one_picture")
def test_an_engine_that_computes_nan_is_refused(fresh: Open, script: Any) -> None:
    script.spoil["iou_predictions"] = lambda value: value * np.nan
    text = r"the candidate failed on ct_abdomen: .*NaN or infinity in 'iou_predictions'"
    with pytest.raises(VerificationError, match=text):
        fresh()


@pytest.mark.usefixtures("one_picture")
def test_the_override_is_in_every_result(
    fresh: Open, open_model: Open, script: Any, image: Any
) -> None:
    script.spoil["low_res_masks"] = noise(0.5)
    with pytest.raises(VerificationError):
        fresh()
    engine = open_model("10", proven=False, allow_refused=True)
    told = engine.info.verification
    assert (told.state, told.override) == ("refused", True)
    assert told.mask_iou_mean is not None
    assert told.mask_iou_mean < 0.999
    embedding = engine.encode(image)
    (answer,) = engine.decode(embedding, [BOX])
    assert answer.verification == "refused"
    for result in (embedding, answer):
        (warning,) = result.warnings
        assert "was refused by its verification and is used on request: mean mask" in warning
    foreign = replace(embedding, warnings=())  # an embedding that was made elsewhere
    assert engine.decode(foreign, BOX)[0].warnings == answer.warnings


def test_unverified_engines_can_be_used_as_they_are(
    open_model: Open, bundle: Bundle, tmp_path: Any, image: Any
) -> None:
    engine = open_model("10", proven=False, allow_refused=True)
    told = engine.info.verification
    assert (told.state, told.override) == ("unverified", True)
    answer = engine.decode(engine.encode(image), BOX)[0]
    assert answer.verification == "unverified"
    assert "is not verified: it has not been compared with the FP32 model" in answer.warnings[0]
    assert record_of(bundle, tmp_path) is None


def test_time_is_limited(
    fresh: Open, bundle: Bundle, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMRT_VERIFY_SECONDS", "0")
    assert fresh().info.verification.state == "passed"
    record = record_of(bundle, tmp_path)
    assert record["image_names"] == [PHANTOM_NAMES[0]]
    assert "4 pictures were left out, the time of 0 s was over" in record["weaknesses"]
    for text in ("soon", "-1", "nan"):
        monkeypatch.setenv("SAMRT_VERIFY_SECONDS", text)
        with pytest.raises(OptionError, match=f"SAMRT_VERIFY_SECONDS is '{text}'"):
            seconds_allowed()


@pytest.mark.usefixtures("one_picture")
def test_another_decoder_makes_another_pair(
    fresh: Open, bundle: Bundle, tmp_path: Any, make_fake: Any, memory: Any
) -> None:
    from samrt.engines.bundles import build_bundle
    from samrt.engines.options import BuildOptions

    fresh().close()
    first = record_of(bundle, tmp_path)
    options = BuildOptions(max_prompts=4, max_points=6)
    cache = EngineCache(tmp_path)
    for outcome in build_bundle(
        bundle, make_fake("10"), options, device=memory.device(), cache=cache, force=True
    ):
        assert outcome.record.verification is None
    fresh()
    assert record_of(bundle, tmp_path)["verified_at"] >= first["verified_at"]


def test_a_cache_that_cannot_be_written_costs_the_next_load(
    fresh: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(EngineCache, "record_verification", full)
    with caplog.at_level(logging.WARNING, "samrt"):
        assert fresh().info.verification.state == "passed"
    assert "the figures are not kept, so the next load compares again: disk full" in caplog.text


@pytest.mark.usefixtures("one_picture")
def test_the_self_test_finds_other_numbers(fresh: Open, open_model: Open, script: Any) -> None:
    fresh().close()
    script.spoil["image_embeddings"] = noise(0.05)
    text = (
        r"does not compute what it did when it was verified: embedding differs by .*e-0.*"
        r"an update of the driver or the runtime .*--force \(self_test=False"
    )
    with pytest.raises(VerificationError, match=text):
        fresh()
    open_model("10", proven=False, self_test=False).close()
    script.spoil = {"low_res_masks": lambda value: value * np.nan}
    with pytest.raises(VerificationError, match="computed NaN or infinity in 'low_res_masks'"):
        fresh()
