"""Stored pixels arrive unchanged, whatever their kind and transfer syntax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import ExtraUnavailableError, ImageError
from samrt.imaging.dicom import decoder as decoder_module
from samrt.imaging.dicom import pixels as pixels_module
from samrt.imaging.dicom.decoder import FrameDecoder
from samrt.imaging.dicom.header import open_dicom
from samrt.imaging.dicom.limits import SYNTAXES, DicomLimits
from samrt.imaging.read import read_image


def stored(data: bytes, frame: int = 0) -> NDArray[Any]:
    file = open_dicom(data, "x.dcm", DicomLimits())
    with FrameDecoder() as decoder:
        array, used = pixels_module.read_frame(file, frame, decoder)
    assert (used == "none") == (not file.syntax.compressed)
    return array


def values(bits: int, signed: bool, shape: tuple[int, ...] = (6, 10)) -> NDArray[Any]:
    """All kinds of values, the ends of the range among them."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    array = np.random.default_rng(bits).integers(low, high + 1, shape).astype(kind)
    array.ravel()[:2] = low, high
    return array


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", ["IMPLICIT", "EXPLICIT", "DEFLATED", "BIG_ENDIAN"])
def test_native(scanner: Any, bits: int, signed: bool, syntax: str) -> None:
    if syntax == "BIG_ENDIAN" and bits == 8:
        pytest.skip("8-bit words have no byte order")
    array = values(bits, signed)
    data = scanner.packed(scanner.dataset(array, bits_stored=bits), getattr(scanner, syntax))
    found = stored(data)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("syntax", "package"),
    [("JPEG_LS", "pyjpegls"), ("JPEG_2000", "openjpeg"), ("RLE", "rle")],
)
def test_compressed(scanner: Any, syntax: str, package: str) -> None:
    module = {"pyjpegls": "jpeg_ls", "openjpeg": "openjpeg", "rle": "rle"}[package]
    pytest.importorskip(module, reason=f"{package} is not installed (extra dicom)")
    for bits, signed in ((8, False), (12, False), (16, True)):
        if syntax == "JPEG_LS" and signed:
            continue  # pydicom does not write it
        array = values(bits, signed, (32, 40))
        ds = scanner.dataset(array, bits_stored=bits)
        np.testing.assert_array_equal(
            stored(scanner.packed(ds, getattr(scanner, syntax))), array, err_msg=f"{bits} bits"
        )


def test_compressed_frames_share_a_process(scanner: Any) -> None:
    pytest.importorskip("rle", reason="pylibjpeg-rle is not installed (extra dicom)")
    frames = values(12, False, (5, 16, 20))
    file = open_dicom(
        scanner.packed(scanner.dataset(frames, bits_stored=12), scanner.RLE), "x", DicomLimits()
    )
    with FrameDecoder() as decoder:
        for k in (4, 0, 2):
            array, used = pixels_module.read_frame(file, k, decoder)
            np.testing.assert_array_equal(array, frames[k])
        assert used.startswith("pylibjpeg-rle ")


def test_unused_bits_are_left_out(scanner: Any) -> None:
    array = values(12, True)
    dirty = array.view(np.uint16) & 0x0FFF | 0x5000  # old overlays lived in the upper bits
    ds = scanner.dataset(dirty, bits_stored=12, PixelRepresentation=1)
    np.testing.assert_array_equal(stored(scanner.packed(ds)), array)


def test_high_bit(scanner: Any) -> None:
    array = values(12, False)
    ds = scanner.dataset((array << 4).astype(np.uint16), bits_stored=12, HighBit=15)
    np.testing.assert_array_equal(stored(scanner.packed(ds)), array)


def test_odd_frames(scanner: Any) -> None:
    frames = values(8, False, (3, 5, 7))
    data = scanner.packed(scanner.dataset(frames))
    for k in range(3):
        np.testing.assert_array_equal(stored(data, k), frames[k])
    with pytest.raises(ImageError, match="there is no frame 3: expected 0 to 2"):
        stored(data, 3)


def test_planes_of_colour(scanner: Any) -> None:
    rgb = values(8, False, (6, 10, 3))
    ds = scanner.dataset(rgb, photometric="RGB")
    np.testing.assert_array_equal(stored(scanner.packed(ds)), rgb)
    ds = scanner.dataset(rgb, photometric="RGB", PlanarConfiguration=1)
    ds.PixelData = np.moveaxis(rgb, 2, 0).tobytes()
    np.testing.assert_array_equal(stored(scanner.packed(ds)), rgb)


def test_ybr(scanner: Any) -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:2] = (200, 30, 60)
    rgb[2:] = (20, 180, 90)
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    ybr = np.stack(  # ITU-R BT.601, as PS3.3 C.7.6.3.1.2 has it
        [
            0.2990 * r + 0.5870 * g + 0.1140 * b,
            -0.1687 * r - 0.3313 * g + 0.5 * b + 128,
            0.5 * r - 0.4187 * g - 0.0813 * b + 128,
        ],
        -1,
    )
    ybr = np.rint(ybr).clip(0, 255).astype(np.uint8)
    full = stored(scanner.packed(scanner.dataset(ybr, photometric="YBR_FULL")))
    assert np.abs(full.astype(int) - rgb).max() <= 2
    half = scanner.dataset(ybr, photometric="YBR_FULL_422")
    half.PixelData = np.stack(
        [ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], -1
    ).tobytes()
    found = stored(scanner.packed(half))
    assert np.abs(found.astype(int) - rgb).max() <= 2


def test_jpeg(scanner: Any) -> None:
    y, x = np.mgrid[:40, :56]
    grey = (128 + 60 * np.sin(x / 9) + 40 * np.cos(y / 7)).astype(np.uint8)
    ds = scanner.dataset(grey, sop_class=scanner.SECONDARY)
    found = read_image(scanner.jpeg(ds, [grey]))
    assert np.abs(found.array.astype(int) - grey).mean() < 3
    assert found.details is not None
    assert found.details["decoder"].startswith("pillow ")
    rgb = np.stack([grey, 255 - grey, grey // 2], -1)
    for photometric in ("YBR_FULL_422", "YBR_FULL"):
        ds = scanner.dataset(rgb, photometric=photometric, sop_class=scanner.SECONDARY)
        shown = read_image(scanner.jpeg(ds, [rgb], "RGB"))
        assert shown.array.shape == rgb.shape
        assert np.abs(shown.array.astype(int) - rgb).mean() < 5, photometric


def lossless(scanner: Any, syntax: str) -> bytes:
    """A file that says it is JPEG Lossless."""
    ds = scanner.dataset(np.zeros((4, 4), np.uint16))
    ds.PixelData = scanner.encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    data: bytes = scanner.packed(ds, syntax)
    return data


LOSSLESS = ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"]


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("asked", [None, "", "nonsense", "pillow,pyjpegls"])
def test_lossless_jpeg_is_not_decoded_unasked(
    scanner: Any, monkeypatch: pytest.MonkeyPatch, syntax: str, asked: str | None
) -> None:
    """Even where its decoders are installed; the message says how to ask."""
    monkeypatch.setattr(decoder_module, "installed_version", lambda name: "9.9")
    monkeypatch.delenv("SAMRT_DICOM_DECODERS", raising=False)
    if asked is not None:
        monkeypatch.setenv("SAMRT_DICOM_DECODERS", asked)
    told = r"JPEG Lossless.*GPL.*SAMRT_DICOM_DECODERS=pylibjpeg or gdcm.*dcmdjpeg"
    with pytest.raises(ExtraUnavailableError, match=told):
        stored(lossless(scanner, syntax))


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(
    ("plugin", "package"), [("gdcm", "python-gdcm"), ("pylibjpeg", "pylibjpeg-libjpeg")]
)
def test_lossless_jpeg_is_decoded_by_whom_one_asks_for(
    scanner: Any, monkeypatch: pytest.MonkeyPatch, syntax: str, plugin: str, package: str
) -> None:
    file = open_dicom(lossless(scanner, syntax), "x.dcm", DicomLimits())
    monkeypatch.setenv("SAMRT_DICOM_DECODERS", plugin)
    monkeypatch.setattr(decoder_module, "installed_version", lambda name: "9.9")
    assert decoder_module.choose_plugin(file) == (plugin, f"{package} 9.9")
    monkeypatch.setattr(decoder_module, "installed_version", lambda name: None)
    with pytest.raises(ExtraUnavailableError, match=f"asks for {plugin}.*pip install .*{package}"):
        decoder_module.choose_plugin(file)


def test_no_decoder_is_tried_after_another() -> None:
    """One plugin per syntax; RLE has pydicom's own only where the faster one is missing."""
    for uid, syntax in SYNTAXES.items():
        assert not {"gdcm", "pylibjpeg-libjpeg"}.intersection(syntax.plugins), uid
        assert len(syntax.plugins) <= 2
