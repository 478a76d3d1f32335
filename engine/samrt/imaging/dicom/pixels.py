"""Stored pixel values of one frame, native or compressed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.decoder import FrameDecoder, choose_plugin
from samrt.imaging.dicom.header import DicomFile

__all__ = ["read_frame"]


def read_frame(file: DicomFile, index: int, decoder: FrameDecoder) -> tuple[NDArray[Any], str]:
    """Read one frame.

    Args:
        file: from :func:`open_dicom`.
        index: frame number from 0.
        decoder: for compressed frames.

    Returns:
        Stored values ``(rows, columns)`` with their sign and without unused bits, or RGB
        ``(rows, columns, 3)``; and the decoder's name and version, ``"none"`` for native pixels.

    Raises:
        ImageError: no such frame, truncated or damaged pixels.
        ExtraUnavailableError: no decoder for this syntax.
    """
    pixels = file.pixels
    if not 0 <= index < pixels.frames:
        raise ImageError(
            f"{file.name} has {pixels.frames} frame(s), there is no frame {index}: "
            f"expected 0 to {pixels.frames - 1}"
        )
    record: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples": pixels.samples,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "signed": pixels.signed,
        "photometric": pixels.photometric,
        "planar": pixels.planar,
        "syntax": file.syntax_uid,
        "plugin": "",
    }
    if file.syntax.compressed:
        record["plugin"], used = choose_plugin(file)
        frame = _fragments(file, index)
        array = decoder.decode(record, frame, file.name)
    else:
        array, used = _native(file, index, record), "none"
    return array.astype(array.dtype.newbyteorder("="), copy=False), used


def _native(file: DicomFile, index: int, record: dict[str, Any]) -> NDArray[Any]:
    from samrt.imaging.dicom._worker import decode

    pixels = file.pixels
    at = file.start + index * pixels.frame_bytes
    frame = file.body[at : at + pixels.frame_bytes]
    if not file.syntax.little_endian and pixels.bits_allocated > 8:
        frame = np.frombuffer(frame, f">u{pixels.bits_allocated // 8}").astype("<u4" if
            pixels.bits_allocated == 32 else "<u2").tobytes()  # fmt: skip
    unused = pixels.high_bit + 1 - pixels.bits_stored
    if unused:
        words = np.frombuffer(frame, f"<u{pixels.bits_allocated // 8}") >> unused
        frame = words.astype(f"<u{pixels.bits_allocated // 8}").tobytes()
    record["syntax"] = "1.2.840.10008.1.2.1"
    try:
        with elements.quiet():
            return decode(record, frame)
    except Exception as exc:
        raise ImageError(
            f"{file.name} is damaged: its pixels do not decode ({type(exc).__name__})"
        ) from exc


def _fragments(file: DicomFile, index: int) -> bytes:
    """The bytes of one compressed frame (PS3.5 A.4)."""
    from pydicom.encaps import get_frame

    extended = None
    offsets = elements.raw(file.dataset, "ExtendedOffsetTable")
    lengths = elements.raw(file.dataset, "ExtendedOffsetTableLengths")
    if isinstance(offsets, bytes) and isinstance(lengths, bytes):
        extended = (offsets, lengths)
    _check_items(file)
    stream = BytesIO(file.body)  # shares the bytes
    stream.seek(file.start)
    try:
        frame = get_frame(
            stream,
            index,
            extended_offsets=extended,
            number_of_frames=file.pixels.frames,
        )
    except Exception as exc:
        raise ImageError(
            f"{file.name} is damaged or truncated: frame {index} is not among its pixel fragments"
        ) from exc
    if not frame:
        raise ImageError(f"{file.name} is damaged: frame {index} is empty")
    return bytes(frame)


def _check_items(file: DicomFile) -> None:
    """Walk over the fragments: get_frame would take a cut one for a whole one."""
    at, end, body = file.start, len(file.body), file.body
    while at < end:
        tag = body[at : at + 4]
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        if tag == b"\xfe\xff\xdd\xe0":
            return
        if tag != b"\xfe\xff\x00\xe0" or at + 8 > end:
            raise ImageError(f"{file.name} is damaged: its pixel fragments cannot be told apart")
        if at + 8 + length > end:
            raise ImageError(f"{file.name} is truncated: its last pixel fragment is cut off")
        at += 8 + length
