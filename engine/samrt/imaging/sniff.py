"""What an image file is, from its first bytes, with all caps checked before anything is decoded.

Pillow does the parsing. Its format readers are created directly, so formats outside the list
cannot be reached and Pillow's process-wide pixel limit is left alone; ours is per call.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from samrt.errors import ImageError, OptionError
from samrt.quoting import one_line

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["ImageLimits", "is_dicom", "open_image", "read_bytes", "sniff_format"]

_READERS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\x1f\x8b", "gzip data (perhaps a NIfTI volume)"),
    (0, b"PK\x03\x04", "a ZIP archive or NPZ file"),
    (0, b"\x93NUMPY", "a NumPy array file"),
    (4, b"ftyp", "an HEIF, AVIF or MP4 file"),
    (344, b"n+1\x00", "a NIfTI volume"),
)
_EXPECTED = "expected PNG, JPEG, BMP, TIFF or WebP, or DICOM"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Caps that keep a hostile or mistaken file from eating the machine.

    Attributes:
        max_file_bytes: largest file, checked before it is read.
        max_pixels: largest width times height, checked before pixels are decoded.

    Raises:
        OptionError: a cap is below 1.
    """

    max_file_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        """Refuse caps that no image can meet."""
        if self.max_file_bytes < 1 or self.max_pixels < 1:
            raise OptionError(
                f"image limits must be at least 1, got {self.max_file_bytes} bytes "
                f"and {self.max_pixels} pixels"
            )


def read_bytes(source: str | PathLike[str], limits: ImageLimits) -> bytes:
    """Read a regular file, or standard input for ``"-"``, completely but never beyond the cap.

    Raises:
        ImageError: missing, unreadable, no regular file, empty or too large.
    """
    if source == "-":
        return _read_capped(sys.stdin.buffer, "standard input", limits)
    path = Path(source)
    try:
        _require_file(path.stat(), path)
        # O_NONBLOCK: a pipe that takes the file's place between the two looks cannot block us.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            size = _require_file(os.fstat(stream.fileno()), path)
            if size > limits.max_file_bytes:
                raise ImageError(
                    f"{path} has {size} bytes, the limit is {limits.max_file_bytes}: "
                    "crop or convert it, or raise max_file_bytes"
                )
            return _read_capped(stream, str(path), limits)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, OverflowError) as exc:
        if isinstance(exc, ImageError):
            raise
        reason = getattr(exc, "strerror", None) or exc
        raise ImageError(f"cannot read {str(path)!r}: {reason}") from exc


def _require_file(status: os.stat_result, path: Path) -> int:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, expected an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"{path} is a pipe or device, expected a regular file: "
            'to read from a pipe pass "-" and feed standard input'
        )
    return status.st_size


def _read_capped(stream: BinaryIO, name: str, limits: ImageLimits) -> bytes:
    data = stream.read(limits.max_file_bytes + 1)
    if len(data) > limits.max_file_bytes:
        raise ImageError(
            f"{name} has more than {limits.max_file_bytes} bytes: "
            "crop or convert it, or raise max_file_bytes"
        )
    if not data:
        raise ImageError(f"{name} is empty (0 bytes), {_EXPECTED}")
    return data


def sniff_format(data: bytes) -> str | None:
    """``PNG``, ``JPEG``, ``BMP``, ``TIFF``, ``WEBP`` or ``DICOM`` by signature, or ``None``."""
    if is_dicom(data):
        return "DICOM"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _SIGNATURES if data.startswith(magic)), None)


def is_dicom(data: bytes) -> bool:
    """Whether bytes look like a DICOM file, with or without the preamble of PS3.10."""
    if data[128:132] == b"DICM":
        return True
    # Without it: group 0002 or 0008 first, a low element number, then a VR or a short length.
    if data[:2] not in (b"\x02\x00", b"\x08\x00") or len(data) < 16 or data[3] != 0:
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or data[6:8] == b"\0\0"


def open_image(data: bytes, name: str, limits: ImageLimits) -> ImageFile:
    """Parse the header; pixels are decoded by the caller with ``.load()``.

    Raises:
        ImageError: not a supported image, a damaged header, no pixels, or too many.
    """
    kind = sniff_format(data)
    if kind not in _READERS:
        foreign = (what for at, magic, what in _FOREIGN if data[at:].startswith(magic))
        raise ImageError(f"{name} is {next(foreign, 'not an image samrt knows')}: {_EXPECTED}")
    if kind == "WEBP":  # its reader allocates the canvas at once
        _check_pixels(webp_size(data), name, limits)
    module, reader = _READERS[kind]
    try:
        picture: ImageFile = getattr(import_module(module), reader)(BytesIO(data))
    except ImportError:
        raise
    except Exception as exc:  # a hostile header may end in any exception of the parser
        raise ImageError(f"{name} is a damaged {kind} file: {one_line(exc)}") from exc
    _check_pixels(picture.size, name, limits)
    return picture


def _check_pixels(size: tuple[int, int] | None, name: str, limits: ImageLimits) -> None:
    if size is None:
        raise ImageError(f"{name} is a damaged WEBP file: it has no size")
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: its header says {width} x {height}")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height} pixels, the limit is "
            f"{limits.max_pixels}: crop or shrink it, or raise max_pixels"
        )


def webp_size(data: bytes) -> tuple[int, int] | None:
    """``(width, height)`` of a WebP canvas from its first chunk (RFC 9649); ``None`` if unknown."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return width, height
    return None
