"""Image files to arrays: grey stays grey, colour becomes RGB, deeper than 8 bit gets a window.

What happens to each kind of file:

* 1, 2, 4 and 8 bit grey: ``(H, W)`` uint8. Palette, RGB, YCbCr and CMYK: ``(H, W, 3)`` uint8.
* Transparency: dropped if opaque, otherwise the picture is laid over black (with a warning).
* 16 and 32 bit grey, integer or float: mapped to 0..255 by a window; without one, by the lowest
  and highest value of the file (with a warning).
* 16 bit per channel in colour, or grey with alpha: reduced to the upper 8 bits (with a warning).
* EXIF and TIFF orientation are applied; prompts are pixels of the upright picture.
* Several pages or frames: the first (with a warning).
* DICOM, with the extra ``dicom``: see :mod:`samrt.imaging.dicom.read`.

Colour profiles and gamma are not applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError
from samrt.imaging.array import Window, as_uint8, check_window, drop_alpha
from samrt.imaging.sniff import ImageLimits, open_image, read_bytes, sniff_format
from samrt.quoting import one_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from samrt.imaging.dicom.read import DicomOrigin

__all__ = ["LoadedImage", "read_image"]

_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_PNG_GREY_ALPHA = 4  # colour type; Pillow gives its 16-bit form as RGBA
_GREY_8 = ("1", "L")
_COLOUR_8 = ("RGB", "RGBX", "CMYK", "YCbCr")
_GREY_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """A decoded, upright image file.

    Attributes:
        array: ``(H, W)`` or ``(H, W, 3)`` uint8, RGB order.
        source: the pixel values before the window, ``(H, W)`` uint16, int16, int32 or float32;
            ``array`` itself where no window was needed.
        size: ``(H, W)`` after orientation.
        sha256: hex digest of the file's bytes.
        format: ``PNG``, ``JPEG``, ``BMP``, ``TIFF``, ``WEBP``, ``DICOM`` or ``NIFTI``.
        mode: Pillow's name for what the file holds, such as ``L``, ``RGB``, ``I;16``; DICOM's
            photometric interpretation.
        bit_depth: bits per channel in the file.
        window: intensities that became 0 and 255; ``None`` if values were taken as they are.
        name: path as given, ``standard input`` or ``image data``.
        warnings: what a careful user should know.
        spacing_mm: between rows and between columns, for files that say so.
        details: JSON-ready facts about a scanner's file and how it was mapped to grey.
        origin: what writers of derived objects need of a scanner's file.
    """

    array: NDArray[np.uint8]
    source: NDArray[Any]
    size: tuple[int, int]
    sha256: str
    format: str
    mode: str
    bit_depth: int
    window: tuple[float, float] | None
    name: str
    warnings: tuple[str, ...]
    spacing_mm: tuple[float, float] | None = None
    details: Mapping[str, Any] | None = None
    origin: DicomOrigin | None = None


def read_image(
    source: str | PathLike[str] | bytes,
    *,
    window: Window | None = None,
    frame: int | None = None,
    limits: ImageLimits | None = None,
) -> LoadedImage:
    """Read an image file; caps are checked before it is read and before it is decoded.

    Args:
        source: a path, ``"-"`` for standard input, or the bytes of a file.
        window: ``(lo, hi)`` in units of the file, ``"minmax"`` or ``"percentile"`` (0.5th and
            99.5th). ``None``: eight-bit values as they are, deeper grey by ``"minmax"``.
            DICOM files take more, see :func:`samrt.imaging.dicom.voi.choose_voi`.
        frame: number of the frame of a DICOM file, from 0.
        limits: caps on bytes and pixels.

    Raises:
        ImageError: missing, unreadable, empty, too large, damaged or unsupported file; NaN in a
            float file; a bad window.
        ExtraUnavailableError: a DICOM file without the extra ``dicom``.
    """
    limits = limits or ImageLimits()
    name, data = _load(source, limits)
    if sniff_format(data) == "DICOM":
        from samrt.imaging.dicom.limits import DicomLimits
        from samrt.imaging.dicom.read import read_dicom

        return read_dicom(data, name, window=window, frame=frame, limits=DicomLimits.of(limits))
    if frame is not None:
        raise OptionError(f"{name} is no DICOM file: a frame cannot be chosen")
    if window is not None:
        window = check_window(window)
    picture = open_image(data, name, limits)
    kind, mode, depth = str(picture.format), picture.mode, _bit_depth(picture)
    grey_alpha = kind == "PNG" and _png_header(picture)[1] == _PNG_GREY_ALPHA
    notes: list[str] = []
    if getattr(picture, "is_animated", False):
        notes.append(f"{name} holds more than one picture: the first one is used")
    try:
        picture.load()
        values = _pixels(picture, name, depth, grey_alpha, notes)
    except ImageError:
        raise
    except Exception as exc:  # damaged data may end in any exception of the decoder
        raise ImageError(f"{name} is damaged or truncated: {one_line(exc)}") from exc
    values = np.ascontiguousarray(_upright(values, _orientation(picture, notes)))
    picture.close()
    if values.dtype != np.uint8 and window is None:
        window = "minmax"
        notes.append(
            f"{name} has {depth}-bit grey values {values.min():g} to {values.max():g}, shown from "
            "black to white: pass a window to choose the range"
        )
    shown = as_uint8(values, window=window, name=name)
    return LoadedImage(
        array=shown.array,
        source=values if values.dtype != np.uint8 else shown.array,
        size=(values.shape[0], values.shape[1]),
        sha256=hashlib.sha256(data).hexdigest(),
        format=kind,
        mode=mode,
        bit_depth=depth,
        window=shown.window,
        name=name,
        warnings=(*notes, *shown.warnings),
    )


def _load(source: str | PathLike[str] | bytes, limits: ImageLimits) -> tuple[str, bytes]:
    if not isinstance(source, bytes):
        shown = "standard input" if source == "-" else str(Path(source))
        return shown, read_bytes(source, limits)
    if not source:
        raise ImageError("image data is empty (0 bytes)")
    if len(source) > limits.max_file_bytes:
        raise ImageError(
            f"image data has {len(source)} bytes, the limit is {limits.max_file_bytes}: "
            "crop or convert it, or raise max_file_bytes"
        )
    return "image data", source


def _tiff_tag(picture: Image, tag: int, default: int) -> int:
    """First value of a TIFF tag; ``default`` if the tag is missing or this is no TIFF."""
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default


def _bit_depth(picture: ImageFile) -> int:
    """Bits per channel in the file; Pillow's mode alone hides 16-bit colour."""
    if picture.format == "TIFF":
        return _tiff_tag(picture, _TIFF_BITS, 1)
    if picture.format == "PNG":
        return _png_header(picture)[0]
    return 1 if picture.mode == "1" else 8


def _png_header(picture: ImageFile) -> tuple[int, int]:
    """``(bits per channel, colour type)`` of a PNG; IHDR is always its first chunk."""
    if picture.fp is None:
        return 8, 2
    at = picture.fp.tell()
    picture.fp.seek(24)  # signature 8, chunk header 8, width 4, height 4
    depth, colour_type = picture.fp.read(2)
    picture.fp.seek(at)
    return depth, colour_type


def _pixels(
    picture: ImageFile, name: str, depth: int, grey_alpha: bool, notes: list[str]
) -> NDArray[Any]:
    """Decoded values: ``(H, W)`` of any number type, or ``(H, W, 3)`` uint8."""
    mode = picture.mode
    if mode in _GREY_DEEP:
        return _deep_grey(picture, notes)
    if depth > 8:
        notes.append(f"{name} has {depth} bits per channel: only the upper 8 are used")
    if mode == "L" and _tiff_tag(picture, _TIFF_SAMPLE_FORMAT, 1) == 2:
        notes.append(f"{name} holds signed 8-bit values: 128 was added")
        shifted: NDArray[Any] = np.bitwise_xor(np.asarray(picture), np.uint8(0x80))
        return shifted
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        grey = grey_alpha or mode in ("LA", "La", "L", "1")
        layers = np.asarray(_with_alpha(picture))
        colour = layers[:, :, 0] if grey else layers[:, :, :3]
        return drop_alpha(colour, layers[:, :, 3], notes)
    if mode in _GREY_8:
        return np.asarray(picture.convert("L"))
    if mode == "CMYK":
        notes.append(f"{name} is CMYK: converted to RGB without its colour profile")
    if mode in _COLOUR_8 or mode == "P":
        return np.asarray(picture.convert("RGB"))
    raise ImageError(f"{name} has pixel type {mode}, expected grey, palette, RGB, YCbCr or CMYK")


def _with_alpha(picture: Image) -> Image:
    """RGBA of any eight-bit picture; premultiplied kinds need a step in between."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode)
    return (picture.convert(straight) if straight else picture).convert("RGBA")


def _deep_grey(picture: ImageFile, notes: list[str]) -> NDArray[Any]:
    """``(H, W)`` of uint16, int16, int32 or float32 in native byte order."""
    stored: NDArray[Any] = np.asarray(picture)
    array: NDArray[Any] = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    sample_format = _tiff_tag(picture, _TIFF_SAMPLE_FORMAT, 1)
    if array.dtype == np.int32:
        depth = _tiff_tag(picture, _TIFF_BITS, 32)
        if picture.format == "PNG":
            array = array.astype(np.uint16)
        elif depth == 16:
            array = array.astype(np.int16 if sample_format == 2 else np.uint16)
        elif sample_format == 1 and int(array.min()) < 0:  # unsigned beyond the signed range
            array = array.view(np.uint32).astype(np.float32)
    if picture.format == "TIFF" and _tiff_tag(picture, _TIFF_PHOTOMETRIC, 1) == 0:
        notes.append("the file stores white as zero: its values were inverted")
        array = np.iinfo(array.dtype).max - array if array.dtype.kind == "u" else -array
    if "transparency" in picture.info:
        notes.append("the transparent grey level of the file was ignored")
    return array


def _orientation(picture: ImageFile, notes: list[str]) -> int:
    """EXIF orientation 1..8 still to be applied; Pillow has already applied that of TIFF."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        notes.append("the EXIF data is damaged: any orientation in it was ignored")
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror so that the first row is the top (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
