"""Refining: the decoder is asked again with its own best mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.decoding import check_refine_steps
from samrt.errors import OptionError
from samrt.square import predict_square
from samrt.zoom import predict_zoomed

Picture = Callable[..., NDArray[np.uint8]]
BOX = (20, 10, 60, 40)
PROMPTS = [
    samrt.Prompt(box=BOX),
    samrt.Prompt(point_coords=[(30, 20)], point_labels=[1]),
    samrt.Prompt(box=BOX, point_coords=[(30, 20)], point_labels=[0]),
    samrt.Prompt(mask_input=np.linspace(-6, 6, 1024, dtype=np.float32).reshape(32, 32)),
]


def by_hand(
    predictor: samrt.Predictor, prompt: samrt.Prompt, steps: int, multimask: Any
) -> samrt.Prediction:
    """What a caller would do without the option."""
    found = predictor.predict_batch([prompt], multimask_output=multimask)[0]
    for _ in range(steps):
        again = samrt.Prompt(
            box=prompt.box,
            point_coords=prompt.point_coords,
            point_labels=prompt.point_labels,
            mask_input=found.logits[found.best],
        )
        found = predictor.predict_batch([again], multimask_output=multimask)[0]
    return found


@pytest.mark.parametrize("multimask", [True, False, "all"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_refining_feeds_the_best_mask_back(
    predictor: samrt.Predictor, image: NDArray[np.uint8], prompt: samrt.Prompt, multimask: Any
) -> None:
    predictor.set_image(image)
    plain = predictor.predict_batch([prompt], multimask_output=multimask)[0]
    assert plain.refine_steps == 0
    for steps in (1, 3):
        found = predictor.predict_batch([prompt], multimask_output=multimask, refine_steps=steps)[0]
        wanted = by_hand(predictor, prompt, steps, multimask)
        np.testing.assert_array_equal(found.logits, wanted.logits)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        np.testing.assert_array_equal(found.masks, wanted.masks)
        assert (found.logits != plain.logits).any()
        assert found.prompt is prompt
        assert found.refine_steps == steps


def test_the_masks_ranked_by_stability_are_fed_by_stability(
    load_edited: Callable[..., samrt.Predictor], image: NDArray[np.uint8]
) -> None:
    predictor = load_edited({"output.mask_choice": "stability"})
    predictor.set_image(image)
    found = predictor.predict(box=BOX, refine_steps=1)
    wanted = by_hand(predictor, samrt.Prompt(box=BOX), 1, True)
    np.testing.assert_array_equal(found.logits, wanted.logits)


def test_logits_are_limited_before_they_are_fed_back(
    load_edited: Callable[..., samrt.Predictor], image: NDArray[np.uint8]
) -> None:
    predictor = load_edited({"output.logit_limit": 0.5})
    predictor.set_image(image)
    found = predictor.predict(box=BOX, refine_steps=1)
    wanted = by_hand(predictor, samrt.Prompt(box=BOX), 1, True)
    np.testing.assert_array_equal(found.logits, wanted.logits)


def test_many_prompts_are_refined_each_for_itself(
    predictor: samrt.Predictor, image: NDArray[np.uint8]
) -> None:
    predictor.set_image(image)
    together = predictor.predict_batch(PROMPTS * 2, refine_steps=2)
    for found, prompt in zip(together, PROMPTS * 2, strict=True):
        alone = predictor.predict_batch([prompt], refine_steps=2)[0]
        np.testing.assert_allclose(found.logits, alone.logits, rtol=1e-4, atol=1e-4)
        assert found.prompt is prompt


def test_zoomed_and_square_answers_are_refined_too(
    predictor: samrt.Predictor, picture: Picture
) -> None:
    image, prompt = picture(200, 300), samrt.Prompt(box=(140, 90, 160, 105))
    for zoom in ("on", "off"):
        plain = predict_zoomed(predictor, image, prompt, zoom=zoom)[0]
        found = predict_zoomed(predictor, image, prompt, zoom=zoom, refine_steps=1)[0]
        assert (plain.refine_steps, found.refine_steps) == (0, 1)
        assert (found.logits != plain.logits).any()
    for spacing in ((1.0, 1.0), (2.0, 1.0)):
        plain = predict_square(predictor, image, prompt, spacing=spacing)[0]
        found = predict_square(predictor, image, prompt, spacing=spacing, refine_steps=1)[0]
        assert (plain.refine_steps, found.refine_steps) == (0, 1)
        assert (found.logits != plain.logits).any()


@pytest.mark.parametrize("steps", [-1, 11, 1.0, True, "1", None])
def test_odd_numbers_of_steps_are_refused(
    predictor: samrt.Predictor, image: NDArray[np.uint8], steps: Any
) -> None:
    predictor.set_image(image)
    with pytest.raises(OptionError, match="refine_steps must be a whole number from 0 to 10"):
        predictor.predict(box=BOX, refine_steps=steps)


def test_models_that_take_no_mask_cannot_refine(predictor: samrt.Predictor) -> None:
    manifest = predictor.manifest
    without = replace(manifest, prompts=replace(manifest.prompts, mask=False))
    classes = replace(manifest, output=replace(manifest.output, kind="classes"))
    check_refine_steps(1, manifest)
    for other in (without, classes):
        check_refine_steps(0, other)
        with pytest.raises(OptionError, match="takes no mask as a prompt"):
            check_refine_steps(1, other)
