"""Stored values become the grey levels that the standard says, and the result says which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError
from samrt.imaging.read import LoadedImage, read_image
from samrt.imaging.windows import PRESETS


def ramp(low: int, high: int, kind: str = "i2") -> NDArray[Any]:
    """``(16, 64)`` values that rise evenly."""
    return np.linspace(low, high, 1024).astype(kind).reshape(16, 64)


def read(scanner: Any, pixels: NDArray[Any], window: Any = None, **elements: Any) -> LoadedImage:
    return read_image(scanner.packed(scanner.dataset(pixels, **elements)), window=window)


def mapping(image: LoadedImage) -> dict[str, Any]:
    assert image.details is not None
    found: dict[str, Any] = image.details["mapping"]
    return found


def linear(values: NDArray[Any], centre: float, width: float) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2.1, written as it stands there, then rounded to nearest."""
    x = values.astype(np.float64)
    y = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255.0
    y[x <= centre - 0.5 - (width - 1) / 2] = 0.0
    y[x > centre - 0.5 + (width - 1) / 2] = 255.0
    return np.floor(y + 0.5).astype(np.uint8)


CT_VALUES = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
TWO_WINDOWS = {
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1500"],
    "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
}


@pytest.mark.parametrize(
    ("window", "centre", "width", "source"),
    [
        (None, 40, 400, "file:0"),
        ("auto", 40, 400, "file:0"),
        ("file", 40, 400, "file:0"),
        ("file:1", -600, 1500, "file:1"),
        ("file:lung", -600, 1500, "file:1"),
        ("bone", 400, 1800, "preset bone"),
        ("50,350", 50, 350, "given"),
        ("50/350", 50, 350, "given"),
        ("-20.5/2", -20.5, 2, "given"),
    ],
)
def test_windows(scanner: Any, window: Any, centre: float, width: float, source: str) -> None:
    stored = ramp(0, 4000, "u2")
    image = read(scanner, stored, window, **CT_VALUES, **TWO_WINDOWS)
    np.testing.assert_array_equal(image.array, linear(stored.astype(int) - 1024, centre, width))
    voi = mapping(image)["voi"]
    assert (voi["center"], voi["width"], voi["source"]) == (centre, width, source)
    assert image.window == pytest.approx((voi["low"], voi["high"]))
    assert image.source.dtype == np.int16
    assert image.warnings == ()


def test_limits_are_limits_everywhere(scanner: Any) -> None:
    stored = ramp(0, 4000, "u2")
    for window in ((-160.0, 240.0), "-160:240"):
        image = read(scanner, stored, window, **CT_VALUES)
        share = np.clip((stored.astype(float) - 1024 + 160) / 400, 0, 1)
        np.testing.assert_array_equal(image.array, np.floor(share * 255 + 0.5))


def test_linear_exact_and_sigmoid(scanner: Any) -> None:
    values = ramp(-500, 500)
    exact = read(scanner, values, WindowCenter="10", WindowWidth="200",
                 VOILUTFunction="LINEAR_EXACT")  # fmt: skip
    share = np.clip((values - 10) / 200 + 0.5, 0, 1)
    assert np.abs(exact.array - share * 255).max() <= 0.51
    sigmoid = read(scanner, values, WindowCenter="10", WindowWidth="200", VOILUTFunction="SIGMOID")
    curve = 255 / (1 + np.exp(-4 * (values - 10) / 200))
    assert np.abs(sigmoid.array - curve).max() <= 0.51
    assert mapping(sigmoid)["voi"]["kind"] == "sigmoid"
    assert sigmoid.source.dtype == np.float32


def lut(scanner: Any, entries: list[int], first: int, bits: int = 12) -> Any:
    found = scanner.item(LUTDescriptor=[len(entries), first, bits], LUTExplanation="CURVE")
    found.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    found["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    return found


def test_voi_lut(scanner: Any) -> None:
    values = np.arange(-5, 15, dtype=np.int16).reshape(4, 5)
    entries = [0, 100, 900, 2000, 4095]
    image = read(scanner, values, VOILUTSequence=[lut(scanner, entries, -2)])
    grey = np.array(entries)[np.clip(values + 2, 0, 4)]
    np.testing.assert_array_equal(image.array, np.floor(grey / 4095 * 255 + 0.5))
    assert mapping(image)["voi"]["source"] == "lut:0"
    both = {"WindowCenter": "0", "WindowWidth": "10"}
    image = read(scanner, values, "lut:curve", VOILUTSequence=[lut(scanner, entries, -2)], **both)
    assert mapping(image)["voi"]["kind"] == "lut"


def test_modality_lut(scanner: Any) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    table = lut(scanner, [k * k * 10 for k in range(16)], 0, 16)
    table.ModalityLUTType = "OD"
    image = read(
        scanner, values, "0:2250", ModalityLUTSequence=[table], sop_class=scanner.SECONDARY
    )
    expected = np.floor(np.arange(16) ** 2 * 10 / 2250 * 255 + 0.5).reshape(4, 4)
    np.testing.assert_array_equal(image.array, expected)
    assert mapping(image)["modality"] == {
        "kind": "lut", "slope": None, "intercept": None, "type": "OD",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_monochrome1(scanner: Any, kind: str) -> None:
    values = ramp(0, 200, kind)
    window = {} if kind == "u1" else {"WindowCenter": "100", "WindowWidth": "201"}
    plain = read(scanner, values, sop_class=scanner.SECONDARY, **window)
    inverse = read(
        scanner, values, sop_class=scanner.SECONDARY, photometric="MONOCHROME1", **window
    )
    assert np.abs(inverse.array.astype(int) - (255 - plain.array.astype(int))).max() <= 1
    assert mapping(inverse)["inverted"]
    assert not mapping(plain)["inverted"]


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_monochrome1_over_the_whole_range(scanner: Any, kind: str) -> None:
    info = np.iinfo(np.dtype(kind))
    values = ramp(info.min, info.max, kind)
    inverse = read(scanner, values, "minmax", photometric="MONOCHROME1")
    plain = read(scanner, values, "minmax")
    assert np.abs(inverse.array.astype(int) + plain.array.astype(int) - 255).max() <= 1
    assert inverse.array[0, 0] == 255
    wide = read(scanner, values, "-100000:100000", photometric="MONOCHROME1")
    narrow = read(scanner, values, "-100000:100000")
    assert np.abs(wide.array.astype(int) + narrow.array.astype(int) - 255).max() <= 1


def test_what_is_handed_to_the_kernel_means_the_same(scanner: Any) -> None:
    """The deep values with the window give the 8-bit picture, inverted or not."""
    values = ramp(-1000, 1000)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = read(scanner, values, "40/400", photometric=photometric, PixelPaddingValue=-1000)
        assert image.window is not None
        low, high = image.window
        share = np.clip((image.source.astype(float) - low) / (high - low), 0, 1)
        assert np.abs(np.floor(share * 255 + 0.5) - image.array).max() <= 1


def test_padding(scanner: Any) -> None:
    values = ramp(0, 1000)
    values[:, :8] = -2000
    values[:2, 8:16] = -1990
    options = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990, "Modality": "MR"}
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        image = read(scanner, values, "minmax", photometric=photometric, **options)
        assert mapping(image)["padding"] == {"low": -2000, "high": -1990, "pixels": 16 * 8 + 16}
        assert mapping(image)["voi"]["low"] == values[values > -1990].min()
        assert (image.array[:, :8] == 0).all()
        assert (image.array[:2, 8:16] == 0).all()
        assert image.array[:, 16:].max() == 255
    unsigned = ramp(100, 4000, "u2")
    unsigned[0] = 65535
    image = read(scanner, unsigned, "minmax", PixelPaddingValue=65535)
    assert (image.array[0] == 0).all()
    assert image.array[1:].max() == 255


def test_without_a_window(scanner: Any) -> None:
    values = ramp(0, 2000)
    ct = read(scanner, values, **CT_VALUES, RescaleType="HU")
    assert mapping(ct)["voi"]["source"] == "auto: soft-tissue"
    assert "gives no window" in ct.warnings[0]
    mr = read(scanner, values, sop_class=scanner.MR)
    assert mapping(mr)["voi"]["source"] == "auto: percentile"
    assert mr.window == pytest.approx(tuple(np.percentile(values, (0.5, 99.5))))
    eight = ramp(0, 255, "u1")
    image = read(scanner, eight, sop_class=scanner.SECONDARY)
    assert (image.window, image.warnings) == (None, ())
    np.testing.assert_array_equal(image.array, eight)


def test_fractional_slope(scanner: Any) -> None:
    values = ramp(0, 4000, "u2")
    image = read(scanner, values, "0:10", RescaleSlope="0.0025", RescaleIntercept="0.5")
    assert image.source.dtype == np.float32
    np.testing.assert_allclose(image.source, values * 0.0025 + 0.5, atol=1e-5)


def test_palette(scanner: Any) -> None:
    index = np.arange(16, dtype=np.uint8).reshape(4, 4)
    tables = [np.arange(16, dtype=np.uint16) * k * 256 for k in (1, 7, 15)]
    elements: dict[str, Any] = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [16, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = table.astype("<u2").tobytes()
    image = read(
        scanner, index, photometric="PALETTE COLOR", sop_class=scanner.SECONDARY, **elements
    )
    np.testing.assert_array_equal(image.array, np.stack([t[index] >> 8 for t in tables], -1))


def test_deep_colour(scanner: Any) -> None:
    rgb = np.random.default_rng(0).integers(0, 4096, (5, 6, 3)).astype(np.uint16)
    image = read(scanner, rgb, photometric="RGB", bits_stored=12, sop_class=scanner.SECONDARY)
    np.testing.assert_array_equal(image.array, rgb >> 4)


def test_functional_groups(scanner: Any) -> None:
    volume, _ = scanner.body((4, 20, 24))
    data = scanner.packed(scanner.enhanced(volume))
    for k in (0, 3):
        image = read_image(data, frame=k)
        np.testing.assert_array_equal(image.source, volume[k])
        assert mapping(image)["voi"]["center"] == 40 + k
        assert image.spacing_mm == (0.8, 0.7)
        assert image.origin is not None
        assert image.origin.geometry is not None
        assert image.origin.geometry.position == pytest.approx((-30, -25, 40 + 3 * k))
        assert not any("frames" in text for text in image.warnings)
    assert "holds 4 frames: the first one" in read_image(data).warnings[0]


@pytest.mark.parametrize(
    ("window", "error", "words"),
    [
        ("wide", OptionError, "unknown window 'wide'"),
        ("file:7", OptionError, "none is '7'"),
        ("lut", OptionError, "no VOI LUT"),
        ("5:5", ImageError, "empty"),
        ("40/0.5", ImageError, "width of at least 1"),
        ("nan/400", ImageError, "finite"),
    ],
)
def test_bad_windows(scanner: Any, window: str, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        read(scanner, ramp(0, 9), window, **TWO_WINDOWS)


def test_presets_are_for_ct(scanner: Any) -> None:
    with pytest.raises(OptionError, match="Hounsfield units of CT, this image is MR"):
        read(scanner, ramp(0, 9), "lung", sop_class=scanner.MR)
    assert set(PRESETS) >= {"lung", "bone", "brain", "soft-tissue"}


def test_uneven_pixels_are_mentioned(scanner: Any) -> None:
    image = read(scanner, ramp(0, 255, "u1"), PixelSpacing=["2", "1"], sop_class=scanner.SECONDARY)
    assert image.spacing_mm == (2.0, 1.0)
    assert "1 mm width and 2 mm height" in image.warnings[0]
    region = {"PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.03,
              "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}  # fmt: skip
    image = read(scanner, ramp(0, 255, "u1"), sop_class=scanner.SECONDARY,
                 SequenceOfUltrasoundRegions=[scanner.item(**region)])  # fmt: skip
    assert image.spacing_mm == pytest.approx((0.3, 0.2))
