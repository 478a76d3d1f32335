"""The embedded model does what its card says, within what a quick test can tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ORGANS = {"kidney_left": 0.8, "spleen": 0.75, "lesion": 0.7}


@pytest.fixture(scope="module")
def engine() -> Iterator[samrt.Predictor]:
    with samrt.load("tiny", threads=2) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def organs() -> dict[str, NDArray[np.bool_]]:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from ct_phantom import make_phantom
    finally:
        sys.path.pop(0)
    return dict(make_phantom().organs)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


@pytest.mark.parametrize("name", sorted(ORGANS))
def test_boxes_on_the_phantom(
    engine: samrt.Predictor, organs: dict[str, NDArray[np.bool_]], name: str
) -> None:
    engine.set_image(ROOT / "examples" / "ct_phantom.png")
    found = engine.predict(box=box_of(organs[name]), multimask_output=False)
    assert iou(found.masks[0], organs[name]) > ORGANS[name]


def test_many_prompts_equal_single_ones(
    engine: samrt.Predictor, organs: dict[str, NDArray[np.bool_]]
) -> None:
    engine.set_image(ROOT / "examples" / "ct_phantom.png")
    prompts = [samrt.Prompt(box=box_of(organs[name])) for name in sorted(organs)]
    together = engine.predict_batch(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = engine.predict(box=prompt.box)
        assert np.abs(alone.logits - answer.logits).max() < 1e-3
        assert np.abs(alone.scores - answer.scores).max() < 1e-4


def test_corrections_and_the_previous_mask_help(
    engine: samrt.Predictor, organs: dict[str, NDArray[np.bool_]]
) -> None:
    engine.set_image(ROOT / "examples" / "ct_phantom.png")
    truth = organs["spleen"]
    ys, xs = np.nonzero(truth)
    start = engine.predict([(int(xs.mean()), int(ys.mean()))], [1], multimask_output=False)
    points, labels = [(int(xs.mean()), int(ys.mean()))], [1]
    answer = start
    rng = np.random.default_rng(0)
    for _ in range(5):
        wrong = answer.masks[0] ^ truth
        at = np.flatnonzero(wrong)
        y, x = divmod(int(rng.choice(at)), truth.shape[1])
        points.append((x, y))
        labels.append(int(truth[y, x]))
        answer = engine.predict(points, labels, mask_input=answer.logits[0], multimask_output=False)
    assert iou(answer.masks[0], truth) > iou(start.masks[0], truth)


def test_cold_numbers_are_in_the_manifest() -> None:
    from samrt.bundle import Bundle, find_model

    bundle = Bundle.open(find_model("tiny"), verify="full")
    parity = bundle.manifest.parity
    assert parity is not None
    assert parity["mask_iou_mean"] > 0.99
    assert "clinical" in str(bundle.manifest.source["intended_use"]).lower()


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="the evaluation data is not beside the repository")
def test_accuracy_on_a_sample_of_real_images(engine: samrt.Predictor) -> None:
    """A few targets a set: a floor well under the card's figures, to catch a broken export."""
    pytest.importorskip("cv2")
    from samrt_export.tiny.bundle_segmenter import BundleSegmenter
    from samrt_export.tiny.evaluate import evaluate

    mean = evaluate(BundleSegmenter(engine), DATA, per_set=4, clicks=0)["mean of sets"]
    assert mean["n"] >= 40
    assert mean["box"] > 0.7
    assert mean["box_nsd"] > mean["ellipse_nsd"]
