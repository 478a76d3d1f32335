"""The operators of `tiny`'s decoder in ONNX Runtime against `samrt.reference_fine`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import reference_fine as plain

from .nodes import close, noise, run

F32 = NDArray[np.float32]
CHANNELS, MIDDLE, F8, F4, F2, MASKS = 24, 16, 12, 8, 4, 4


def prompt_inputs(rng: np.random.Generator, side: int, prompts: int, points: int) -> list[F32]:
    """Of DrawPrompts: boxes, clicks of both kinds, padding; the first prompt has no mask."""
    labels = np.resize(np.float32([2, 3, 1, 0, 1, -1, -1]), (prompts, points))
    corners = np.sort(rng.uniform(0, 16 * side, (prompts, points, 2)), axis=1)
    return [
        corners.astype(np.float32), labels, noise(rng, prompts, 1, 8 * side, 8 * side, scale=6),
        (np.arange(prompts) > 0).astype(np.float32), noise(rng, 1, CHANNELS, side, side),
        noise(rng, 12 * 9, MIDDLE, scale=0.2), noise(rng, MIDDLE),
        noise(rng, MIDDLE, CHANNELS, scale=0.2), noise(rng, CHANNELS),
    ]  # fmt: skip


def fine_inputs(rng: np.random.Generator, side: int, prompts: int, points: int) -> list[F32]:
    """Of FineMasks, with maps of real prompts."""
    maps, image = plain.draw_prompts(*prompt_inputs(rng, side, prompts, points))

    def conv(width: int) -> list[F32]:
        return [noise(rng, width, width, 3, 3, scale=0.3 * width**-0.5), noise(rng, width)]

    def matrix(*shape: int) -> F32:
        return noise(rng, *shape, scale=0.2)

    def like(width: int) -> list[F32]:
        return [matrix(width, width), matrix(width, width), matrix(4 * width, width),
                noise(rng, width)]  # fmt: skip

    return [
        image, noise(rng, 1, F8, 2 * side, 2 * side), noise(rng, 1, F4, 4 * side, 4 * side),
        noise(rng, 1, F2, 8 * side, 8 * side), maps, noise(rng, prompts, MASKS, F2 + 1),
        matrix(CHANNELS, MIDDLE), noise(rng, MIDDLE), *conv(MIDDLE), matrix(MIDDLE, CHANNELS),
        noise(rng, CHANNELS), matrix(CHANNELS, F8), noise(rng, F8), *like(F8), *like(F4),
        matrix(12, F8), noise(rng, F8), *conv(F8), *conv(F8), matrix(F4, F8), noise(rng, F4),
        matrix(F4, 12), noise(rng, F4), *conv(F4), *conv(F4), matrix(F2, F4), noise(rng, F2),
        *conv(F2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("side", "prompts", "points"), [(4, 1, 2), (8, 3, 7), (12, 2, 1), (4, 2, 0)]
)
def test_fine_prompts(side: int, prompts: int, points: int) -> None:
    inputs = prompt_inputs(np.random.default_rng(side), side, prompts, points)
    for result, wanted in enumerate(plain.draw_prompts(*inputs)):
        close(run("DrawPrompts", [*inputs], feed=5, result=result), wanted)


@pytest.mark.parametrize(("places", "reads"), [(1, 1), (64, 28), (300, 5)])
def test_fine_rows(places: int, reads: int) -> None:
    rng = np.random.default_rng(places)
    image, codes = noise(rng, 2, places, CHANNELS), noise(rng, 1, places, CHANNELS)
    queries = noise(rng, 2, reads, CHANNELS, scale=0.5)
    got = run("ReadRows", [image, codes, queries], feed=3)
    close(got, plain.read_rows(image, codes, queries))


@pytest.mark.parametrize(("side", "prompts", "points"), [(4, 1, 2), (8, 2, 7), (12, 1, 1)])
def test_fine_masks(side: int, prompts: int, points: int) -> None:
    inputs = fine_inputs(np.random.default_rng(side), side, prompts, points)
    for result, wanted in enumerate(plain.fine_masks(*inputs)):
        close(run("FineMasks", [*inputs], feed=6, result=result), wanted, 2e-5)


def encoder_inputs(rng: np.random.Generator, blocks: tuple[int, ...]) -> list[F32]:
    """Of FineEncoder: the weights."""
    stem, widths, dims, results = 6, (8, 12, 20, 16), (24, 12, 8), (16, 8, 8, 4)
    found: list[F32] = []

    def conv(out: int, channels: int, taps: int = 3) -> None:
        scale = (taps * taps * channels) ** -0.5
        found.extend(
            (noise(rng, out, channels, taps, taps, scale=scale), noise(rng, out, scale=0.2))
        )

    conv(stem, 3, 5)
    for before, width, count in zip((stem, *widths), widths, blocks, strict=False):
        conv(width, before)
        for _ in range(2 * count):
            conv(width, width)
    for fine, coarse, dim in zip(widths[2::-1], (widths[3], *dims), dims, strict=False):
        conv(dim, fine, 1)
        conv(dim, coarse, 1)
        conv(dim, dim)
    for out, channels in zip((*results, results[-1]), (*dims, stem, dims[-1]), strict=True):
        conv(out, channels, 1)
    return found


@pytest.mark.parametrize(("side", "blocks"), [(128, (1, 0, 2, 1)), (256, (0, 1, 0, 0))])
def test_fine_encoder(side: int, blocks: tuple[int, ...]) -> None:
    rng = np.random.default_rng(side)
    image, weights = noise(rng, 1, 3, side, side), encoder_inputs(rng, blocks)
    named = {f"blocks{k}": count for k, count in enumerate(blocks, 1)}
    for result, wanted in enumerate(plain.fine_encoder(image, *weights, blocks=blocks)):
        close(run("FineEncoder", [image, *weights], result=result, **named), wanted, 5e-6)


def test_an_encoder_says_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    blocks = {"blocks1": 0, "blocks2": 0, "blocks3": 0, "blocks4": 0}
    weights = encoder_inputs(rng, (0, 0, 0, 0))
    with pytest.raises(Exception, match="multiple of 128"):
        run("FineEncoder", [noise(rng, 1, 3, 192, 192), *weights], **blocks)
    image = noise(rng, 1, 3, 128, 128)
    with pytest.raises(Exception, match="blocks3 is missing"):
        run("FineEncoder", [image, *weights], blocks1=0, blocks2=0, blocks4=0)
    with pytest.raises(Exception, match="fit"):
        run("FineEncoder", [image, *weights], **{**blocks, "blocks2": 1})
    with pytest.raises(Exception, match="input size 37"):
        run("FineEncoder", [image, *weights[:-2]], **blocks)


def test_the_threads_do_not_change_fine_masks() -> None:
    inputs = fine_inputs(np.random.default_rng(5), 8, 1, 2)
    for result in range(3):
        one, two = (run("FineMasks", [*inputs], threads=k, feed=6, result=result) for k in (1, 2))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("op", "index", "shape", "message"),
    [
        ("DrawPrompts", 0, (2, 3, 2), "point_coords"),
        ("DrawPrompts", 2, (1, 1, 8, 8), "mask_input must be"),
        ("DrawPrompts", 4, (1, CHANNELS, 6, 6), "multiple of 4"),
        ("DrawPrompts", 4, (1, CHANNELS, 4, 8), "embedding must be"),
        ("DrawPrompts", 5, (9, MIDDLE), "do not fit"),
        ("FineMasks", 0, (1, 15, CHANNELS), "do not fit each other"),
        ("FineMasks", 1, (1, F8, 6, 6), "S a multiple of 4"),
        ("FineMasks", 3, (1, F2, 8, 8), "do not fit each other"),
        ("FineMasks", 5, (1, 3, F2 + 1), "M a multiple of 4"),
        ("FineMasks", 12, (CHANNELS, 8), "stride 8 do not fit"),
        ("FineMasks", 24, (F8, F8, 1, 1), "must be"),
        ("FineMasks", 38, (6, F2, 3, 3), "multiple of 4"),
        ("ReadRows", 1, (1, 5, CHANNELS), "do not fit"),
    ],
)
def test_what_does_not_fit_is_an_error(
    op: str, index: int, shape: tuple[int, ...], message: str
) -> None:
    rng = np.random.default_rng(1)
    inputs = {
        "DrawPrompts": lambda: prompt_inputs(rng, 4, 1, 2),
        "FineMasks": lambda: fine_inputs(rng, 4, 1, 2),
        "ReadRows": lambda: [noise(rng, 1, 16, CHANNELS)] * 3,
    }[op]()
    inputs[index] = np.ones(shape, np.float32)
    if (op, index) == ("FineMasks", 38):
        inputs[39] = np.ones(6, np.float32)
    feed = {"DrawPrompts": 5, "FineMasks": 6, "ReadRows": 3}[op]
    with pytest.raises(Exception, match=message):
        run(op, [*inputs], feed=feed)
