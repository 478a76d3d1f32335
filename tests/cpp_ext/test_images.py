"""Resizing, windowing and normalising: the kernels against Pillow, NumPy and OpenCV."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt import _kernels, reference
from samrt.reference_resize import resize_exactly

EXACT = ("bilinear_antialias", "bicubic", "nearest", "area")
ALL = (*EXACT, "bilinear", "bspline_antialias", "bspline_corners")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# One pixel, lines, primes, powers of two, growing and shrinking a lot, one axis each way.
CORNER_SIZES = [
    ((1, 1), (1, 1)), ((1, 1), (7, 5)), ((5, 1), (3, 4)), ((1, 97), (2, 13)), ((97, 1), (13, 1)),
    ((31, 37), (31, 37)), ((31, 37), (31, 101)), ((31, 37), (101, 37)), ((64, 64), (128, 128)),
    ((127, 89), (61, 43)), ((3, 2000), (5, 3)), ((2000, 3), (3, 5)), ((400, 300), (3, 2)),
    ((64, 64), (64, 128)), ((64, 70), (128, 70)), ((33, 50), (132, 200)), ((32, 32), (1024, 512)),
    ((17, 16), (136, 512)), ((128, 128), (64, 64)), ((96, 128), (24, 32)),
    ((2, 3), (300, 401)), ((100, 10), (10, 100)), ((10, 100), (100, 10)), ((333, 111), (128, 43)),
]  # fmt: skip


def picture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise, and in one case of three only black and white, where cubic weights overshoot."""
    if rng.integers(3) == 0:
        return (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def random_sizes(rng: np.random.Generator, n: int, top: float) -> list[tuple[int, ...]]:
    return [tuple(int(2**x) for x in rng.uniform(0, top, 4)) for _ in range(n)]


@pytest.mark.parametrize("interpolation", EXACT)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_equals_the_reference(
    interpolation: str, channels: int, instruction_set: str
) -> None:
    rng = np.random.default_rng(1)
    cases = [(*a, *b) for a, b in CORNER_SIZES] + random_sizes(rng, 40, 8.0)
    for case in cases:
        before, after = case[:2], (case[2], case[3])
        image = picture(rng, before if channels == 1 else (*before, 3))
        expected = reference.resize(image, after, interpolation)
        got = _kernels.resize(image, after, interpolation, int(rng.integers(1, 4)))
        np.testing.assert_array_equal(got, expected, f"{before} -> {after}")


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="older order of the passes")
@pytest.mark.parametrize("interpolation", ["bilinear_antialias", "bicubic"])
def test_resize_equals_pillow(interpolation: str) -> None:
    method = {"bilinear_antialias": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    rng = np.random.default_rng(2)
    cases = random_sizes(rng, 60, 8.5)
    for d in (1, 5, 30):  # at the edge of the rule for the order of the passes
        cases += [(20 + 2 * d + e, 40 + d, 20, 40) for e in (-1, 0, 1)]
    for i, (height, width, h, w) in enumerate(cases):
        image = picture(rng, (height, width, 3) if i % 2 else (height, width))
        expected = np.array(Image.fromarray(image).resize((w, h), method[interpolation]))
        got = _kernels.resize(image, (h, w), interpolation)
        np.testing.assert_array_equal(got, expected, f"{(height, width)} -> {(h, w)}")


def test_bilinear_resize_rounds_the_exact_value(instruction_set: str) -> None:
    rng = np.random.default_rng(3)
    cases = [(*a, *b) for a, b in CORNER_SIZES] + random_sizes(rng, 30, 8.0)
    for i, (height, width, h, w) in enumerate(cases):
        image = picture(rng, (height, width, 3) if i % 2 else (height, width))
        exact = resize_exactly(image, (h, w), "bilinear")
        got = _kernels.resize(image, (h, w), "bilinear", 2)
        assert np.abs(got - exact).max() <= 0.502, f"{(height, width)} -> {(h, w)}"


def test_resize_equals_opencv_but_for_one_level_of_bilinear() -> None:
    cv2 = pytest.importorskip("cv2")
    method = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}
    rng = np.random.default_rng(4)
    cases = [(*a, *b) for a, b in CORNER_SIZES] + random_sizes(rng, 60, 8.0)
    for _ in range(40):  # whole ratios, which have a rule of their own
        h, w, down, across = (int(n) for n in rng.integers(1, (60, 60, 6, 6)))
        cases.append((h * down, w * across, h, w))
    for (i, (height, width, h, w)), name in itertools.product(enumerate(cases), method):
        image = picture(rng, (height, width, 3) if i % 2 else (height, width))
        expected = cv2.resize(image, (w, h), interpolation=method[name]).astype(int)
        got = _kernels.resize(image, (h, w), name).astype(int)
        limit = 1 if name == "bilinear" else 0
        assert np.abs(got - expected).max() <= limit, f"{name} {(height, width)} -> {(h, w)}"


def test_results_do_not_depend_on_threads_or_processor(instruction_sets: list[str]) -> None:
    rng = np.random.default_rng(5)
    image = picture(rng, (311, 203, 3))
    deep = rng.integers(0, 65536, (211, 173), dtype=np.uint16)
    seen: dict[str, NDArray[np.generic]] = {}
    for name, threads in itertools.product(instruction_sets, (1, 2, 3, 200)):
        _kernels.load().select_instruction_set(name)
        for interpolation in ALL:
            options: dict[str, Any] = {
                "out_size": (128, 128), "resized": (128, 84), "mean": MEAN, "std": STD,
            }  # fmt: skip
            got = _kernels.preprocess(
                image, interpolation=interpolation, threads=threads, **options
            )
            np.testing.assert_array_equal(seen.setdefault(interpolation, got), got)
            got = _kernels.preprocess_window(
                deep, window=(100, 60000), interpolation=interpolation, threads=threads, **options
            )
            np.testing.assert_array_equal(seen.setdefault(f"{interpolation} window", got), got)


@pytest.mark.parametrize("out_dtype", ["float32", "float16"])
@pytest.mark.parametrize("min_max", [False, True])
@pytest.mark.parametrize("pad_before", [False, True])
def test_preprocess_equals_the_reference(
    out_dtype: str, min_max: bool, pad_before: bool, instruction_set: str
) -> None:
    rng = np.random.default_rng(6)
    for i, interpolation in enumerate(("bilinear_antialias", "bicubic", "nearest") * 3):
        height, width = (int(x) for x in rng.integers(1, 150, 2))
        resized = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        if i % 3 == 2:
            resized = (height, width)
        frame = (resized[0] + int(rng.integers(0, 9)), resized[1] + int(rng.integers(0, 9)))
        image = picture(rng, (height, width, 3) if i % 2 else (height, width))
        if i % 4 == 3:
            image = image // 3 + 20
        options: dict[str, Any] = {
            "out_size": frame, "resized": resized, "interpolation": interpolation,
            "min_max": min_max, "mean": None if min_max else MEAN, "std": None if min_max else STD,
            "scale": (1.0, 1 / 255, 2.0)[i % 3], "pad_value": (0.0, 114.0, -1.0)[i % 3],
            "pad_before": pad_before, "bgr": i % 2 == 0, "out_dtype": out_dtype,
        }  # fmt: skip
        got = _kernels.preprocess(image, threads=1 + i % 3, **options)
        expected = reference.preprocess(image, **options)
        assert got.dtype == out_dtype
        assert got.shape == (1, 3, *frame)
        np.testing.assert_array_equal(got, expected, f"{options}")


def test_preprocess_of_a_flat_image_with_min_max_is_zero() -> None:
    image = np.full((9, 7), 200, np.uint8)
    got = _kernels.preprocess(
        image, out_size=(16, 16), resized=(16, 12), interpolation="bilinear", min_max=True
    )
    assert not got.any()


@pytest.mark.parametrize("interpolation", ALL)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_preprocess_window_equals_the_reference(
    interpolation: str, dtype: Any, instruction_set: str
) -> None:
    rng = np.random.default_rng(7)
    for i in range(6):
        height, width, h, w = (int(x) for x in rng.integers(1, 120, 4))
        image = (rng.normal(0, 900, (height, width)) + 1000 * (dtype == np.uint16)).astype(dtype)
        options: dict[str, Any] = {
            "window": (-150.5, 250.0) if dtype != np.uint16 else (300.0, 1700.0),
            "out_size": (h + 3, w + 2), "resized": (h, w), "interpolation": interpolation,
            "min_max": i % 3 == 2, "mean": MEAN, "std": STD, "pad_value": 1.0,
            "pad_before": i % 2 == 1,
        }  # fmt: skip
        got = _kernels.preprocess_window(image, threads=1 + i % 2, **options)
        expected = reference.preprocess_window(image, **options)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 400)])
def test_window_to_uint8_equals_the_reference(dtype: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(8)
    words = rng.integers(0, 65536, shape, dtype=np.uint16)
    image: Any = words.astype(np.float32) / 7 if dtype == np.float32 else words.view(dtype)
    for window in ((-200.0, 300.5), (0.0, 65535.0), (-32768.0, 32767.0), (5.0, 5.5)):
        got = _kernels.window_to_uint8(image, *window, threads=2)
        np.testing.assert_array_equal(got, reference.window_to_uint8(image, *window))


def test_float_samples_that_are_no_numbers() -> None:
    image = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert _kernels.window_to_uint8(image, 0, 1).tolist() == [[0, 255, 0, 128]]
    tensor = _kernels.preprocess_window(
        image, window=(0, 1), out_size=(1, 4), resized=(1, 4), interpolation="nearest",
        mean=(0, 0, 0), std=(255, 255, 255),
    )  # fmt: skip
    assert tensor[0, 1].tolist() == [[0, 1, 0, 0.5]]


def test_half_precision_covers_its_whole_range() -> None:
    """Subnormal, tie, overflow: float16 output rounds as NumPy does."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for std in (1e9, 3e7, 1e6, 511.0, 0.01, 0.003, 1 / 256.5, 1e-30):
        options: dict[str, Any] = {
            "out_size": (16, 17), "resized": (16, 16), "interpolation": "nearest",
            "mean": (-0.5, 3, 77.7), "std": (std, -std, std), "out_dtype": "float16",
        }  # fmt: skip
        with np.errstate(over="ignore"):
            expected = reference.preprocess(image, **options)
        for name in ("baseline", "auto"):
            _kernels.load().select_instruction_set(name)
            np.testing.assert_array_equal(_kernels.preprocess(image, **options), expected)
