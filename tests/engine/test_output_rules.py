"""Which masks answer, and how: the manifest's output rules one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import samrt
from samrt import OptionError, Prompt, PromptError
from samrt.classes import class_map, class_masks
from samrt.cli import main
from samrt.geometry import place
from samrt.manifest import OutputSpec
from samrt.postprocess import full_size_logits, make_masks, mask_indices, returned_logits

SPEC = OutputSpec(
    low_res_size=(32, 32),
    num_masks=4,
    multimask_indices=(1, 2, 3),
    single_mask_index=0,
    mask_choice="predicted_iou",
    threshold=0.0,
    threshold_space="logits",
    resize_kind="two_step",
    resize_interpolation="bilinear",
    stability_offset=1.0,
)
SCORES = np.array([0.95, 0.3, 0.9, 0.2], np.float32)
BOX = (10, 5, 60, 40)

Load = Callable[..., samrt.Predictor]


def logits_of_stability(*shares: float) -> NDArray[np.float32]:
    """Maps of 100 pixels at 5 or 0.5: the share of them at 5 is the stability at offset 1."""
    maps = np.full((len(shares), 10, 10), 0.5, np.float32)
    for one, share in zip(maps, shares, strict=True):
        one.ravel()[: round(100 * share)] = 5
    return maps


STABLE = logits_of_stability(0.1, 0.4, 0.2, 0.8)


@pytest.mark.parametrize(
    ("changes", "several", "single"),
    [
        ({}, (1, 2, 3), (0,)),
        ({"single_mask": "best"}, (1, 2, 3), (0,)),
        ({"single_mask": "best", "mask_choice": "stability"}, (1, 2, 3), (3,)),
        ({"single_mask": "best_candidate"}, (1, 2, 3), (2,)),
        ({"single_mask": "best_candidate", "mask_choice": "stability"}, (1, 2, 3), (3,)),
        ({"multimask": "best"}, (2,), (0,)),
        ({"multimask": "best", "mask_choice": "stability"}, (3,), (0,)),
        ({"multimask_indices": (0, 1, 2), "multimask": "best"}, (0,), (0,)),
        ({"single_mask_index": 2}, (1, 2, 3), (2,)),
    ],
)
def test_rules_for_several_masks_and_for_one(
    changes: dict[str, Any], several: tuple[int, ...], single: tuple[int, ...]
) -> None:
    spec = replace(SPEC, **changes)
    assert mask_indices(spec, SCORES, STABLE, multimask=True) == several
    assert mask_indices(spec, SCORES, STABLE, multimask=False) == single
    assert mask_indices(spec, SCORES, STABLE, multimask="all") == (0, 1, 2, 3)


def test_the_first_of_equals_is_best() -> None:
    spec = replace(SPEC, single_mask="best", multimask="best")
    equal = np.full(4, 0.5, np.float32)
    assert mask_indices(spec, equal, STABLE, multimask=False) == (0,)
    assert mask_indices(spec, equal, STABLE, multimask=True) == (1,)


def test_stability_of_probabilities_is_that_of_their_logits() -> None:
    spec = replace(SPEC, single_mask="best", mask_choice="stability")
    halved = replace(spec, threshold=0.5, threshold_space="probability")
    for rule in (spec, halved):
        assert mask_indices(rule, SCORES, STABLE, multimask=False) == (3,)


def test_returned_logits_are_clipped_and_masks_are_not() -> None:
    logits = np.array([[[-50.0, 3.0], [31.0, 90.0]]], np.float32)
    clipped = returned_logits(logits, replace(SPEC, logit_limit=32.0))
    assert clipped.tolist() == [[[-32.0, 3.0], [31.0, 32.0]]]
    assert clipped.dtype == np.float32
    assert returned_logits(logits, SPEC) is logits


@pytest.mark.parametrize(
    ("interpolation", "kind"), [("bicubic", "direct"), ("nearest", "two_step")]
)
def test_the_interpolation_reaches_masks_and_logits(interpolation: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    logits = 4 * np.random.default_rng(1).standard_normal((2, 32, 32), np.float32)
    placement = place((71, 50), (128, 128), "stretch")
    spec = replace(SPEC, resize_kind=kind, resize_interpolation=interpolation)
    values = torch.from_numpy(logits)[None]
    options = {"align_corners": False} if interpolation == "bicubic" else {}
    sizes = [(71, 50)] if kind == "direct" else [(128, 128), (71, 50)]
    for size in sizes:
        values = torch.nn.functional.interpolate(values, size, mode=interpolation, **options)
    expected = values[0].numpy()
    full = full_size_logits(logits, placement, spec, threads=1)
    np.testing.assert_allclose(full, expected, atol=1e-4)
    masks = make_masks(logits, placement, spec, threads=1).masks
    clear = np.abs(expected) > 1e-4
    np.testing.assert_array_equal(masks[clear], (expected > 0)[clear])


# --- through the engine -------------------------------------------------------------------


def test_all_mask_tokens_are_there_on_request(load_edited: Load, image: NDArray[np.uint8]) -> None:
    predictor = load_edited()
    predictor.set_image(image)
    everything = predictor.predict(box=BOX, multimask_output="all", return_logits=True)
    several = predictor.predict(box=BOX)
    single = predictor.predict(box=BOX, multimask_output=False)
    assert everything.masks.shape == (4, 48, 80)
    np.testing.assert_array_equal(everything.masks[:1], single.masks)
    np.testing.assert_array_equal(everything.masks[1:], several.masks)
    np.testing.assert_array_equal(everything.scores[1:], several.scores)
    assert everything.mask_logits is not None
    assert everything.mask_logits.shape == (4, 48, 80)
    with pytest.raises(OptionError, match="must be True, False or 'all', got 'some'"):
        predictor.predict(box=BOX, multimask_output="some")  # type: ignore[arg-type]


def test_masks_may_be_ranked_by_stability(load_edited: Load, image: NDArray[np.uint8]) -> None:
    by_score = load_edited()
    by_stability = load_edited({"output.mask_choice": "stability", "output.multimask": "best"})
    for predictor in (by_score, by_stability):
        predictor.set_image(image)
    several = by_score.predict(box=BOX)
    assert several.ranked_by == "predicted_iou"
    assert several.best == int(np.argmax(several.scores))
    best = by_stability.predict(box=BOX)
    assert best.ranked_by == "stability"
    assert best.masks.shape[0] == 1
    np.testing.assert_array_equal(best.masks[0], several.masks[several.stability.argmax()])
    assert best.scores[0] == several.scores[several.stability.argmax()]  # both are there
    everything = by_stability.predict(box=BOX, multimask_output="all")
    assert everything.best == int(np.argmax(everything.stability))


def test_limited_logits_of_a_model(load_edited: Load, image: NDArray[np.uint8]) -> None:
    free, limited = load_edited(), load_edited({"output.logit_limit": 0.25})
    for predictor in (free, limited):
        predictor.set_image(image)
    a, b = free.predict(box=BOX), limited.predict(box=BOX)
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_array_equal(np.clip(a.logits, -0.25, 0.25), b.logits)
    np.testing.assert_array_equal(a.stability, b.stability)


# --- classes ------------------------------------------------------------------------------


CLASSES = replace(SPEC, kind="classes", num_masks=5, multimask_indices=(1, 2, 3, 4))


def classes_logits() -> NDArray[np.float32]:
    return 3 * np.random.default_rng(2).standard_normal((5, 32, 32), np.float32)


def test_classes_compete_in_the_frame_and_go_to_the_image() -> None:
    torch = pytest.importorskip("torch")
    ndimage = pytest.importorskip("scipy.ndimage")
    logits = classes_logits()
    for size in ((64, 64), (128, 96), (61, 150), (1, 1), (37, 1)):
        placement = place(size, (64, 64), "stretch")
        found = class_map(logits, placement, CLASSES, threads=2)
        large = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None], (64, 64), mode="bilinear", align_corners=False
        )
        chances = large[0].softmax(0).numpy()
        labels = chances.argmax(0)
        assert (found.labels != labels).mean() < 1e-3
        means = [chances[c][labels == c].mean() for c in range(5)]
        np.testing.assert_allclose(found.scores, means, atol=1e-3)
        masks, margins = class_masks(
            logits, found, (1, 2, 3, 4), placement, CLASSES, with_logits=True
        )
        factors = [after / before for after, before in zip(size, (64, 64), strict=True)]
        expected = ndimage.zoom(found.labels, factors, order=0, mode="nearest")
        for index, mask in enumerate(masks.masks, 1):
            np.testing.assert_array_equal(mask, expected == index)
        assert masks.masks.sum(axis=0).max() <= 1
        assert masks.areas_px.tolist() == masks.masks.sum(axis=(1, 2)).tolist()
        assert margins is not None
        np.testing.assert_array_equal(margins > 0, masks.masks)
        assert ((masks.stability >= 0) & (masks.stability <= 1)).all()


def test_padding_of_the_frame_takes_no_part() -> None:
    logits = np.zeros((5, 32, 32), np.float32)
    logits[0] = 1.0
    logits[3, :16] = 2.0  # the upper half of the frame, which holds the picture
    placement = place((40, 80), (64, 64), "longest_side")
    found = class_map(logits, placement, CLASSES, threads=1)
    assert found.labels.shape == (32, 64)
    masks, _ = class_masks(logits, found, (1, 2, 3, 4), placement, CLASSES, with_logits=False)
    assert masks.masks[2, :38].all()
    assert masks.areas_px[[0, 1, 3]].tolist() == [0, 0, 0]
    assert found.scores[3] > found.scores[1] == 0.0


def test_a_class_that_is_nowhere_has_an_empty_mask_and_no_score() -> None:
    logits = classes_logits()
    logits[2] = -100
    placement = place((50, 50), (64, 64), "stretch")
    found = class_map(logits, placement, CLASSES, threads=1)
    masks, _ = class_masks(logits, found, (1, 2, 3, 4), placement, CLASSES, with_logits=False)
    assert masks.areas_px[1] == 0
    assert found.scores[2] == 0
    assert masks.boxes[1].tolist() == [0, 0, 0, 0]


@pytest.fixture
def classes_bundle(bundle_path: Path, manifest_doc: dict[str, Any], tmp_path: Path) -> Path:
    """A model of five classes without prompts: a convolution over the fixture's features."""
    onnx = pytest.importorskip("onnx")
    from samrt.bundle import write_bundle

    rng = np.random.default_rng(3)
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    shapes = {"image_embeddings": [1, 8, 16, 16], "high_res_s2": [1, 2, 32, 32]}
    results = {"low_res_masks": [1, 5, 32, 32], "iou_predictions": [1, 5]}
    weights = [
        tensor(rng.standard_normal((5, 2, 3, 3)).astype(np.float32), "w"),
        tensor(rng.standard_normal((8, 5)).astype(np.float32), "s"),
        tensor(np.array([2, 3], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Conv", ["high_res_s2", "w"], ["low_res_masks"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["image_embeddings"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "s"], ["iou_predictions"]),
    ]

    def infos(specs: dict[str, list[int]]) -> list[Any]:
        return [helper.make_tensor_value_info(n, 1, s) for n, s in specs.items()]

    graph = helper.make_graph(nodes, "classes", infos(shapes), infos(results), weights[:2])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    doc = manifest_doc
    for key in ("box", "points", "negative_points", "mask", "box_and_points", "padding_point"):
        doc["prompts"][key] = False
    doc["output"].update(num_masks=5, multimask_indices=[1, 2, 3, 4], kind="classes")
    doc["artifacts"][1].update(
        inputs=[{"name": n, "dtype": "float32", "shape": s} for n, s in shapes.items()],
        outputs=[{"name": n, "dtype": "float32", "shape": s} for n, s in results.items()],
    )
    files = {
        "encoder.onnx": bundle_path / "encoder.onnx", "decoder.onnx": model.SerializeToString(),
    }  # fmt: skip
    return write_bundle(tmp_path / "classes.samrt", doc, files).path


def test_a_model_of_classes_answers_without_a_prompt(
    classes_bundle: Path, image: NDArray[np.uint8]
) -> None:
    with samrt.load(classes_bundle, threads=1) as predictor:
        predictor.set_image(image)
        answer = predictor.predict(return_logits=True)
        assert answer.masks.shape == (4, 48, 80)
        assert answer.logits.shape == (4, 32, 32)
        assert answer.prompt.is_empty
        assert answer.warnings == ()
        assert answer.mask_logits is not None
        np.testing.assert_array_equal(answer.mask_logits > 0, answer.masks)
        everything = predictor.predict(multimask_output="all")
        assert (everything.masks.sum(axis=0) == 1).all()
        np.testing.assert_array_equal(everything.masks[1:], answer.masks)
        single = predictor.predict(multimask_output=False)
        np.testing.assert_array_equal(single.masks[0], everything.masks[0])  # the manifest's 0
        twice = predictor.predict_batch([Prompt.empty(), Prompt.empty()])
        for other in twice:
            np.testing.assert_array_equal(other.masks, answer.masks)
        with pytest.raises(PromptError, match="takes no prompts"):
            predictor.predict(box=BOX)


def test_classes_from_the_command_line(
    classes_bundle: Path, image: NDArray[np.uint8], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Without a prompt: a label map of all classes, a COCO category for each."""
    picture, out = tmp_path / "scan.png", tmp_path / "out"
    Image.fromarray(image).save(picture)
    words = ["infer", str(picture), "--model", str(classes_bundle), "-o", str(out), "--json"]
    assert main([*words, "--outputs", "mask,overlay,label,coco,polygons,npz"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["prompts"]) == 1
    with samrt.load(classes_bundle, threads=1) as predictor:
        predictor.set_image(image)
        masks = predictor.predict().masks
    wanted = (masks * np.arange(1, 5)[:, None, None]).sum(axis=0)
    assert len(np.unique(wanted)) > 2
    np.testing.assert_array_equal(np.asarray(Image.open(out / "scan.labels.png")), wanted)
    coco = json.loads((out / "scan.coco.json").read_text("utf-8"))
    assert [c["id"] for c in coco["categories"]] == [1, 2, 3, 4]
    assert [a["category_id"] for a in coco["annotations"]] == [1, 2, 3, 4]
    assert len(list(out.glob("scan.m*.mask.png"))) == 4
    assert main(["infer", str(picture)]) == 2
    assert "nothing to segment" in capsys.readouterr().err


def test_models_with_prompts_still_want_one(load_edited: Load, image: NDArray[np.uint8]) -> None:
    predictor = load_edited()
    predictor.set_image(image)
    with pytest.raises(PromptError, match="empty prompt: give a box"):
        predictor.predict()
    with pytest.raises(PromptError, match="empty prompt: this model takes box"):
        predictor.predict_batch([Prompt.empty()])
