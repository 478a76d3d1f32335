"""What goes wrong gives one clear error, and never a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import Predictor, Prompt

BOX = (20, 10, 60, 40)


@pytest.fixture
def ready(predictor: Predictor, image: NDArray[np.uint8]) -> Predictor:
    predictor.set_image(image)
    return predictor


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "empty prompt"),
        ({"box": (60, 10, 20, 40)}, "inverted"),
        ({"box": (20, 10, 20, 40)}, "is empty"),
        ({"box": (20, 10, 100, 40)}, r"clip it to \(20, 10, 80, 40\)"),
        ({"box": (200, 10, 300, 40)}, "lies outside"),
        ({"box": (np.nan, 10, 60, 40)}, "NaN"),
        ({"box": np.array([BOX, BOX])}, "got 2 boxes"),
        ({"point_coords": [[90, 10]], "point_labels": [1]}, "lies outside the image"),
        ({"point_coords": [[10, 10]]}, "without point_labels"),
        ({"point_labels": [1]}, "without point_coords"),
        ({"point_coords": [[10, 10]], "point_labels": [3]}, "got 3"),
        ({"mask_input": np.zeros((48, 80))}, r"the model wants \(32, 32\)"),
        ({"mask_input": np.full((32, 32), np.inf)}, "NaN or infinity"),
    ],
)
def test_bad_prompts(ready: Predictor, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(samrt.PromptError, match=text) as caught:
        ready.predict(**arguments)
    assert "\n" not in str(caught.value)
    assert ready.predict(box=BOX).masks.any()


def test_all_prompts_are_checked_before_anything_runs(
    ready: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        pytest.fail("the decoder ran")

    monkeypatch.setattr(ready._model, "run_decoder", never)
    good, bad = Prompt(box=BOX), Prompt(box=(0, 0, 500, 5))
    with pytest.raises(samrt.PromptError, match=r"^prompt 2: box \(0, 0, 500, 5\) reaches beyond"):
        ready.predict_batch([good, good, bad, good])
    with pytest.raises(samrt.PromptError, match=r"^prompt 1 is tuple, expected samrt\.Prompt"):
        ready.predict_batch([good, BOX])  # type: ignore[list-item]


def test_the_model_s_own_limits_hold(
    load_edited: Callable[..., Predictor], image: NDArray[np.uint8]
) -> None:
    predictor = load_edited({"prompts.points": False, "prompts.box_and_points": False})
    predictor.set_image(image)
    with pytest.raises(samrt.PromptError, match="does not take points: it takes box and mask"):
        predictor.predict([[10, 10]], [1])
    assert predictor.predict(box=BOX).masks.any()


@pytest.mark.parametrize("chunk_size", [0, -3, 2.0, True, None])
def test_chunk_size_is_checked(ready: Predictor, chunk_size: Any) -> None:
    with pytest.raises(samrt.OptionError, match="chunk_size must be a whole number from 1"):
        ready.predict_batch([Prompt(box=BOX)], chunk_size=chunk_size)


def break_session(
    predictor: Predictor, role: str, output: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = getattr(predictor._model, f"_{role}")
    run = session._run

    def broken(feeds: Any) -> Any:
        results = run(feeds)
        results[output].reshape(-1)[0] = value
        return results

    monkeypatch.setattr(session, "_run", broken)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("role", "output"),
    [
        ("encoder", "image_embeddings"),
        ("encoder", "high_res_s2"),
        ("decoder", "low_res_masks"),
        ("decoder", "iou_predictions"),
    ],
)
def test_nan_from_the_model_is_an_error(
    ready: Predictor,
    image: NDArray[np.uint8],
    role: str,
    output: str,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_session(ready, role, output, value, monkeypatch)
    with pytest.raises(samrt.BackendError, match=rf"{role}\.onnx computed NaN or .*'{output}'"):
        ready.decode(ready.encode(image), Prompt(box=BOX))


def test_a_decoder_that_loses_prompts_is_an_error(
    ready: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ready._model._decoder
    run = session._run
    monkeypatch.setattr(session, "_run", lambda f: {k: v[:1] for k, v in run(f).items()})
    with pytest.raises(samrt.BundleError, match="returned 1 masks and 1 scores for 2 prompts"):
        ready.predict_batch([Prompt(box=BOX), Prompt(box=BOX)])


def test_a_closed_predictor_says_so(ready: Predictor, image: NDArray[np.uint8]) -> None:
    embedding = ready.embedding
    ready.close()
    ready.close()
    assert not ready.is_image_set
    with pytest.raises(samrt.BackendError, match="is closed: load it again"):
        ready.encode(image)
    with pytest.raises(samrt.BackendError, match="is closed: load it again"):
        ready.decode(embedding, Prompt(box=BOX))
