"""Pictures with uneven pixels are shown upright; answers lie on the picture's own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.errors import ImageError, OptionError, PromptError
from samrt.imaging.volumes.segment import Stretch, stretch_for
from samrt.square import predict_square
from samrt.types import Prompt


@pytest.fixture(scope="module")
def engine() -> Any:
    with samrt.load("tiny", threads=1) as found:
        yield found


def flat_ball(factor: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A ball and noise, 160 columns by 160 / factor rows."""
    rows, columns = 160 // factor, 160
    y, x = np.ogrid[:rows, :columns]
    truth: NDArray[np.bool_] = ((y + 0.5) * factor - 80) ** 2 + (x - 80) ** 2 < 34**2
    noise = np.random.default_rng(1).normal(0, 14, truth.shape)
    return np.clip(np.where(truth, 120, 80) + noise, 0, 255).astype(np.uint8), truth


def box_of(truth: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    ys, xs = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_squashed_pictures_are_answered_on_their_own_pixels(engine: Any) -> None:
    image, truth = flat_ball(4)
    prompt = Prompt(box=box_of(truth))
    found = predict_square(engine, image, prompt, spacing=(2.0, 0.5), multimask_output=True)[0]
    assert found.masks.shape == (len(found.scores), *truth.shape)
    assert found.prompt is prompt
    np.testing.assert_array_equal(found.areas_px, found.masks.sum(axis=(1, 2)))
    for mask, box in zip(found.masks, found.boxes, strict=True):
        assert tuple(box) == (box_of(mask) if mask.any() else (0.0,) * 4)
    assert dice(found.masks[found.best], truth) > 0.93


def test_it_is_what_the_stretched_picture_gives(engine: Any) -> None:
    """Columns as well as rows, colours, points; brought back by majority."""
    image, truth = (a.T for a in flat_ball(2))
    colour = np.stack([image, image // 2, 255 - image], -1)
    prompt = Prompt(
        box=box_of(truth), point_coords=np.array([[39.9, 80.0]]), point_labels=np.array([1])
    )
    found = predict_square(engine, colour, prompt, spacing=(0.6, 1.2))[0]
    shown = np.rint(Stretch(columns=2).picture(colour)).astype(np.uint8)
    assert shown.shape == (160, 160, 3)
    x0, y0, x1, y1 = box_of(truth)
    other = engine.decode(
        engine.encode(shown),
        Prompt(box=(2 * x0, y0, 2 * x1, y1), point_coords=np.array([[80.3, 80.0]]),
               point_labels=np.array([1])),
        multimask_output=False,
    )[0]  # fmt: skip
    pairs = other.masks.reshape(-1, 160, 80, 2).mean(axis=3) >= 0.5
    np.testing.assert_array_equal(found.masks, pairs)
    np.testing.assert_array_equal(found.scores, other.scores)


def test_deep_images_keep_their_window(engine: Any) -> None:
    image, truth = flat_ball(4)
    deep = image.astype(np.int16) * 10 - 1000
    prompt = Prompt(box=box_of(truth))
    plain = predict_square(engine, image, prompt, spacing=(4.0, 1.0))[0]
    found = predict_square(engine, deep, prompt, spacing=(4.0, 1.0), window=(-1000.0, 1550.0))[0]
    assert dice(found.masks[0], plain.masks[0]) > 0.99


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.7, 0.6), (1.0, 1.4)])
def test_pixels_that_are_nearly_square_are_left_alone(
    engine: Any, spacing: tuple[float, float]
) -> None:
    image, truth = flat_ball(1)
    prompt = Prompt(box=box_of(truth))
    found = predict_square(engine, image, prompt, spacing=spacing)[0]
    plain = engine.decode(engine.encode(image), prompt, multimask_output=False)[0]
    np.testing.assert_array_equal(found.masks, plain.masks)


def test_a_point_at_the_far_edge_stays_on_the_picture(engine: Any) -> None:
    image, _ = flat_ball(4)
    prompt = Prompt(point_coords=np.array([[159.9, 39.9]]), point_labels=np.array([1]))
    assert len(predict_square(engine, image, prompt, spacing=(4.0, 1.0))) == 1


def test_bad_input(engine: Any) -> None:
    image, truth = flat_ball(4)
    box = box_of(truth)
    logits = np.zeros(engine.manifest.output.low_res_size, np.float32)
    with pytest.raises(PromptError, match="mask_input"):
        predict_square(engine, image, Prompt(box=box, mask_input=logits), spacing=(4.0, 1.0))
    with pytest.raises(PromptError, match="height 40"):  # checked on the picture's own pixels
        predict_square(engine, image, Prompt(box=(0, 0, 20, 60)), spacing=(4.0, 1.0))
    with pytest.raises(ImageError, match="pixels"):
        predict_square(engine, image, Prompt(box=box), spacing=(4.0, 1.0), max_pixels=20_000)
    for spacing in ((0.0, 1.0), (1.0, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(OptionError, match="spacing"):
            stretch_for(*spacing)
