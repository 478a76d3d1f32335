"""The rules of single model families: splines, float resizing, cubic and nearest logits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels, reference
from samrt.reference_resize import resize_floats

IDENTITY: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1)}
SPLINES = ("bspline_antialias", "bspline_corners")
SIZES = [
    (1, 1, 1, 1), (1, 1, 7, 5), (2, 2, 9, 3), (1, 40, 12, 13), (40, 1, 13, 12), (31, 37, 31, 90),
    (31, 37, 90, 37), (64, 64, 128, 128), (90, 61, 43, 30), (3, 200, 5, 7), (200, 3, 7, 5),
    (150, 120, 2, 1), (130, 96, 140, 141), (97, 89, 97, 89), (257, 130, 65, 130),
]  # fmt: skip


def pictures(seed: int) -> list[tuple[NDArray[np.uint8], tuple[int, int]]]:
    """Noise, flat pictures and edges: where truncation is decided by the last bit."""
    rng = np.random.default_rng(seed)
    sizes = SIZES + [tuple(int(2**x) for x in rng.uniform(1, 6.5, 4)) for _ in range(15)]
    made = []
    for i, (h, w, height, width) in enumerate(sizes):
        shape = (h, w, 3) if i % 2 else (h, w)
        image = rng.integers(0, 256, shape)
        if i % 4 == 1:
            image[:] = rng.integers(0, 256, shape[2:])
        if i % 4 == 2:
            image = (image > 127) * 255
        made.append((image.astype(np.uint8), (height, width)))
    return made


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
@pytest.mark.parametrize("interpolation", SPLINES)
def test_splines_equal_the_reference(
    interpolation: str, rounding: str, instruction_set: str
) -> None:
    for i, (image, size) in enumerate(pictures(1)):
        got = _kernels.resize(image, size, interpolation, 1 + i % 3, rounding=rounding)
        expected = reference.resize(image, size, interpolation, rounding)
        np.testing.assert_array_equal(got, expected, f"{image.shape} -> {size}")


def numpy_rounds_as_the_c_library(before: int, after: int) -> bool:
    """Whether the Gaussian of an axis has the same weights with NumPy's exponential, which on some
    processors differs from the C library's in the last bit."""
    sigma = (before / after - 1) / 2
    if sigma <= 0:
        return True
    arguments = -0.5 / (sigma * sigma) * np.arange(int(4 * sigma + 0.5) + 1) ** 2
    return np.array_equal(np.exp(arguments), [math.exp(x) for x in arguments])


def test_truncated_spline_equals_scikit_image() -> None:
    transform = pytest.importorskip("skimage.transform")
    exact = 0
    for image, size in pictures(2) + pictures(20):
        smooth = transform.resize(image, size, order=3, preserve_range=True, anti_aliasing=True)
        got = _kernels.resize(image, size, "bspline_antialias", 2, rounding="truncate")
        pairs = zip(image.shape[:2], size, strict=True)
        if all(numpy_rounds_as_the_c_library(*pair) for pair in pairs):
            exact += 1
            np.testing.assert_array_equal(got, smooth.astype(np.uint8), f"{image.shape} -> {size}")
        else:  # flat parts, whose exact value is a whole number, may fall on either side of it
            assert np.abs(got.astype(float) - np.trunc(smooth)).max() <= 1
    assert exact >= 40


@pytest.mark.filterwarnings("ignore")  # of SciPy about sizes of one sample
def test_corner_spline_equals_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    for image, size in pictures(3):
        grey = np.ascontiguousarray(image[..., 0] if image.ndim == 3 else image)
        values = grey.astype(np.float32) / np.float32(255)
        factors = [a / b for a, b in zip(size, grey.shape, strict=True)]
        expected = ndimage.zoom(values, factors, order=3)
        if expected.shape != size:
            continue
        got = _kernels.preprocess(
            grey, out_size=size, resized=size, interpolation="bspline_corners", rounding="none",
            divisor=255.0, **IDENTITY,
        )  # fmt: skip
        for plane in got[0]:
            np.testing.assert_array_equal(plane, expected, f"{grey.shape} -> {size}")


def test_spline_by_way_of_another_size_equals_two_calls_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    grey = np.random.default_rng(4).integers(0, 256, (60, 80), dtype=np.uint8)
    values = grey.astype(np.float32) / np.float32(255)
    half = ndimage.zoom(values, (30 / 60, 30 / 80), order=3)
    expected = ndimage.zoom(half, (64 / 30, 64 / 30), order=3)
    options: dict[str, Any] = {
        "out_size": (64, 64), "resized": (64, 64), "interpolation": "bspline_corners",
        "rounding": "none", "via": [(30, 30)], "divisor": 255.0, **IDENTITY,
    }  # fmt: skip
    got = _kernels.preprocess(grey, threads=2, **options)
    np.testing.assert_array_equal(got[0, 2], expected)
    np.testing.assert_array_equal(got, reference.preprocess(grey, **options))


FLOAT_RULES = ("bilinear", "bilinear_antialias", *SPLINES)


@pytest.mark.parametrize("interpolation", FLOAT_RULES)
@pytest.mark.parametrize("min_max", [False, True])
def test_unrounded_tensors_equal_the_reference(
    interpolation: str, min_max: bool, instruction_set: str
) -> None:
    for i, (image, size) in enumerate(pictures(5)):
        options: dict[str, Any] = {
            "out_size": (size[0] + i % 3, size[1] + i % 4), "resized": size,
            "interpolation": interpolation, "rounding": "none", "divisor": (255.0, 1.0, 3.0)[i % 3],
            "min_max": min_max, "mean": None if min_max else (0.485, 0.456, 0.406),
            "std": None if min_max else (0.229, 0.224, 0.225), "bgr": i % 2 == 0,
            "pad_value": 7.5, "pad_before": i % 2 == 1,
            "out_dtype": "float16" if i % 5 == 4 else "float32",
        }  # fmt: skip
        with np.errstate(over="ignore"):
            expected = reference.preprocess(image, **options)
        got = _kernels.preprocess(image, threads=1 + i % 3, **options)
        np.testing.assert_array_equal(got, expected, f"{image.shape} {options}")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear_antialias", "bspline_antialias"])
def test_rounded_samples_are_divided_after_the_resize(
    interpolation: str, instruction_set: str
) -> None:
    for i, (image, size) in enumerate(pictures(6)):
        options: dict[str, Any] = {
            "out_size": (size[0] + 1, size[1] + 2), "resized": size, "divisor": 255.0,
            "interpolation": interpolation, "min_max": i % 2 == 0,
            "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2), "pad_value": 128.0,
            "pad_before": i % 3 == 0,
        }  # fmt: skip
        got = _kernels.preprocess(image, **options)
        np.testing.assert_array_equal(got, reference.preprocess(image, **options), f"{options}")


@pytest.mark.parametrize("antialias", [False, True])
def test_unrounded_bilinear_is_that_of_pytorch(antialias: bool) -> None:
    """Equal in nearly all sizes; PyTorch sums short and very long rows in other orders."""
    torch = pytest.importorskip("torch")
    name = "bilinear_antialias" if antialias else "bilinear"
    for size in ((256, 256), (301, 512), (420, 256)):
        image = np.random.default_rng(7).integers(0, 256, (257, 300, 3), dtype=np.uint8)
        unit = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().float() / 255
        expected = torch.nn.functional.interpolate(
            unit, size, mode="bilinear", align_corners=False, antialias=antialias
        ).numpy()
        got = _kernels.preprocess(
            image, out_size=size, resized=size, interpolation=name, rounding="none", divisor=255.0,
            **IDENTITY,
        )  # fmt: skip
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)


def test_window_and_unrounded_bytes_agree() -> None:
    """A window of 0 to 255 over whole numbers is the eight-bit picture."""
    rng = np.random.default_rng(8)
    for interpolation, size in itertools.product(FLOAT_RULES, [(70, 33), (20, 90)]):
        deep = rng.integers(0, 256, (41, 52)).astype(np.uint16)
        options: dict[str, Any] = {
            "out_size": size, "resized": size, "interpolation": interpolation, "rounding": "none",
            "divisor": 255.0, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3),
        }  # fmt: skip
        got = _kernels.preprocess_window(deep, window=(0, 255), **options)
        # 255 is no power of two: mapping there and back may change the last bit.
        plain = _kernels.preprocess(deep.astype(np.uint8), **options)
        np.testing.assert_allclose(got, plain, rtol=0, atol=3e-6)


def test_unrounded_resizing_keeps_flat_pictures_flat() -> None:
    for interpolation in FLOAT_RULES[:2]:
        flat = np.full((23, 31, 3), 77, np.float32)
        np.testing.assert_allclose(resize_floats(flat, (50, 9), interpolation), 77, rtol=1e-6)


def logits_cases() -> list[tuple[NDArray[np.float32], tuple[int, int], tuple[int, int]]]:
    rng = np.random.default_rng(9)
    made = []
    sizes = [(1, 1), (2, 300), (300, 2), (256, 256), (523, 700), (61, 47)]
    for i, out in enumerate([*sizes, *((int(a), int(b)) for a, b in rng.integers(1, 400, (8, 2)))]):
        low = [(64, 64), (31, 17), (1, 5), (128, 128)][i % 4]
        logits = 5 * rng.standard_normal((1 + i % 3, *low), np.float32)
        if i % 3 == 0:  # large flat parts, which the shortcut decides
            logits[:, : low[0] // 2] = np.float32(rng.choice([-7.0, 0.0, 4.0]))
        crop = (max(1, low[0] - i % 5), max(1, low[1] - i % 7))
        made.append((logits, crop, out))
    return made


def test_cubic_logits_equal_pytorch_and_the_reference(instruction_set: str) -> None:
    torch = pytest.importorskip("torch")
    for i, (logits, crop, out) in enumerate(logits_cases()):
        sizes: dict[str, Any] = {
            "frame": logits.shape[1:], "crop": crop, "out": out, "interpolation": "bicubic",
        }  # fmt: skip
        got = _kernels.upscale_logits(logits, threads=1 + i % 3, **sizes)
        np.testing.assert_allclose(
            got, reference.upscale_logits(logits, **sizes), rtol=0, atol=1e-4
        )
        cropped = torch.from_numpy(logits)[None, :, : crop[0], : crop[1]]
        expected = torch.nn.functional.interpolate(
            cropped, out, mode="bicubic", align_corners=False
        )
        np.testing.assert_allclose(got, expected[0].numpy(), rtol=0, atol=1e-4)
        for threshold in (0.0, 0.7, 3.9, -6.9):
            masks = _kernels.masks_from_logits(logits, threshold=threshold, **sizes)
            np.testing.assert_array_equal(masks, got > np.float32(threshold), f"{sizes}")


def test_cubic_masks_overshoot_the_range_of_the_logits(instruction_set: str) -> None:
    """A step from 0 to 1 swings above 1: the shortcut must not decide by the range alone."""
    logits = np.zeros((1, 64, 64), np.float32)
    logits[:, :, 32:] = 1
    options: dict[str, Any] = {
        "frame": (64, 64), "crop": (64, 64), "out": (64, 640), "interpolation": "bicubic",
    }  # fmt: skip
    over = _kernels.masks_from_logits(logits, threshold=1.01, **options)
    under = ~_kernels.masks_from_logits(logits, threshold=-0.01, **options)
    assert over.any()
    assert under.any()


def test_nearest_logits_equal_pytorch_and_the_reference(instruction_set: str) -> None:
    torch = pytest.importorskip("torch")
    for i, (logits, _, out) in enumerate(logits_cases()):
        frame = [(256, 256), (100, 90), (31, 200)][i % 3]
        crop = (max(1, frame[0] - i), frame[1])
        sizes: dict[str, Any] = {
            "frame": frame, "crop": crop, "out": out, "interpolation": "nearest",
        }  # fmt: skip
        got = _kernels.upscale_logits(logits, threads=1 + i % 3, **sizes)
        np.testing.assert_array_equal(got, reference.upscale_logits(logits, **sizes))
        large = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], frame)
        small = torch.nn.functional.interpolate(large[..., : crop[0], : crop[1]], out)
        np.testing.assert_array_equal(got, small[0].numpy())
        masks = _kernels.masks_from_logits(logits, threshold=0.5, **sizes)
        np.testing.assert_array_equal(masks, got > 0.5)
