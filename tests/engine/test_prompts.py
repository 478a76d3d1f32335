from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from samrt import Prompt, PromptError
from samrt.geometry import Placement, place
from samrt.manifest import PromptSpec
from samrt.prompts import check_prompt, decoder_input, make_prompt, prompt_length

SIZE = (48, 80)
LOW = (8, 8)
PLACEMENT = Placement(SIZE, (96, 240), (96, 240), (2.0, 3.0))
SPEC = PromptSpec(
    box=True,
    points=True,
    negative_points=True,
    mask=True,
    box_and_points=True,
    box_transform="scale",
    max_points=None,
    padding_point=True,
    padding_inert=False,
)


NOTHING = {"box": False, "points": False, "mask": False, "box_and_points": False}


def point(x: float, y: float, label: int = 1) -> dict[str, Any]:
    return {"point_coords": [[x, y]], "point_labels": [label]}


@pytest.mark.parametrize(
    "fields",
    [
        {"box": (0, 0, 80, 48)},
        {"box": (79.5, 47.5, 80, 48)},
        {"box": (0.25, 0.25, 0.5, 0.5)},
        point(0, 0),
        point(79, 47),
        point(79.999, 47.999),
        {"mask_input": np.zeros(LOW)},
        {"box": (1, 1, 5, 5), **point(3, 3, 0), "mask_input": np.zeros(LOW)},
    ],
)
def test_what_touches_the_edge_is_inside(fields: dict[str, Any]) -> None:
    assert make_prompt(**fields, image_size=SIZE, low_res_size=LOW, spec=SPEC)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"box": (30, 5, 10, 20)}, "is inverted: give"),
        ({"box": (10, 20, 30, 5)}, "is inverted: give"),
        ({"box": (10, 5, 10, 20)}, "is empty"),
        ({"box": (10, 5, 20, 5)}, "is empty"),
        ({"box": (100, 5, 120, 20)}, "lies outside the image of width 80 and height 48"),
        ({"box": (-20, 5, -10, 20)}, "lies outside"),
        ({"box": (5, 48, 10, 60)}, "lies outside"),
        ({"box": (80, 5, 90, 20)}, "lies outside"),
        ({"box": (-1, 5, 10, 20)}, r"reaches beyond .*: clip it to \(0, 5, 10, 20\)"),
        ({"box": (1, 5, 81, 20)}, r"clip it to \(1, 5, 80, 20\)"),
        ({"box": (1, 5, 48, 80)}, r"clip it to \(1, 5, 48, 48\)"),
        (point(-0.001, 5), r"point 0 \(-0.001, 5\) lies outside"),
        (point(80, 5), "0 <= x < 80 and 0 <= y < 48"),
        (point(5, 48), "lies outside"),
        (point(5, 60), "lies outside"),
        ({"point_coords": [[1, 1], [2, 99]], "point_labels": [1, 1]}, r"point 1 \(2, 99\)"),
        ({"mask_input": np.zeros((8, 9))}, r"has shape \(8, 9\), the model wants \(8, 8\)"),
        ({"mask_input": np.zeros((48, 80))}, r"pass Prediction.logits\[i\]"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(PromptError, match=text) as caught:
        make_prompt(**fields, image_size=SIZE, low_res_size=LOW, spec=SPEC)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fields", "text"),
    [
        ({"box": False}, {"box": (1, 1, 5, 5)}, "not take boxes: it takes points and mask"),
        ({"points": False}, point(1, 1), "not take points: it takes box and mask"),
        ({"mask": False}, {"mask_input": np.zeros(LOW)}, "not take mask inputs"),
        ({"box_and_points": False}, {"box": (1, 1, 5, 5), **point(1, 1)}, "box together with"),
        ({"negative_points": False}, point(1, 1, 0), "not take background points"),
        (
            {"max_points": 1},
            {"point_coords": [[1, 1], [2, 2]], "point_labels": [1, 1]},
            "got 2 points, this model takes at most 1",
        ),
        (
            {"pad_to": 3},
            {"box": (1, 1, 5, 5), "point_coords": [[1, 1], [2, 2]], "point_labels": [1, 0]},
            "has 4 rows, this model takes at most 3: a point is one row, a box two",
        ),
        (
            {"pad_to": 2},
            {"point_coords": [[1, 1]] * 3, "point_labels": [1] * 3},
            "has 3 rows, this model takes at most 2",
        ),
        (NOTHING, {"box": (1, 1, 5, 5)}, r"takes no prompts.*Prompt\.empty\(\)"),
        (NOTHING, {"mask_input": np.zeros(LOW)}, "takes no prompts"),
    ],
)
def test_what_the_model_does_not_take_is_refused(
    changes: dict[str, Any], fields: dict[str, Any], text: str
) -> None:
    assert make_prompt(**fields, image_size=SIZE, low_res_size=LOW, spec=SPEC)
    with pytest.raises(PromptError, match=text):
        make_prompt(**fields, image_size=SIZE, low_res_size=LOW, spec=replace(SPEC, **changes))


def rows(prompts: list[Prompt], spec: PromptSpec = SPEC) -> list[list[list[float]]]:
    """``(x, y, label)`` rows of each prompt as the decoder gets them, scale (2, 3)."""
    tokens = decoder_input(prompts, PLACEMENT, spec, LOW)
    assert tokens.point_coords.dtype == tokens.point_labels.dtype == np.float32
    assert tokens.point_coords.flags.c_contiguous
    assert tokens.point_labels.flags.c_contiguous
    table = np.concatenate([tokens.point_coords, tokens.point_labels[:, :, None]], axis=2)
    found: list[list[list[float]]] = table.tolist()
    return found


PAD = [0.0, 0.0, -1.0]
BOX_ROWS = [[3.0, 4.0, 2.0], [15.0, 12.0, 3.0]]


def test_order_is_points_then_corners_or_one_padding_point() -> None:
    box = Prompt(box=(1, 2, 5, 6))
    points = Prompt(point_coords=[[7, 8], [9, 10]], point_labels=[1, 0])
    both = Prompt(box=(1, 2, 5, 6), **point(7, 8))
    assert rows([box]) == [BOX_ROWS]
    assert rows([points]) == [[[21, 16, 1], [27, 20, 0], PAD]]
    assert rows([both]) == [[[21, 16, 1], *BOX_ROWS]]
    bare = replace(SPEC, padding_point=False)
    assert rows([points], bare) == [[[21, 16, 1], [27, 20, 0]]]


def test_prompts_of_different_length_are_filled_up_in_order() -> None:
    box = Prompt(box=(1, 2, 5, 6))
    both = Prompt(box=(1, 2, 5, 6), **point(7, 8))
    mask = Prompt(mask_input=np.full(LOW, 3.0, np.float32))
    assert rows([box, both, mask]) == [
        [*BOX_ROWS, PAD],
        [[21, 16, 1], *BOX_ROWS],
        [PAD, PAD, PAD],
    ]


@pytest.mark.parametrize("padding", [True, False])
def test_the_length_is_that_of_the_table(padding: bool) -> None:
    spec = replace(SPEC, padding_point=padding)
    for prompt in (
        Prompt(box=(1, 2, 5, 6)),
        Prompt(**point(1, 1)),
        Prompt(box=(1, 2, 5, 6), **point(7, 8)),
        Prompt(mask_input=np.zeros(LOW, np.float32)),
    ):
        assert prompt_length(prompt, spec) == len(rows([prompt], spec)[0])


def test_mask_inputs_stay_with_their_prompt() -> None:
    mask = np.arange(64, dtype=np.float32).reshape(LOW)
    prompts = [Prompt(box=(1, 2, 5, 6)), Prompt(mask_input=mask), Prompt(**point(1, 1))]
    tokens = decoder_input(prompts, PLACEMENT, SPEC, LOW)
    assert tokens.has_mask_input.tolist() == [0.0, 1.0, 0.0]
    assert tokens.mask_input.shape == (3, 1, 8, 8)
    np.testing.assert_array_equal(tokens.mask_input[1, 0], mask)
    assert not tokens.mask_input[[0, 2]].any()
    assert {a.dtype for a in tokens.feeds().values()} == {np.dtype(np.float32)}


def test_models_may_want_a_fixed_number_of_rows() -> None:
    """EfficientSAM: six rows, no padding point of its own; the filling is the same label."""
    spec = replace(SPEC, padding_point=False, pad_to=6)
    box = Prompt(box=(1, 2, 5, 6))
    full = Prompt(box=(1, 2, 5, 6), point_coords=[[7, 8]] * 4, point_labels=[1] * 4)
    assert rows([box], spec) == [[*BOX_ROWS, PAD, PAD, PAD, PAD]]
    assert rows([full], spec) == [[[21, 16, 1]] * 4 + BOX_ROWS]
    assert rows([box, full], spec) == rows([box], spec) + rows([full], spec)
    assert {prompt_length(p, spec) for p in (box, full, Prompt(**point(1, 1)))} == {6}


def test_an_empty_prompt_is_for_models_without_prompts() -> None:
    empty = Prompt.empty()
    assert empty.is_empty
    assert not Prompt(box=(1, 2, 5, 6)).is_empty
    with pytest.raises(PromptError, match="empty prompt: this model takes box and points and mask"):
        check_prompt(empty, SIZE, spec=SPEC)
    check_prompt(empty, SIZE, spec=replace(SPEC, **NOTHING))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="empty prompt: give a box"):
        Prompt()
    copied = pickle.loads(pickle.dumps(empty))
    assert copied.is_empty


def test_boxes_by_the_factor_of_the_longest_side() -> None:
    """LiteMedSAM: int(coordinate * 256 / max(H, W)), not by the quotient of the rounded sizes."""
    placement = place((523, 700), (256, 256), "longest_side")
    assert placement.input_size == (191, 256)
    spec = replace(SPEC, box_transform="truncate_longest")
    prompt = Prompt(box=(20, 270, 202, 436), **point(7, 8))
    tokens = decoder_input([prompt], placement, spec, LOW)
    factor = 256 / 700
    corners = [[int(20 * factor), int(270 * factor)], [int(202 * factor), int(436 * factor)]]
    assert tokens.point_coords[0, 1:].tolist() == corners
    np.testing.assert_allclose(tokens.point_coords[0, 0], [7 * 256 / 700, 8 * 191 / 523])
    # Where the two factors disagree: 256 / 700 is more than 191 / 523.
    low = Prompt(box=(1, 1, 700, 492.2))
    by_factor = decoder_input([low], placement, spec, LOW).point_coords[0, 1, 1]
    by_sizes = decoder_input([low], placement, replace(spec, box_transform="truncate"), LOW)
    assert by_factor == int(492.2 * 256 / 700) == 180
    assert by_sizes.point_coords[0, 1, 1] == int(492.2 * 191 / 523) == 179
