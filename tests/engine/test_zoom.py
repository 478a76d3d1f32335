"""Zoom: where the window lies, what is answered in it, and when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.errors import ImageError, OptionError, PromptError
from samrt.zoom import ZoomRule, is_small, predict_zoomed, zoom_window

Picture = Callable[..., NDArray[np.uint8]]
RULE = ZoomRule(factor=3.0, least_side=32, small_share=0.01, least_gain=1.5)


def box(*corners: float, **more: Any) -> samrt.Prompt:
    return samrt.Prompt(box=corners, **more)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((100, 100, 120, 110), (80, 75, 140, 135)),  # three times the longer side, centred
        ((0, 0, 20, 10), (0, 0, 60, 60)),  # moved into the image
        ((480, 390, 500, 400), (440, 340, 500, 400)),
        ((200, 200, 204, 204), (186, 186, 218, 218)),  # the least side
        ((10, 10, 490, 390), (0, 0, 500, 400)),  # no larger than the image
    ],
)
def test_the_window(corners: Any, expected: Any) -> None:
    assert zoom_window(box(*corners), (400, 500), RULE) == expected


def test_the_window_always_holds_box_and_points_and_lies_in_the_image() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        height, width = (int(v) for v in rng.integers(1, 300, 2))
        xs, ys = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        points = rng.uniform(0, 1, (3, 2)) * [width, height]
        prompt = samrt.Prompt(
            box=(xs[0], ys[0], xs[1], ys[1]), point_coords=points, point_labels=[1, 0, 1]
        )
        rule = ZoomRule(factor=float(rng.uniform(1.01, 5)), least_side=int(rng.integers(8, 90)))
        x0, y0, x1, y1 = zoom_window(prompt, (height, width), rule)
        assert 0 <= x0 <= xs[0] <= xs[1] <= x1 <= width
        assert 0 <= y0 <= ys[0] <= ys[1] <= y1 <= height
        assert (points >= [x0, y0]).all()
        assert (points < [x1, y1]).all()


def test_auto_zooms_at_small_boxes_only() -> None:
    size = (400, 500)
    assert is_small(box(100, 100, 130, 130), size, RULE)
    assert not is_small(box(100, 100, 150, 150), size, RULE)  # more than 1 %
    assert not is_small(box(100, 100, 400, 102), size, RULE)  # long: the window is no smaller
    assert not is_small(box(10, 10, 13, 13), (40, 40), RULE)  # the image is small itself
    points = samrt.Prompt(point_coords=[(100, 100)], point_labels=[1])
    assert not is_small(points, size, RULE)
    earlier = box(100, 100, 120, 120, mask_input=np.zeros((32, 32), np.float32))
    assert not is_small(earlier, size, RULE)


def test_a_zoomed_answer_is_that_of_the_part(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(200, 300)
    prompt = samrt.Prompt(box=(140, 90, 160, 105), point_coords=[(150, 98)], point_labels=[1])
    found = predict_zoomed(predictor, image, prompt, zoom="on", rule=RULE, multimask_output=True)[0]
    assert found.zoom is not None
    x0, y0, x1, y1 = found.zoom
    assert (x1 - x0, y1 - y0) == (60, 60)
    predictor.set_image(np.ascontiguousarray(image[y0:y1, x0:x1]))
    inner = predictor.predict(
        [(150 - x0, 98 - y0)], [1], box=(140 - x0, 90 - y0, 160 - x0, 105 - y0)
    )
    np.testing.assert_array_equal(found.masks[:, y0:y1, x0:x1], inner.masks)
    assert found.masks.sum() == inner.masks.sum()
    np.testing.assert_array_equal(found.scores, inner.scores)
    np.testing.assert_array_equal(found.areas_px, inner.areas_px)
    for mask, corners in zip(found.masks, found.boxes, strict=True):
        ys, xs = np.nonzero(mask)
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4
        assert corners.tolist() == tight
    assert found.prompt is prompt


def test_unzoomed_answers_are_the_usual_ones(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(120, 160)
    prompts = [box(10, 10, 120, 90), box(30, 30, 36, 36)]
    predictor.set_image(image)
    usual = predictor.predict_batch(prompts, multimask_output=False)
    off = predict_zoomed(predictor, image, prompts, zoom="off")
    for answer, plain in zip(off, usual, strict=True):
        assert answer.zoom is None
        np.testing.assert_array_equal(answer.masks, plain.masks)
    mixed = predict_zoomed(
        predictor, image, prompts, zoom="auto", rule=RULE, embedding=predictor.embedding
    )
    assert [answer.zoom is None for answer in mixed] == [True, False]
    np.testing.assert_array_equal(mixed[0].masks, usual[0].masks)


def test_deep_images_keep_their_window(predictor: samrt.Predictor) -> None:
    deep = np.linspace(0, 3000, 150 * 200).reshape(150, 200).astype(np.int16)
    eight = np.floor(np.clip((deep + 0.0) / 3000, 0, 1) * 255 + 0.5).astype(np.uint8)
    prompt = box(90, 60, 110, 80)
    found = predict_zoomed(predictor, deep, prompt, zoom="on", rule=RULE, window=(0, 3000))[0]
    plain = predict_zoomed(predictor, eight, prompt, zoom="on", rule=RULE)[0]
    assert (found.masks ^ plain.masks).sum() <= 0.02 * plain.masks.sum()


def test_a_mask_that_reaches_the_edge_of_the_part_is_told(
    load_edited: Callable[..., samrt.Predictor], picture: Picture
) -> None:
    everywhere = load_edited({"output.threshold": -1000.0})
    inner = predict_zoomed(everywhere, picture(200, 200), box(90, 90, 110, 110), zoom="on")[0]
    assert any("reaches the edge" in remark for remark in inner.warnings)
    whole = predict_zoomed(everywhere, picture(30, 30), box(5, 5, 25, 25), zoom="on")[0]
    assert whole.zoom == (0, 0, 30, 30)
    assert not any("reaches the edge" in remark for remark in whole.warnings)


@pytest.mark.parametrize(
    ("prompt", "zoom", "error", "message"),
    [
        (samrt.Prompt(point_coords=[(5, 5)], point_labels=[1]), "on", PromptError, "needs a box"),
        (
            box(1, 1, 9, 9, mask_input=np.zeros((32, 32), np.float32)),
            "on", PromptError, "does not go with mask_input",
        ),
        (box(1, 1, 900, 9), "auto", PromptError, "reaches beyond the image"),
        (box(1, 1, 9, 9), "much", OptionError, "zoom must be one of off, auto, on"),
    ],
)  # fmt: skip
def test_what_is_refused(
    predictor: samrt.Predictor, picture: Picture, prompt: Any, zoom: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        predict_zoomed(predictor, picture(60, 60), prompt, zoom=zoom)


def test_an_embedding_of_another_image_is_refused(
    predictor: samrt.Predictor, picture: Picture
) -> None:
    other = predictor.encode(picture(50, 70))
    with pytest.raises(ImageError, match="the embedding is of an image of 50 x 70"):
        predict_zoomed(predictor, picture(60, 60), box(1, 1, 50, 50), embedding=other)


@pytest.mark.parametrize(
    "values",
    [
        {"factor": 1.0}, {"factor": float("nan")}, {"least_side": 7}, {"small_share": 1.5},
        {"least_gain": 0.5},
    ],
)  # fmt: skip
def test_wrong_rules_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        ZoomRule(**values)
