"""Image files that are damaged, foreign, too large or no files at all."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.errors import ImageError, OptionError
from samrt.imaging import ImageLimits, read_image
from samrt.imaging.sniff import webp_size

RNG = np.random.default_rng(3)
RGB: NDArray[np.uint8] = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY16: NDArray[np.uint16] = RNG.integers(100, 4000, (13, 17), dtype=np.uint16)
LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")


def encode(picture: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, fmt, **({"lossless": True} if fmt == "WEBP" else {}), **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A PNG whose header claims 40000 x 40000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(1000))),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.png")
    assert "is a folder" in refused(tmp_path)
    empty = tmp_path / "empty.png"
    empty.touch()
    assert "is empty" in refused(empty)
    assert "is empty" in refused(b"")
    assert "null" in refused("a\0b")
    for content, word in (
        (b"GIF89a" + b"\0" * 50, "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"hello world", "not an image"),
        (b"\0\0\0\x20ftypheic", "HEIF"),
    ):
        text = refused(content)
        assert word in text
        assert "expected PNG, JPEG, BMP, TIFF or WebP" in text


def test_symlink_loop_and_unreadable_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "cannot read" in refused(loop)
    locked = tmp_path / "locked.png"
    locked.write_bytes(encode(Image.fromarray(RGB), "PNG"))
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        assert "ermission" in refused(locked)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "pipe or device" in refused(pipe)
    assert "pipe or device" in refused("/dev/zero")


def test_caps_come_before_decoding(tmp_path: Path) -> None:
    data = encode(Image.fromarray(RGB), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    small = ImageLimits(max_file_bytes=len(data) - 1)
    for source in (path, data):
        assert f"the limit is {len(data) - 1}" in refused(source, limits=small)
    for fmt in (*LOSSLESS, "JPEG"):
        header_only = encode(Image.fromarray(RGB), fmt)
        text = refused(header_only, limits=ImageLimits(max_pixels=220))
        assert "17 x 13 = 221 pixels" in text
    assert read_image(data, limits=ImageLimits(max_pixels=221, max_file_bytes=len(data)))


def test_a_bomb_is_refused_by_its_header() -> None:
    assert "1600000000 pixels" in refused(huge_png())
    # The header of a WebP canvas of 16383 x 16383, without any picture behind it.
    canvas = (16382).to_bytes(3, "little") * 2
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas
    assert webp_size(webp) == (16383, 16383)
    assert "16383 x 16383" in refused(webp)


def test_pillows_own_limit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encode(Image.fromarray(RGB), "JPEG")
    assert read_image(data).size == (13, 17)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_limits_must_be_positive() -> None:
    with pytest.raises(OptionError):
        ImageLimits(max_pixels=0)


def test_nan_in_a_float_file() -> None:
    values = np.ones((4, 5), np.float32)
    values[1, 2] = np.nan
    assert "1 NaN or infinite" in refused(encode(Image.fromarray(values), "TIFF"))


def test_bad_windows() -> None:
    data = encode(Image.fromarray(GREY16), "PNG")
    for window in ((5, 5), (9, 1), (0, np.nan), "wide", (1, 2, 3), 5):
        assert "window" in refused(data, window=window)


@pytest.mark.parametrize("fmt", [*LOSSLESS, "JPEG"])
def test_truncated_files_are_refused(fmt: str) -> None:
    data = encode(Image.fromarray(RGB), fmt)
    # An uncompressed TIFF of Pillow keeps its directory in front, a JPEG may lack its end marker.
    for share in (0.05, 0.3, 0.6, 0.9):
        text = refused(data[: max(1, int(len(data) * share))])
        assert "damaged" in text or "not an image" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_escapes(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    files = [encode(Image.fromarray(RGB), fmt) for fmt in (*LOSSLESS, "JPEG")]
    files += [encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw")]
    files += [encode(Image.fromarray(GREY16), fmt) for fmt in ("PNG", "TIFF")]
    for data in files:
        for _ in range(25):
            broken = bytearray(data)
            for at in rng.integers(0, len(broken), rng.integers(1, 6)):
                broken[at] = rng.integers(0, 256)
            with suppress(ImageError):  # anything else would be a bug
                assert read_image(bytes(broken)).array.dtype == np.uint8
    capfd.readouterr()  # libtiff prints by itself; the command line catches that


def test_standard_input(tmp_path: Path) -> None:
    code = (
        "import sys; from samrt.imaging import *\n"
        "try: print(read_image('-', limits=ImageLimits(max_file_bytes=int(sys.argv[1]))).size)\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    data = encode(Image.fromarray(RGB), "PNG")

    def feed(content: bytes, cap: int) -> str:
        command = [sys.executable, "-c", code, str(cap)]
        return subprocess.run(
            command, input=content, capture_output=True, check=True
        ).stdout.decode()

    assert feed(data, 10_000).strip() == "(13, 17)"
    assert "more than 100 bytes" in feed(data, 100)
    assert "standard input is empty" in feed(b"", 100)
