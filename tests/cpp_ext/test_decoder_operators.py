"""The mask decoder's operators in ONNX Runtime against `samrt.reference_operators`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import reference_operators as plain

from .nodes import close, noise, run

F32 = NDArray[np.float32]


def mask_prompt(
    rng: np.random.Generator, prompts: int, keys: int, places: int, weights: tuple[int, ...]
) -> list[F32 | None]:
    """has_mask, rows, columns and weight of five rows; the first prompt has no mask."""
    given = (np.arange(prompts) > 0).astype(np.float32)
    return [
        given, noise(rng, prompts, 5, places), noise(rng, prompts, keys, 5), noise(rng, *weights),
    ]  # fmt: skip


@pytest.mark.parametrize(("prompts", "tokens", "places"), [(1, 1, 1), (2, 7, 600), (3, 13, 257)])
@pytest.mark.parametrize("masks", [False, True])
def test_read_image(prompts: int, tokens: int, places: int, masks: bool) -> None:
    rng = np.random.default_rng(tokens)
    heads, d = 3, 16
    queries = noise(rng, prompts, heads, tokens, d, scale=2)
    keys, values = noise(rng, 1, heads, d, places), noise(rng, 1, heads, places, d)
    own = mask_prompt(rng, prompts, heads * tokens, places, (heads, 5, d)) if masks else []
    got = run("ReadImage", [queries, keys, values, *own], feed=3)
    close(got, plain.read_image(queries, keys, values, *own))


@pytest.mark.parametrize(("prompts", "tokens", "reads"), [(1, 1, 1), (2, 7, 40), (3, 9, 72)])
@pytest.mark.parametrize("form", ["first", "first with masks", "later", "later, one image"])
def test_image_pass(prompts: int, tokens: int, reads: int, form: str) -> None:
    rng = np.random.default_rng(tokens)
    heads, high, wide, c, d = 4, 20, 13, 40, 8
    places, first = high * wide, form.startswith("first")
    keys = noise(rng, prompts, heads, tokens, d if first else c, scale=0.5)
    images = noise(rng, *((1, c, high, wide) if first else (prompts, places, c)))
    inputs = [
        images[:1] if "one" in form else images, noise(rng, 1, places, c), noise(rng, c),
        noise(rng, c), noise(rng, prompts, heads * tokens, c), noise(rng, prompts, reads, c),
        keys if first else keys.reshape(prompts, -1, c),
        None if first else noise(rng, prompts, heads * tokens, 1),
        noise(rng, 1, heads, d, places) if first else None,
    ]  # fmt: skip
    if "masks" in form:
        inputs += mask_prompt(rng, prompts, heads * tokens, places, (5, c))
    image, seen = plain.image_pass(*inputs, heads=heads, epsilon=1e-5)  # type: ignore[arg-type]
    close(run("ImagePass", inputs, feed=1, heads=heads, epsilon=1e-5), image)
    close(run("ImagePass", inputs, feed=1, result=1, heads=heads, epsilon=1e-5), seen, 5e-6)


def test_the_threads_do_not_change_an_image_pass() -> None:
    rng = np.random.default_rng(3)
    inputs = [
        noise(rng, 1, 700, 32), noise(rng, 1, 700, 32), noise(rng, 32), noise(rng, 32),
        noise(rng, 1, 8, 32), noise(rng, 1, 9, 32), noise(rng, 1, 8, 32), noise(rng, 1, 8, 1),
    ]  # fmt: skip
    one, two = (
        run("ImagePass", list(inputs), threads=k, result=1, heads=2, epsilon=1e-5) for k in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


def test_an_image_pass_says_what_does_not_fit() -> None:
    rng = np.random.default_rng(3)
    inputs: list[F32 | None] = [
        noise(rng, 1, 70, 32), noise(rng, 1, 70, 32), noise(rng, 32), noise(rng, 32),
        noise(rng, 1, 8, 32), noise(rng, 1, 9, 32), noise(rng, 1, 8, 32),
    ]  # fmt: skip
    with pytest.raises(Exception, match="either offset or side is needed"):
        run("ImagePass", inputs, heads=2, epsilon=1e-5)
    with pytest.raises(Exception, match=r"values \(N, heads \* T, C\)"):
        run("ImagePass", inputs, heads=3, epsilon=1e-5)
    with pytest.raises(Exception, match="belong together"):
        run("ReadImage", [noise(rng, 1, 2, 3, 4), noise(rng, 1, 2, 4, 9), noise(rng, 1, 2, 9, 4),
                          noise(rng, 1)])  # fmt: skip


@pytest.mark.parametrize(("prompts", "high", "wide"), [(1, 1, 1), (2, 3, 20), (3, 16, 5)])
def test_mask_rows(prompts: int, high: int, wide: int) -> None:
    rng = np.random.default_rng(wide)
    masks = noise(rng, prompts, 1, 4 * high, 4 * wide)
    given = (np.arange(prompts) > 0).astype(np.float32)
    weights = [
        noise(rng, 4, 4), noise(rng, 4), noise(rng, 4), noise(rng, 4),
        noise(rng, 16, 18), noise(rng, 18), noise(rng, 18), noise(rng, 18),
    ]  # fmt: skip
    got = run("MaskRows", [masks, given, *weights], feed=2, epsilon=1e-6)
    assert not got[0].any()
    close(got, plain.mask_rows(masks, given, *weights, epsilon=1e-6), 5e-6)
