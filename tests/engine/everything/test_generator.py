"""The generator on the committed model; equality with the original is tested in tests/parity."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import AutomaticMaskGenerator
from samrt.errors import BundleError, OptionError, PromptError
from samrt.everything.defaults import BY_FAMILY, SAM, thresholds_of
from samrt.imaging import rle_to_mask

Picture = Callable[..., NDArray[np.uint8]]
LOOSE: dict[str, Any] = {
    "points_per_side": 6, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.3,
}  # fmt: skip


def test_records_agree_with_their_masks(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(120, 160)
    found = AutomaticMaskGenerator(predictor, **LOOSE).generate(image)
    assert len(found) > 3
    for record in found:
        mask = record["segmentation"]
        assert mask.shape == (120, 160)
        assert mask.dtype == np.bool_
        ys, xs = np.nonzero(mask)
        assert record["area"] == len(ys)
        x, y, w, h = record["bbox"]
        assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max(), ys.max())
        assert record["predicted_iou"] > 0.1
        assert record["stability_score"] >= 0.3
        assert record["crop_box"] == [0, 0, 160, 120]
        ((px, py),) = record["point_coords"]
        assert (px * 12 / 160) % 2 == pytest.approx(1)
        assert (py * 12 / 120) % 2 == pytest.approx(1)
    scores = [record["predicted_iou"] for record in found]
    assert scores == sorted(scores, reverse=True)


def test_a_mask_is_what_the_predictor_answers(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(90, 140)
    predictor.set_image(image)
    found = AutomaticMaskGenerator(predictor, **LOOSE).generate(image)[:5]
    assert found
    for record in found:
        answer = predictor.predict(record["point_coords"], [1])
        same = [np.array_equal(record["segmentation"], mask) for mask in answer.masks]
        assert sum(same) == 1
        score = answer.scores[same.index(True)]
        assert record["predicted_iou"] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 64, 1000])
def test_results_do_not_depend_on_the_batch(
    predictor: samrt.Predictor, picture: Picture, batch: int
) -> None:
    image = picture(100, 100)
    options = {**LOOSE, "crop_n_layers": 1, "output_mode": "uncompressed_rle"}
    first = AutomaticMaskGenerator(predictor, **options).generate(image)
    again = AutomaticMaskGenerator(predictor, points_per_batch=batch, **options).generate(image)
    assert [r["segmentation"] for r in first] == [r["segmentation"] for r in again]


def test_output_modes_hold_the_same_masks(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(70, 90)
    modes = ("binary_mask", "uncompressed_rle", "coco_rle")
    found = [
        AutomaticMaskGenerator(predictor, output_mode=mode, **LOOSE).generate(image)
        for mode in modes
    ]
    for plain, runs, text in zip(*found, strict=True):
        np.testing.assert_array_equal(plain["segmentation"], rle_to_mask(runs["segmentation"]))
        np.testing.assert_array_equal(plain["segmentation"], rle_to_mask(text["segmentation"]))
        assert isinstance(text["segmentation"]["counts"], str)


def test_an_embedding_serves_as_well(predictor: samrt.Predictor, picture: Picture) -> None:
    image = picture(80, 60)
    embedding = predictor.encode(image)
    generator = AutomaticMaskGenerator(predictor, output_mode="uncompressed_rle", **LOOSE)
    assert generator.generate(embedding) == generator.generate(image)
    with_crops = AutomaticMaskGenerator(predictor, crop_n_layers=1)
    with pytest.raises(OptionError, match="whole image only"):
        with_crops.generate(embedding)


def test_an_embedding_of_another_model_is_refused(
    predictor: samrt.Predictor, load_edited: Callable[..., samrt.Predictor], picture: Picture
) -> None:
    other = load_edited({"output.threshold": 0.5}).encode(picture(50, 50))
    with pytest.raises(BundleError):
        AutomaticMaskGenerator(predictor, **LOOSE).generate(other)


def test_deep_images_keep_their_window_in_crops(predictor: samrt.Predictor) -> None:
    deep = np.linspace(0, 4000, 200 * 260).reshape(200, 260).astype(np.uint16)
    deep[:100, :130] = 5000  # would be another window if a crop chose its own
    eight = np.floor(np.clip(deep / 5000, 0, 1) * 255 + 0.5).astype(np.uint8)
    options = {**LOOSE, "crop_n_layers": 1, "points_per_side": 4, "output_mode": "coco_rle"}
    generator = AutomaticMaskGenerator(predictor, **options)
    found, plain = generator.generate(deep, window=(0, 5000)), generator.generate(eight)
    assert len(found) == pytest.approx(len(plain), abs=2)
    assert any(record["crop_box"] != [0, 0, 260, 200] for record in found)


def test_nothing_found_is_no_error(predictor: samrt.Predictor, picture: Picture) -> None:
    generator = AutomaticMaskGenerator(predictor, pred_iou_thresh=2.0, crop_n_layers=1,
                                       points_per_side=3, min_mask_region_area=9)  # fmt: skip
    assert generator.generate(picture(40, 40)) == []


def test_progress_and_times_are_told(predictor: samrt.Predictor, picture: Picture) -> None:
    said: list[tuple[int, int]] = []
    generator = AutomaticMaskGenerator(predictor, points_per_batch=10, **LOOSE)
    found = generator.find(picture(30, 40), progress=lambda done, of: said.append((done, of)))
    assert said == [(10, 36), (20, 36), (30, 36), (36, 36)]
    assert found.prompts == 36
    assert set(found.timings_ms) == {"encode", "decode", "masks", "filter"}
    assert all(value > 0 for value in found.timings_ms.values())


def test_memory_does_not_grow_with_the_number_of_full_size_masks(
    predictor: samrt.Predictor, picture: Picture
) -> None:
    image = picture(1500, 1500)
    embedding = predictor.encode(image)
    options = {**LOOSE, "points_per_side": 12, "box_nms_thresh": 1.0, "points_per_batch": 4}
    generator = AutomaticMaskGenerator(predictor, **options)
    tracemalloc.start()
    try:
        found = generator.find(embedding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) > 100
    assert peak < 1500 * 1500 * 8  # the bool masks alone would need 100 times 1500 * 1500


def test_models_without_points_are_refused(load_edited: Callable[..., samrt.Predictor]) -> None:
    boxes_only = load_edited(
        {"prompts.points": False, "prompts.negative_points": False, "prompts.box_and_points": False}
    )
    with pytest.raises(PromptError, match="takes no points"):
        AutomaticMaskGenerator(boxes_only)
    with pytest.raises(OptionError, match=r"expected a Predictor from samrt\.load, got str"):
        AutomaticMaskGenerator("tiny")  # type: ignore[arg-type]


def test_models_that_threshold_probabilities(
    load_edited: Callable[..., samrt.Predictor], predictor: samrt.Predictor, picture: Picture
) -> None:
    other = load_edited({"output.threshold_space": "probability", "output.threshold": 0.5})
    image = picture(64, 64)
    logits = AutomaticMaskGenerator(predictor, **LOOSE).generate(image)
    found = AutomaticMaskGenerator(other, **LOOSE).generate(image)
    assert len(found) == pytest.approx(len(logits), abs=4)
    assert all(0.3 <= record["stability_score"] <= 1 for record in found)


def test_models_that_answer_with_their_best_mask(
    load_edited: Callable[..., samrt.Predictor], picture: Picture
) -> None:
    best = load_edited({"output.multimask": "best"})
    options = {**LOOSE, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    found = AutomaticMaskGenerator(best, box_nms_thresh=1.0, **options).generate(picture(60, 60))
    points = [tuple(record["point_coords"][0]) for record in found]
    assert len(points) == len(set(points)) == 36


def test_default_thresholds_have_a_reason() -> None:
    assert thresholds_of("sam") is SAM
    assert (SAM.pred_iou_thresh, SAM.stability_score_thresh) == (0.88, 0.95)
    assert thresholds_of("tiny").pred_iou_thresh < 0.88
    assert all(len(own.reason) > 20 for own in BY_FAMILY.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids"),
        ({"point_grids": [[[0.5, 0.5]]]}, "exactly one"),
        ({"points_per_side": 0}, "points_per_side must be a whole number from 1 to 1024, got 0"),
        ({"points_per_side": 10**9}, "from 1 to 1024"),
        ({"points_per_side": 4.0}, "whole number"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"points_per_batch": True}, "points_per_batch"),
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh must be a finite number"),
        ({"stability_score_thresh": "high"}, "stability_score_thresh"),
        ({"stability_score_offset": -1.0}, "stability_score_offset must be a finite number from 0"),
        ({"crop_n_layers": 9}, "crop_n_layers must be a whole number from 0 to 5, got 9"),
        ({"crop_overlap_ratio": 1.0}, "below 1"),
        ({"crop_n_layers": 1, "crop_n_points_downscale_factor": 50}, "no points"),
        ({"min_mask_region_area": -1}, "min_mask_region_area"),
        ({"output_mode": "png"}, "output_mode must be one of"),
        ({"points_per_side": None, "point_grids": [[[2.0, 0.5]]]}, "between 0 and 1"),
        ({"points_per_side": None, "point_grids": [[0.5]]}, r"shape \(P, 2\)"),
        ({"points_per_side": None, "point_grids": ["a"]}, "no array of numbers"),
        (
            {"points_per_side": None, "point_grids": [[[0.5, 0.5]]], "crop_n_layers": 1},
            "got 1 point_grids, crop_n_layers=1 needs 2",
        ),
    ],
)
def test_wrong_parameters_are_refused(
    predictor: samrt.Predictor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        AutomaticMaskGenerator(predictor, **options)
    assert "\n" not in str(caught.value)
