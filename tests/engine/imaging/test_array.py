"""Numpy arrays of every dtype and shape to uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging import as_uint8

RNG = np.random.default_rng(5)
RGB: NDArray[np.uint8] = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)


def expected(values: NDArray[Any], lo: float, hi: float) -> NDArray[Any]:
    scaled = np.clip((values.astype(np.float64) - lo) / (hi - lo), 0, 1)
    return np.floor(scaled * 255 + 0.5)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (1, 1), (1, 5, 3)])
def test_uint8_passes_through(shape: tuple[int, ...]) -> None:
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    result = as_uint8(image)
    assert np.array_equal(result.array, image)
    assert (result.window, result.warnings) == (None, ())


def test_one_channel_loses_its_axis() -> None:
    assert np.array_equal(as_uint8(RGB[:, :, :1]).array, RGB[:, :, 0])


def test_alpha() -> None:
    opaque = np.dstack([RGB, np.full((7, 9), 255, np.uint8)])
    assert np.array_equal(as_uint8(opaque).array, RGB)
    clear = np.dstack([RGB, np.zeros((7, 9), np.uint8)])
    result = as_uint8(clear)
    assert not result.array.any()
    assert "transparent" in result.warnings[0]


DTYPES = ["uint16", ">u2", "int16", "int8", "uint32", "int32", "int64", "uint64", "float16"]
DTYPES += ["float32", ">f4", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(11, 13), (11, 13, 3)])
def test_window_maps_linearly(dtype: str, shape: tuple[int, ...]) -> None:
    image = RNG.integers(0, 120, shape).astype(dtype)
    result = as_uint8(image, window=(20, 90))
    assert np.abs(result.array - expected(image, 20, 90)).max() <= 1
    assert result.array.shape == shape
    assert result.window == (20.0, 90.0)
    full = as_uint8(image, window="minmax")
    assert full.window == (float(image.min()), float(image.max()))
    assert (full.array.min(), full.array.max()) == (0, 255)
    rule = as_uint8(image, window="percentile")
    assert rule.window == pytest.approx(tuple(np.percentile(image, (0.5, 99.5))))


def test_hounsfield_window() -> None:
    image = np.array([[-1024, -160, 40, 240, 3000]], np.int16)
    assert as_uint8(image, window=(-160, 240)).array.tolist() == [[0, 0, 128, 255, 255]]


def test_wide_numbers_keep_their_differences() -> None:
    image = np.array([[2**31, 2**31 + 50, 2**31 + 100]], np.int64)
    assert as_uint8(image, window="minmax").array.tolist() == [[0, 128, 255]]
    huge = np.array([[-1e300, 0.0, 1e300]])
    assert as_uint8(huge, window=(-1, 1)).array.tolist() == [[0, 128, 255]]


def test_threads_do_not_change_the_result() -> None:
    image = RNG.integers(0, 65536, (300, 200), dtype=np.uint16)
    one, two = (as_uint8(image, window="minmax", threads=n).array for n in (1, 2))
    assert np.array_equal(one, two)


def test_strided_input() -> None:
    image = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
    view = image[::2, ::-3]
    assert np.array_equal(
        as_uint8(view, window="minmax").array, as_uint8(view.copy(), window="minmax").array
    )


def test_single_value_becomes_black_with_a_warning() -> None:
    for rule in ("minmax", "percentile"):
        result = as_uint8(np.full((4, 4), 9.5), window=rule)  # type: ignore[arg-type]
        assert not result.array.any()
        assert "single value 9.5" in result.warnings[0]


def test_percentiles_that_coincide_fall_back_with_a_warning() -> None:
    image = np.zeros((100, 100), np.uint16)
    image[0, 0] = 10
    result = as_uint8(image, window="percentile")
    assert result.window == (0.0, 10.0)
    assert "percentiles" in result.warnings[0]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", "int32"])
def test_no_window_no_guess(dtype: str) -> None:
    with pytest.raises(ImageError, match=r'window="minmax"'):
        as_uint8(np.ones((4, 4), dtype))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.ones((4, 4), bool), "boolean"),
        (np.ones((4, 4), complex), "complex128"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[None]]), "dtype object"),
        ([[1, 2], [3]], "not a regular array"),
        (np.ones(4, np.uint8), r"shape \(4,\)"),
        (np.ones((3, 40, 50), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.ones((20, 40, 50), np.uint8), "stack"),
        (np.ones((40, 50, 2), np.uint8), "alpha"),
        (np.ones((1, 40, 50, 3), np.uint8), "one image at a time"),
        (np.ones((0, 5), np.uint8), "empty"),
        (np.ones((5, 0, 3), np.uint8), "empty"),
        (np.uint8(3), r"shape \(\)"),
    ],
)
def test_refused(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        as_uint8(image)
    assert "\n" not in str(caught.value)


def test_nan_and_infinity_are_counted() -> None:
    image = np.ones((4, 5), np.float32)
    image[0, :3] = (np.nan, np.inf, -np.inf)
    with pytest.raises(ImageError, match="3 NaN or infinite values among 20"):
        as_uint8(image, window=(0, 1))


def test_deep_rgba_is_refused() -> None:
    with pytest.raises(ImageError, match="RGBA"):
        as_uint8(np.ones((4, 5, 4), np.uint16), window=(0, 1))


@pytest.mark.parametrize(
    "window",
    [(1, 1), (2, 1), (0, np.inf), (np.nan, 1), (-1e308, 1e308), (1,), "auto", 3, (None, 1)],
)
def test_bad_windows(window: Any) -> None:
    with pytest.raises(ImageError, match="window"):
        as_uint8(np.ones((4, 4), np.uint16), window=window)


def test_range_too_wide_for_minmax() -> None:
    with pytest.raises(ImageError, match="too far"):
        as_uint8(np.array([[-1.7e308, 1.7e308]]), window="minmax")
