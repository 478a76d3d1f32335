from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from samrt import ImageEmbedding, Prediction, Prompt, PromptError, Timings

BOX = (1.0, 2.0, 30.0, 40.0)


def test_prompt_takes_lists_and_keeps_private_copies() -> None:
    coords, labels = np.array([[3, 4], [5, 6]]), np.array([1, 0])
    mask = np.zeros((1, 8, 8))
    prompt = Prompt(box=[1, 2, 30, 40], point_coords=coords, point_labels=labels, mask_input=mask)
    coords[:] = 99
    labels[:] = 0
    mask[:] = 7
    assert prompt.box == BOX
    assert all(type(value) is float for value in prompt.box)
    assert prompt.point_coords is not None
    assert prompt.point_coords.dtype == np.float64
    assert prompt.point_coords.tolist() == [[3, 4], [5, 6]]
    assert prompt.point_labels is not None
    assert prompt.point_labels.dtype == np.int64
    assert prompt.point_labels.tolist() == [1, 0]
    assert prompt.mask_input is not None
    assert prompt.mask_input.shape == (8, 8)
    assert prompt.mask_input.dtype == np.float32
    assert not prompt.mask_input.any()
    for array in (prompt.point_coords, prompt.point_labels, prompt.mask_input):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


def test_a_box_of_one_row_and_boolean_labels_are_taken() -> None:
    prompt = Prompt(box=np.array([BOX]), point_coords=[[1, 1]], point_labels=[True])
    assert prompt.box == BOX
    assert prompt.point_labels is not None
    assert prompt.point_labels.tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "empty prompt: give a box, points with labels, or a mask_input"),
        ({"point_coords": [[1, 1]]}, "point_coords given without point_labels"),
        ({"point_labels": [1]}, "point_labels given without point_coords"),
        ({"point_coords": [], "point_labels": []}, "point_coords is empty"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "point_coords is empty"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"shape \(P, 2\)"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"shape \(P, 2\)"),
        ({"point_coords": [[[1, 2]]], "point_labels": [1]}, r"shape \(P, 2\)"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "not a regular array"),
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "must hold numbers"),
        ({"point_coords": [[np.nan, 2]], "point_labels": [1]}, "NaN or infinity"),
        ({"point_coords": [[np.inf, 2]], "point_labels": [1]}, "NaN or infinity"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, r"shape \(1,\), one label per point"),
        ({"point_coords": [[1, 2]], "point_labels": 1}, r"shape \(1,\)"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "got 2"),
        ({"point_coords": [[1, 2]], "point_labels": [-1]}, "got -1"),
        ({"point_coords": [[1, 2]], "point_labels": [0.5]}, "got 0.5"),
        ({"point_coords": [[1, 2]], "point_labels": ["fg"]}, "must hold numbers"),
        ({"point_coords": [[10**400, 2]], "point_labels": [1]}, "must hold numbers"),
        ({"point_coords": [[1, 2]], "point_labels": [[1], [1, 2]]}, "not a regular array"),
        ({"mask_input": [[1, 2], [3]]}, "not a regular array"),
        ({"box": (1, 2, 3)}, r"box must be \(x0, y0, x1, y1\)"),
        ({"box": 5}, r"box must be \(x0, y0, x1, y1\)"),
        ({"box": []}, r"box must be \(x0, y0, x1, y1\)"),
        ({"box": np.zeros((3, 4))}, "got 3 boxes, expected one.*predict_batch"),
        ({"box": (1, 2, np.nan, 4)}, "box holds NaN"),
        ({"box": "1,2,3,4"}, "box must hold numbers"),
        ({"box": (1, 2, 3j, 4)}, "box must hold numbers"),
        ({"mask_input": np.zeros((2, 8, 8))}, r"\(h, w\) or \(1, h, w\), got \(2, 8, 8\)"),
        ({"mask_input": np.zeros(8)}, r"\(h, w\) or \(1, h, w\)"),
        ({"mask_input": np.zeros((0, 8))}, r"\(h, w\) or \(1, h, w\)"),
        ({"mask_input": np.zeros((8, 8), bool)}, "boolean mask, expected low-resolution"),
        ({"mask_input": np.full((8, 8), np.nan)}, "NaN or infinity"),
        ({"mask_input": np.full((8, 8), 1e300)}, "does not fit into float32"),
    ],
)
def test_malformed_prompts_give_one_clear_line(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(PromptError, match=text) as caught:
        Prompt(**fields)
    assert "\n" not in str(caught.value)


def test_prompts_can_be_sent_and_changed() -> None:
    prompt = Prompt(box=BOX, point_coords=[[1, 2]], point_labels=[1])
    other = pickle.loads(pickle.dumps(prompt))
    assert other.box == BOX
    assert other.point_coords.tolist() == [[1, 2]]
    moved = replace(prompt, box=(0.0, 0.0, 5.0, 5.0))
    assert moved.box == (0.0, 0.0, 5.0, 5.0)
    assert moved.point_labels is not None
    with pytest.raises(AttributeError):
        prompt.box = None  # type: ignore[misc]


def test_timings_are_a_read_only_mapping() -> None:
    timings = Timings(encode_ms=2.5)
    assert list(timings) == [
        "decode_image_ms",
        "preprocess_ms",
        "encode_ms",
        "decode_prompt_ms",
        "postprocess_ms",
    ]
    assert dict(timings) == timings.as_dict()
    assert timings["encode_ms"] == 2.5
    assert timings["preprocess_ms"] is None
    with pytest.raises(KeyError):
        timings["nonsense"]
    with pytest.raises(AttributeError):
        timings.encode_ms = 1.0  # type: ignore[misc]


def embedding(features: dict[str, Any] | None = None) -> ImageEmbedding:
    return ImageEmbedding(
        features=features or {"a": np.arange(12.0).reshape(1, 3, 2, 2)},
        original_size=(48, 80),
        input_size=(38, 64),
        frame_size=(64, 64),
        scale=(38 / 48, 0.8),
        model_id="m@0123456789ab",
        timings=Timings(encode_ms=1.0),
        warnings=("note",),
    )


def test_an_embedding_owns_read_only_features() -> None:
    mine = np.ones((1, 2, 2, 2), np.float32)
    value = embedding({"a": mine})
    mine[:] = 5
    assert value.features["a"].dtype == np.float32
    assert (value.features["a"] == 1).all()
    assert value.nbytes == 32
    with pytest.raises(ValueError, match="read-only"):
        value.features["a"][:] = 0
    with pytest.raises(TypeError):
        value.features["b"] = mine  # type: ignore[index]


def test_a_read_only_view_of_foreign_memory_is_copied() -> None:
    mine = np.ones((1, 2, 2, 2), np.float32)
    view = mine[:]
    view.flags.writeable = False
    value = embedding({"a": view})
    mine[:] = 5
    assert (value.features["a"] == 1).all()


def test_an_embedding_can_be_sent_to_another_process() -> None:
    value = embedding()
    other = pickle.loads(pickle.dumps(value))
    assert other.model_id == value.model_id
    assert other.timings == value.timings
    assert other.warnings == ("note",)
    np.testing.assert_array_equal(other.features["a"], value.features["a"])
    assert not other.features["a"].flags.writeable


def test_a_prediction_unpacks_like_that_of_sam_predictor() -> None:
    masks, scores = np.zeros((2, 3, 4), bool), np.array([0.5, 0.5], np.float32)
    logits = np.zeros((2, 2, 2), np.float32)
    values: dict[str, Any] = {
        "masks": masks,
        "scores": scores,
        "logits": logits,
        "stability": scores,
        "areas_px": np.zeros(2, np.int64),
        "boxes": np.zeros((2, 4)),
        "prompt": Prompt(box=BOX),
    }
    prediction = Prediction(**values)
    first, second, third = prediction
    assert first is masks
    assert second is scores
    assert third is logits
    assert prediction.best == 0
    assert prediction.low_res_masks is logits
    full = np.zeros((2, 3, 4), np.float32)
    first, *_ = Prediction(**values, mask_logits=full)
    assert first is full
