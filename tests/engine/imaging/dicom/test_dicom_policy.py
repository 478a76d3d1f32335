"""Headers are judged before pixels are touched; hostile and damaged files end in one error."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.errors import ExtraUnavailableError, ImageError, OptionError, SamrtError
from samrt.imaging import _extras
from samrt.imaging.dicom.decoder import FrameDecoder
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.dicom.read import read_dicom
from samrt.imaging.read import read_image
from samrt.imaging.sniff import ImageLimits, is_dicom

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def refused(data: bytes, limits: DicomLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        read_dicom(data, "x.dcm", limits=limits)
    message = str(caught.value)
    assert "\n" not in message
    assert "x.dcm" in message
    return message


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Rows": 0}, "no pixels"),
        ({"Rows": 65535, "Columns": 65535}, "the limit is 100000000"),
        ({"Rows": 9000}, "damaged or truncated: 1 frames of 8 x 9000 take 144000 bytes"),
        ({"NumberOfFrames": 2}, "2 frames of 8 x 8 take 256 bytes, it holds 128"),
        ({"NumberOfFrames": 2_000_000_000}, "expected 1 to 100000"),
        ({"NumberOfFrames": 0}, "0 frames"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "BitsAllocated 1"),
        ({"BitsAllocated": 12}, "BitsAllocated 12"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"HighBit": 31}, "HighBit 31"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel 3"),
        ({"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK"}, "CMYK"),
        ({"PhotometricInterpretation": None}, "not read: none"),
        ({"Rows": None}, "Rows"),
        ({"BitsAllocated": None}, "BitsAllocated is missing"),
        ({"PixelSpacing": ["0", "1"]}, "PixelSpacing is not positive"),
        ({"WindowCenter": ["1", "2"], "WindowWidth": "5"}, "2 window centres and 1 widths"),
        ({"WindowCenter": "1", "WindowWidth": "0"}, "width of at least 1"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0], "ImagePositionPatient": [0, 0, 0],
          "PixelSpacing": [1, 1]}, "right angle"),
    ],
)  # fmt: skip
def test_headers(scanner: Any, elements: dict[str, Any], words: str) -> None:
    assert words in refused(scanner.packed(scanner.dataset(PIXELS, **elements)))


def test_numbers_that_are_none(scanner: Any) -> None:
    data = scanner.packed(scanner.dataset(PIXELS, RescaleSlope="1.25", RescaleIntercept="0"))
    assert data.count(b"1.25") == 1
    assert "RescaleSlope is damaged" in refused(data.replace(b"1.25", b"a.b "))
    assert "not finite" in refused(data.replace(b"1.25", b"inf "))


def test_other_kinds_of_files(scanner: Any) -> None:
    report = scanner.dataset(PIXELS, Rows=None, Columns=None)
    del report.PixelData
    assert "truncated or damaged" in refused(scanner.packed(report))
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    assert "holds no image" in refused(scanner.packed(report))
    floats = scanner.dataset(PIXELS)
    del floats.PixelData
    floats.FloatPixelData = np.zeros(64, "<f4").tobytes()
    assert "floating-point" in refused(scanner.packed(floats))
    video = scanner.packed(scanner.dataset(PIXELS))
    changed = video.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99")
    assert "transfer syntax 1.2.840.10008.1.2.99" in refused(changed)


def test_truncation_at_every_length(scanner: Any) -> None:
    for syntax in (scanner.EXPLICIT, scanner.IMPLICIT, scanner.DEFLATED):
        data = scanner.packed(scanner.dataset(PIXELS), syntax)
        for length in range(140, len(data), 7):
            with pytest.raises(SamrtError):
                read_image(data[:length])


def test_truncated_fragments(scanner: Any) -> None:
    ds = scanner.dataset(PIXELS)
    ds.PixelData = scanner.encapsulate([b"\x01" * 64])
    ds["PixelData"].is_undefined_length = True
    data = _raw(scanner, ds, scanner.RLE)
    assert "truncated" in refused(data[:-20])
    assert "damaged" in refused(data)


def _raw(scanner: Any, ds: Any, syntax: str) -> bytes:
    """A file whose fragments are taken as they are."""
    ds.file_meta.TransferSyntaxUID = scanner.UID(syntax)
    buffer = scanner.BytesIO()
    scanner.dcmwrite(buffer, ds, enforce_file_format=True)
    found: bytes = buffer.getvalue()
    return found


def test_deflate_bomb(scanner: Any) -> None:
    limits = DicomLimits(max_file_bytes=8 << 20)
    bomb = scanner.deflate_bomb(64 << 20)
    assert len(bomb) < 100_000
    start = time.perf_counter()
    assert "inflates to more than 8388608 bytes" in refused(bomb, limits)
    assert time.perf_counter() - start < 5.0


def test_header_bomb(scanner: Any) -> None:
    ds = scanner.dataset(PIXELS)
    ds.add_new(0x00091001, "OB", b"\0" * 300_000)
    assert "max_header_bytes" in refused(scanner.packed(ds), DicomLimits(max_header_bytes=200_000))
    read_dicom(scanner.packed(ds), "x.dcm")


def test_nested_sequences_do_not_overflow(scanner: Any) -> None:
    data = scanner.packed(scanner.dataset(PIXELS))
    at = data.index(b"\x28\x00\x02\x00US")
    level = b"\x20\x00\x22\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert "damaged" in refused(data[:at] + level * 5000 + data[at:])


def test_pixel_bomb_in_compressed_data(scanner: Any) -> None:
    """A header within the limits whose pixels the decoder cannot hold in its memory."""
    pytest.importorskip("rle", reason="pylibjpeg-rle is not installed (extra dicom)")
    ds = scanner.dataset(np.zeros((16, 16), np.uint16))
    data = scanner.packed(ds, scanner.RLE)
    rows = data.index(b"\x28\x00\x10\x00US\x02\x00") + 8
    columns = data.index(b"\x28\x00\x11\x00US\x02\x00") + 8
    forged = bytearray(data)
    forged[rows : rows + 2] = forged[columns : columns + 2] = b"\xff\xff"
    wide = DicomLimits(max_pixels=2**32, decode_memory_bytes=1)
    assert "damaged" in refused(bytes(forged), wide) or "memory" in refused(bytes(forged), wide)
    assert "the limit is" in refused(bytes(forged))


@pytest.mark.parametrize("syntax", ["JPEG_2000", "JPEG_LS"])
def test_pixel_bomb_in_the_code_stream(scanner: Any, syntax: str) -> None:
    """The DICOM header is modest, the compressed picture says it is enormous."""
    module = {"JPEG_2000": "openjpeg", "JPEG_LS": "jpeg_ls"}[syntax]
    pytest.importorskip(module, reason=f"{module} is not installed (extra dicom)")
    pixels = np.zeros((40, 48), np.uint16)
    data = bytearray(scanner.packed(scanner.dataset(pixels), getattr(scanner, syntax)))
    mark, places, width = {
        "JPEG_2000": (b"\xff\x51", (6, 10, 22, 26), 4),
        "JPEG_LS": (b"\xff\xf7", (5, 7), 2),
    }[syntax]
    at = data.index(mark)
    for place in places:
        data[at + place : at + place + width] = (60000).to_bytes(width, "big")
    start = time.perf_counter()
    assert "do not decode" in refused(bytes(data))
    assert time.perf_counter() - start < 20.0


def _record() -> dict[str, Any]:
    return {
        "rows": 8, "columns": 8, "samples": 1, "bits_allocated": 16, "bits_stored": 16,
        "signed": False, "photometric": "MONOCHROME2", "planar": 0,
        "syntax": "1.2.840.10008.1.2.5", "plugin": "pydicom",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import time; time.sleep(60)", "took longer than 0.5 s"),
        ("import os; os.abort()", "ended the decoding process"),
        ("print('nonsense', flush=True)", "ended the decoding process"),
        ("print('7', flush=True)", "ended the decoding process"),
        ("""print('{"dtype": "<u2", "shape": [9, 8], "bytes": 144}' + 'x' * 144)""", "ended"),
        ("""print('{"dtype": "<f8", "shape": [8, 8], "bytes": 512}' + 'x' * 512)""", "ended"),
        ("""print('{"dtype": "<u2", "shape": [8, 8], "bytes": 128}', flush=True)""", "ended"),
    ],
)
def test_decoders_that_hang_or_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    path = tmp_path / "worker.py"
    head = "import sys\nprint('ready', flush=True)\nsys.stdin.buffer.readline()\n"
    path.write_text(head + script)
    monkeypatch.setattr("samrt.imaging.dicom.decoder._SCRIPT", path)
    start = time.perf_counter()
    with (
        FrameDecoder(DicomLimits(decode_seconds=0.5)) as decoder,
        pytest.raises(ImageError, match=words),
    ):
        decoder.decode(_record(), b"\0" * 10, "x.dcm")
    assert time.perf_counter() - start < 10.0


def test_a_new_worker_after_a_crash(scanner: Any) -> None:
    pytest.importorskip("rle", reason="pylibjpeg-rle is not installed (extra dicom)")
    record = _record()
    with FrameDecoder() as decoder:
        with pytest.raises(ImageError, match="do not decode"):
            decoder.decode(record, b"\0" * 10, "x.dcm")
        good = scanner.dataset(PIXELS)
        good.compress(scanner.UID(scanner.RLE))
        from pydicom.encaps import get_frame

        frame = get_frame(good.PixelData, 0, number_of_frames=1)
        assert decoder._process is not None
        decoder._process.kill()
        decoder._process.wait()
        np.testing.assert_array_equal(decoder.decode(record, frame, "x.dcm"), PIXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
def test_the_worker_has_its_limits(tmp_path: Path) -> None:
    """The real worker's own limit function, in a process that then wants too much."""
    from samrt.imaging.dicom import _worker

    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('w', {_worker.__file__!r})\n"
        "w = importlib.util.module_from_spec(spec); spec.loader.exec_module(w)\n"
        "w._limit(300 << 20, 5)\n"
        "try:\n    x = bytearray(1 << 30)\nexcept MemoryError:\n    print('refused')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.stdout.strip() == b"refused", result.stderr


def test_nothing_of_the_patient_is_said(
    scanner: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = scanner.packed(scanner.dataset(PIXELS, PatientAge="077Y", PatientSize="1.75"))
    data = data.replace(b"077Y", b"Secr").replace(b"1.75", b"Secr")
    image = read_image(data)
    for damaged in (data.replace(b"UI", b"U\xff"), data[:900], data.replace(b"US", b"Se")):
        with pytest.raises(SamrtError) as caught:
            read_image(damaged)
        assert "SECRET" not in str(caught.value).upper()
    captured = capfd.readouterr()
    said = captured.out + captured.err + caplog.text + repr(image.details) + repr(image.warnings)
    assert "SECRET" not in said.upper()
    assert "1933" not in said


def test_without_preamble(scanner: Any) -> None:
    data = scanner.packed(scanner.dataset(PIXELS), scanner.IMPLICIT)
    meta = 132 + 12 + int.from_bytes(data[140:144], "little")
    assert is_dicom(data)
    for bare in (data[132:], data[meta:]):
        assert is_dicom(bare)
        np.testing.assert_array_equal(read_image(bare).source, PIXELS)
    assert not is_dicom(b"")
    assert not is_dicom(b"BM" + b"\0" * 200)


def test_caps(scanner: Any) -> None:
    data = scanner.packed(scanner.dataset(PIXELS))
    with pytest.raises(ImageError, match="the limit is 10"):
        read_image(data, limits=ImageLimits(max_pixels=10))
    with pytest.raises(OptionError, match="decode_seconds must be above 0"):
        DicomLimits(decode_seconds=0)


def test_without_pydicom(scanner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Callable[..., Any]:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(_extras, "import_module", missing)
    with pytest.raises(ExtraUnavailableError, match=r"pip install 'samrt\[dicom\]'"):
        read_image(scanner.packed(scanner.dataset(PIXELS)))


def test_a_frame_of_a_picture() -> None:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    with pytest.raises(OptionError, match="no DICOM file"):
        read_image(buffer.getvalue(), frame=0)
