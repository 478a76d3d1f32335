"""Pictures of more than eight bits: which rules take them directly, and which by way of eight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import _kernels
from samrt.geometry import place
from samrt.manifest import InputSpec
from samrt.preprocess import load_image, preprocess

WINDOW = (300.0, 2700.0)
INTERPOLATIONS = (
    "bilinear_antialias", "bicubic", "area", "nearest", "bilinear", "bspline_antialias",
    "bspline_corners",
)  # fmt: skip


def spec_of(interpolation: str, rounding: str, dtype: str = "float32") -> InputSpec:
    return InputSpec(
        size=(40, 64), resize_kind="stretch", interpolation=interpolation, pad_mode="none",
        pad_value=0.0, pad_before_normalize=False, normalize_kind="mean_std",
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), scale=1.0, channel_order="RGB", dtype=dtype,
        rounding=rounding, divisor=255.0,
    )  # fmt: skip


def deep_picture() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4096, (57, 71), dtype=np.uint16)


def tensor(image: NDArray[Any], spec: InputSpec, **options: Any) -> NDArray[Any]:
    source = load_image(image, **options)
    return preprocess(source, place(source.size, spec.size, spec.resize_kind), spec, threads=2)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_rules_that_do_not_round_take_all_bits(interpolation: str) -> None:
    spec, deep = spec_of(interpolation, "none"), deep_picture()
    got = tensor(deep, spec, window=WINDOW)
    eight = _kernels.window_to_uint8(deep, *WINDOW)
    coarse = tensor(eight, spec)
    assert np.unique(got).size > np.unique(coarse).size or interpolation != "nearest"
    step = 1 / 255 / 0.2
    assert 0 < np.abs(got - coarse).max() <= 2 * step
    # The same values as float32 samples of the window's own unit.
    unit = ((deep.astype(np.float64) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).astype(np.float32)
    np.testing.assert_allclose(tensor(unit, spec, window=(0.0, 1.0)), got, atol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_rules_that_round_go_by_way_of_eight_bits_but_for_one(interpolation: str) -> None:
    spec, deep = spec_of(interpolation, "nearest"), deep_picture()
    got = tensor(deep, spec, window=WINDOW)
    share = np.clip((deep - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
    eight = np.floor(share * 255 + 0.5).astype(np.uint8)
    coarse = tensor(eight, spec)
    if interpolation == "bilinear_antialias":
        assert 0 < np.abs(got - coarse).max() < 2 / 255 / 0.2
    else:
        np.testing.assert_array_equal(got, coarse)


def test_truncating_rules_go_by_way_of_eight_bits() -> None:
    spec, deep = spec_of("bspline_antialias", "truncate"), deep_picture()
    eight = _kernels.window_to_uint8(deep, *WINDOW)
    np.testing.assert_array_equal(tensor(deep, spec, window=WINDOW), tensor(eight, spec))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("rounding", ["nearest", "none"])
def test_half_precision_is_the_rounded_single_precision(interpolation: str, rounding: str) -> None:
    for image, options in ((deep_picture(), {"window": WINDOW}), (deep_picture() >> 4, None)):
        picture = image if options else image.astype(np.uint8)
        single = tensor(picture, spec_of(interpolation, rounding), **(options or {}))
        half = tensor(picture, spec_of(interpolation, rounding, "float16"), **(options or {}))
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half, single.astype(np.float16))


def test_a_dicom_file_goes_to_the_tensor_without_eight_bits(
    scanner: Any, tmp_path: Path, bundle_path: Path
) -> None:
    """Its values and window give the same embedding as the array behind the file."""
    values, _ = scanner.body((3, 48, 80))
    path = tmp_path / "scan.dcm"
    path.write_bytes(scanner.packed(scanner.series(values)[1]))
    with samrt.load(bundle_path, threads=1) as engine:
        for window, limits in ((None, (-160.0, 239.0)), ("lung", (-1350.0, 149.0))):
            of_file = engine.encode(path, window=window)
            of_array = engine.encode(values[1], window=limits)
            for name, feature in of_file.features.items():
                np.testing.assert_array_equal(feature, of_array.features[name])
            assert of_file.timings.decode_image_ms is not None
