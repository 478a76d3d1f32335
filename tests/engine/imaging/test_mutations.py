"""Damaged files of every kind: each one is read at its stated size, or refused in one line.

No crash, no hang, no other exception, no picture of a size that the file does not state, nothing
of the patient in a message. 690 files always, 9,200 more in the slow part.
"""

from __future__ import annotations

import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.errors import SamrtError
from samrt.imaging.dicom.decoder import FrameDecoder
from samrt.imaging.dicom.header import open_dicom
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.dicom.read import read_dicom
from samrt.imaging.read import read_image
from samrt.imaging.sniff import ImageLimits, is_dicom
from samrt.imaging.volumes.nifti import is_nifti, read_nifti
from samrt.imaging.volumes.series import read_dicom_volume

LIMITS = DicomLimits(
    max_file_bytes=4 << 20, max_pixels=1 << 20, max_voxels=1 << 22, decode_seconds=4.0,
    decode_memory_bytes=1 << 30,
)  # fmt: skip
PICTURE_LIMITS = ImageLimits(max_file_bytes=4 << 20, max_pixels=1 << 20)
SECONDS = 8.0


class HangError(BaseException):
    """Not to be caught by the code under test."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Break off Python code that runs too long."""
    if sys.platform == "win32":
        yield
        return

    def ring(*_: Any) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def dicom_seeds(scanner: Any) -> dict[str, bytes]:
    values, _ = scanner.body((3, 40, 48))
    one = scanner.series(values)[1]
    rgb = np.random.default_rng(0).integers(0, 256, (16, 20, 3)).astype(np.uint8)
    table = scanner.item(LUTDescriptor=[16, 0, 12], LUTExplanation="X")
    table.add_new("LUTData", "OW", np.arange(16, dtype="<u2").tobytes())
    palette: dict[str, Any] = {}
    for name in ("Red", "Green", "Blue"):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = np.arange(256, dtype="<u2").tobytes()
    ds, grey = scanner.dataset, values[0].astype(np.int16)
    found = {
        "explicit": scanner.packed(one),
        "implicit": scanner.packed(scanner.series(values)[0], scanner.IMPLICIT),
        "deflated": scanner.packed(scanner.series(values)[0], scanner.DEFLATED),
        "big endian": scanner.packed(scanner.series(values)[0], scanner.BIG_ENDIAN),
        "enhanced": scanner.packed(scanner.enhanced(values)),
        "lut": scanner.packed(ds(grey, VOILUTSequence=[table], PixelPaddingValue=-20)),
        "rgb": scanner.packed(ds(rgb, photometric="RGB", sop_class=scanner.SECONDARY)),
        "palette": scanner.packed(
            ds(rgb[:, :, 0].copy(), photometric="PALETTE COLOR", sop_class=scanner.SECONDARY,
               **palette)
        ),
        "jpeg": scanner.jpeg(ds(rgb, photometric="YBR_FULL_422", sop_class=scanner.SECONDARY),
                             [rgb], "RGB"),
    }  # fmt: skip
    for name, module in (("RLE", "rle"), ("JPEG_LS", "jpeg_ls"), ("JPEG_2000", "openjpeg")):
        try:
            __import__(module)
        except ImportError:
            continue
        found[name] = scanner.packed(scanner.series(values)[0], getattr(scanner, name))
    return found


def picture_seeds() -> dict[str, bytes]:
    y, x = np.mgrid[:24, :32]
    grey = (x * 5 + y * 3).astype(np.uint8)
    rgb = np.stack([grey, 255 - grey, grey // 2], -1)
    found = {}
    for name, array, options in (
        ("png", rgb, {}),
        ("png16", grey.astype(np.uint16) * 257, {}),
        ("tiff", rgb, {"compression": "tiff_lzw"}),
        ("tiff16", grey.astype(np.uint16) * 200, {"compression": "tiff_adobe_deflate"}),
        ("tiff float", grey.astype(np.float32), {}),
        ("tiff jpeg", rgb, {"compression": "jpeg"}),
        ("tiff fax", grey > 100, {"compression": "group4"}),
    ):
        buffer = BytesIO()
        Image.fromarray(array).save(buffer, name[:4].strip().upper().replace("PNG1", "PNG"),
                                    **options)  # fmt: skip
        found[name] = buffer.getvalue()
    return found


def nifti_seeds(scanner: Any, folder: Any) -> dict[str, bytes]:
    values, _ = scanner.body((4, 12, 16))
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    return {
        name: scanner.nifti(array.transpose(2, 1, 0), affine, folder / name).read_bytes()
        for name, array in (
            ("a.nii", values),
            ("a.nii.gz", values),
            ("f.nii", values.astype(np.float32)),
            ("u.nii.gz", (values > 0).astype(np.uint8)),
        )
    }


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: bytes changed, cut off, cut out, repeated, or a telling number put in."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if len(found) < 2:
            break
        # Half of all damage goes to the header, where it does more.
        most = len(found) if rng.random() < 0.5 else min(len(found), 1600)
        at = int(rng.integers(0, most))
        size = int(rng.integers(1, 24))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            for k in rng.integers(0, most, size):
                found[int(k)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            found[at : at + size] = rng.bytes(len(found[at : at + size]))
        elif kind == 2 and rng.random() < 0.4:
            del found[at:]
        elif kind == 3:
            del found[at : at + size]
        elif kind == 4:
            found[at:at] = found[at : at + size]
        else:
            number = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[int(rng.integers(7))]
            width = 2 if number < 0x10000 and rng.random() < 0.5 else 4
            found[at : at + width] = number.to_bytes(4, "little")[:width]
    return bytes(found)


def repaired(data: bytes) -> bytes:
    """A PNG whose checksums are right again, so that the damage gets past them."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    at, found = 8, bytearray(data[:8])
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size > len(data):
            break
        chunk = data[at + 4 : at + 8 + size]
        found += data[at : at + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        at += 12 + size
    return bytes(found)


def check_picture(array: NDArray[Any], size: tuple[int, int], stated: tuple[int, int]) -> None:
    assert array.dtype == np.uint8
    assert array.shape[:2] == size == stated
    assert array.ndim == 2 or array.shape[2:] == (3,)


def try_dicom(data: bytes, decoder: FrameDecoder) -> None:
    if not is_dicom(data):
        read_image(data, limits=PICTURE_LIMITS)
        return
    image = read_dicom(data, "x.dcm", limits=LIMITS, decoder=decoder)
    pixels = open_dicom(data, "x.dcm", LIMITS).pixels
    check_picture(image.array, image.size, (pixels.rows, pixels.columns))
    assert np.isfinite(image.source.astype(np.float64)).all()
    if pixels.frames > 1:
        volume = read_dicom_volume(data, "x.dcm", limits=LIMITS)
        assert volume.values.shape == (pixels.frames, pixels.rows, pixels.columns)


def try_picture(data: bytes) -> None:
    image = read_image(data, limits=PICTURE_LIMITS)
    with Image.open(BytesIO(data)) as header:
        stated = header.size[::-1]
        upright = header.getexif().get(0x0112, 1) in range(5, 9) if header.format != "TIFF" else 0
    check_picture(image.array, image.size, stated[::-1] if upright else stated)


def try_nifti(data: bytes) -> None:
    if not is_nifti(data):
        read_image(data, limits=PICTURE_LIMITS)
        return
    volume = read_nifti(data, "x.nii", time=0, limits=LIMITS)
    assert volume.values.ndim == 3
    assert np.isfinite(volume.affine).all()
    assert np.isfinite(volume.values.astype(np.float64)).all()
    assert volume.window is None or volume.window[0] < volume.window[1]


def bombard(
    seeds: dict[str, bytes], attempt: Callable[[bytes], None], count: int, first: int
) -> tuple[int, int]:
    """Try ``count`` damaged files per seed; returns how many were read and how many refused."""
    read = refused = 0
    for place, (name, good) in enumerate(sorted(seeds.items())):
        attempt(good)
        for number in range(first, first + count):
            rng = np.random.default_rng([place, number])
            data = repaired(damaged(good, rng))
            try:
                with alarm(SECONDS):
                    attempt(data)
                read += 1
            except SamrtError as exc:
                message = str(exc)
                assert message, (name, number)
                assert "\n" not in message, (name, number)
                assert "ecret" not in message, (name, number, message)
                assert "SECRET" not in message, (name, number, message)
                refused += 1
            except BaseException as exc:
                raise AssertionError(f"{name}, number {number}: {type(exc).__name__}") from exc
    return read, refused


# Standard error is left to libtiff, which writes there by itself.
pytestmark = pytest.mark.filterwarnings("ignore")
RUNS = [
    pytest.param(0, 30, id="short"),
    pytest.param(1000, 400, id="long", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("first", "count"), RUNS)
def test_dicom(scanner: Any, first: int, count: int) -> None:
    with FrameDecoder(LIMITS) as decoder:
        read, refused = bombard(
            dicom_seeds(scanner), lambda data: try_dicom(data, decoder), count, first
        )
    assert read > 0
    assert refused > 0


@pytest.mark.parametrize(("first", "count"), RUNS)
def test_pictures(first: int, count: int) -> None:
    read, refused = bombard(picture_seeds(), try_picture, count, first)
    assert read > 0
    assert refused > 0


@pytest.mark.parametrize(("first", "count"), RUNS)
def test_nifti(scanner: Any, tmp_path: Any, first: int, count: int) -> None:
    pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    read, refused = bombard(nifti_seeds(scanner, tmp_path), try_nifti, count, first)
    assert read > 0
    assert refused > 0
