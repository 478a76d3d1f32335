"""Every kind of image file, against Pillow's own reading of it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from samrt.imaging import read_image
from samrt.imaging.sniff import sniff_format

RNG = np.random.default_rng(3)
RGB: NDArray[np.uint8] = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(RGB[:, :, 0])
GREY16: NDArray[np.uint16] = RNG.integers(100, 4000, (13, 17), dtype=np.uint16)
LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")


def encode(picture: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = BytesIO()
    if fmt == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    picture.save(buffer, fmt, **options)
    return buffer.getvalue()


def minmax(values: NDArray[Any]) -> NDArray[np.uint8]:
    v = values.astype(np.float64)
    return np.floor((v - v.min()) / (v.max() - v.min()) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("fmt", LOSSLESS)
def test_rgb_is_kept(fmt: str) -> None:
    data = encode(Image.fromarray(RGB), fmt)
    loaded = read_image(data)
    assert np.array_equal(loaded.array, RGB)
    assert loaded.array.dtype == np.uint8
    assert loaded.array.flags.c_contiguous
    assert loaded.format == fmt == sniff_format(data)
    assert (loaded.size, loaded.bit_depth, loaded.window) == ((13, 17), 8, None)
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    assert loaded.warnings == ()


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF"])
def test_grey_stays_grey(fmt: str) -> None:
    loaded = read_image(encode(Image.fromarray(GREY), fmt))
    assert np.array_equal(loaded.array, GREY)
    assert loaded.source is loaded.array


def test_jpeg_is_what_pillow_decodes() -> None:
    for picture in (Image.fromarray(RGB), Image.fromarray(GREY)):
        data = encode(picture, "JPEG", quality=90)
        with Image.open(BytesIO(data)) as direct:
            assert np.array_equal(read_image(data).array, np.asarray(direct))


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF"])
def test_one_bit_becomes_black_and_white(fmt: str) -> None:
    bits = GREY > 127
    loaded = read_image(encode(Image.fromarray(bits), fmt))
    assert np.array_equal(loaded.array, np.where(bits, 255, 0))
    assert (loaded.mode, loaded.bit_depth) == ("1", 1)


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF"])
def test_palette_becomes_rgb(fmt: str) -> None:
    indexed = Image.fromarray(RGB).quantize(16)
    loaded = read_image(encode(indexed, fmt))
    assert np.array_equal(loaded.array, np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize(("bits", "levels"), [(2, 4), (4, 16)])
def test_palette_of_few_bits(bits: int, levels: int) -> None:
    indexed = Image.fromarray(RGB).quantize(levels)
    loaded = read_image(encode(indexed, "PNG", bits=bits))
    assert np.array_equal(loaded.array, np.asarray(indexed.convert("RGB")))
    assert loaded.bit_depth == bits


def test_transparent_palette_lies_over_black() -> None:
    indexed = Image.fromarray(RGB).quantize(8)
    loaded = read_image(encode(indexed, "PNG", transparency=2))
    expected = np.asarray(indexed.convert("RGB")).copy()
    expected[np.asarray(indexed) == 2] = 0
    assert np.array_equal(loaded.array, expected)
    assert "transparent" in loaded.warnings[0]


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP"])
def test_opaque_alpha_is_dropped(fmt: str) -> None:
    opaque = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    loaded = read_image(encode(Image.fromarray(opaque), fmt))
    assert np.array_equal(loaded.array, RGB)
    assert loaded.warnings == ()


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP"])
def test_alpha_lies_over_black(fmt: str) -> None:
    alpha = RNG.integers(0, 256, GREY.shape, dtype=np.uint8)
    loaded = read_image(encode(Image.fromarray(np.dstack([RGB, alpha])), fmt))
    expected = np.rint(RGB * (alpha[:, :, None] / 255.0))
    assert np.abs(loaded.array.astype(int) - expected).max() <= 1
    assert len(loaded.warnings) == 1


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_grey_with_alpha_stays_grey(fmt: str) -> None:
    alpha = np.full(GREY.shape, 255, np.uint8)
    loaded = read_image(encode(Image.merge("LA", [Image.fromarray(c) for c in (GREY, alpha)]), fmt))
    assert np.array_equal(loaded.array, GREY)


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    loaded = read_image(data)
    with Image.open(BytesIO(data)) as direct:
        assert np.array_equal(loaded.array, np.asarray(direct.convert("RGB")))
    assert "CMYK" in loaded.warnings[0]


def big_endian(values: NDArray[np.uint16]) -> bytes:
    """Uncompressed big-endian 16-bit TIFF, written by hand: Pillow writes little-endian."""
    height, width = values.shape
    entries = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
    entries += [
        (273, 4, 134),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, values.size * 2),
        (339, 3, 1),
    ]
    data = b"MM\x00*" + (8).to_bytes(4, "big") + len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        cell = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        data += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + cell
    data += (0).to_bytes(4, "big")
    assert len(data) == 134
    return data + values.astype(">u2").tobytes()


DEEP = {
    "png16": (lambda: encode(Image.fromarray(GREY16), "PNG"), GREY16),
    "tiff16": (lambda: encode(Image.fromarray(GREY16), "TIFF"), GREY16),
    "tiff16-lzw": (lambda: encode(Image.fromarray(GREY16), "TIFF", compression="tiff_lzw"), GREY16),
    "tiff16-big-endian": (lambda: big_endian(GREY16), GREY16),
    "tiff32": (
        lambda: encode(Image.fromarray(GREY16.astype(np.int32) - 1024), "TIFF"),
        GREY16.astype(np.int32) - 1024,
    ),
    "tiff-float": (
        lambda: encode(Image.fromarray(GREY16.astype(np.float32) / 7), "TIFF"),
        GREY16.astype(np.float32) / 7,
    ),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_grey_keeps_its_values_and_shows_min_to_max(kind: str) -> None:
    make, values = DEEP[kind]
    loaded = read_image(make())
    assert np.array_equal(loaded.source, values)
    assert loaded.source.dtype.isnative
    assert loaded.window == (float(values.min()), float(values.max()))
    assert np.abs(loaded.array.astype(int) - minmax(values)).max() <= (kind == "tiff-float")
    assert loaded.bit_depth == (16 if "16" in kind else 32)
    assert "pass a window" in loaded.warnings[0]


def test_explicit_window_is_used_without_a_warning() -> None:
    data = encode(Image.fromarray(GREY16), "PNG")
    loaded = read_image(data, window=(1000, 2000))
    expected = np.floor(np.clip((GREY16 - 1000.0) / 1000.0, 0, 1) * 255 + 0.5)
    assert np.abs(loaded.array - expected).max() <= 1
    assert (loaded.window, loaded.warnings) == ((1000.0, 2000.0), ())
    percentile = read_image(data, window="percentile")
    assert percentile.window == pytest.approx(tuple(np.percentile(GREY16, (0.5, 99.5))))


def test_window_applies_to_eight_bit_images_when_asked() -> None:
    loaded = read_image(encode(Image.fromarray(GREY), "PNG"), window=(50, 100))
    expected = np.floor(np.clip((GREY - 50.0) / 50.0, 0, 1) * 255 + 0.5)
    assert np.array_equal(loaded.array, expected)


def test_constant_deep_image_is_black_with_a_warning() -> None:
    loaded = read_image(encode(Image.fromarray(np.full((4, 5), 777, np.uint16)), "PNG"))
    assert not loaded.array.any()
    assert any("single value 777" in text for text in loaded.warnings)


def test_white_is_zero_is_inverted() -> None:
    data = bytearray(encode(Image.fromarray(GREY16), "TIFF"))
    tag = (262).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    data[data.index(tag) + 8] = 0
    loaded = read_image(bytes(data))
    assert np.array_equal(loaded.source, 65535 - GREY16)
    assert any("white as zero" in text for text in loaded.warnings)


def png_by_hand(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of a kind, or with a lie in its header, that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def deep_rows(values: NDArray[np.uint8]) -> bytes:
    return b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in values)


def test_sixteen_bit_colour_is_reduced_and_says_so() -> None:
    loaded = read_image(png_by_hand(17, 13, 16, 2, deep_rows(RGB)))
    assert np.array_equal(loaded.array, RGB)
    assert loaded.bit_depth == 16
    assert "upper 8" in loaded.warnings[0]


def test_sixteen_bit_grey_with_alpha_stays_grey() -> None:
    layers = np.dstack([GREY, np.full(GREY.shape, 255, np.uint8)])
    loaded = read_image(png_by_hand(17, 13, 16, 4, deep_rows(layers)))
    assert np.array_equal(loaded.array, GREY)
    assert "upper 8" in loaded.warnings[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_orientation_is_applied(fmt: str, options: dict[str, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(RGB), fmt, exif=exif, **options)
    with Image.open(BytesIO(data)) as direct:
        expected = np.asarray(ImageOps.exif_transpose(direct).convert("RGB"))
    loaded = read_image(data)
    assert np.array_equal(loaded.array, expected)
    assert loaded.size == expected.shape[:2] == ((17, 13) if orientation >= 5 else (13, 17))


def test_orientation_of_deep_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = read_image(encode(Image.fromarray(GREY16), "PNG", exif=exif))
    assert np.array_equal(loaded.source, np.rot90(GREY16, -1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_is_a_warning() -> None:
    for tail in (b"MM\0*\xff\xff\xff\xff", b"XX", b"II*\0\x08\0\0\0\xff\xff"):
        data = encode(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + tail)
        assert read_image(data).array.shape == (13, 17, 3)


@pytest.mark.parametrize("fmt", ["TIFF", "WEBP", "PNG"])
def test_first_of_several_pictures(fmt: str) -> None:
    other = Image.fromarray(255 - RGB)
    loaded = read_image(encode(Image.fromarray(RGB), fmt, save_all=True, append_images=[other]))
    assert np.array_equal(loaded.array, RGB)
    assert "more than one picture" in loaded.warnings[0]
