"""The header of a DICOM file, parsed and judged before any pixel is touched (PS3.5, PS3.10)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from samrt.errors import ImageError, SamrtError
from samrt.imaging._extras import need
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.limits import SYNTAXES, DicomLimits, Syntax

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["DicomFile", "PixelFormat", "open_dicom"]

_PIXEL_TAGS = {0x7FE00010, 0x7FE00009, 0x7FE00008}
_UNDEFINED = 0xFFFFFFFF
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_LONG_VR = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT")


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How pixels are stored; names follow DICOM's attributes (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int
    frames: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame that is not compressed."""
        samples: float = self.samples
        if self.photometric == "YBR_FULL_422":
            samples = 2  # two pixels share their colour differences
        return int(self.rows * self.columns * samples * (self.bits_allocated // 8))


@dataclass(frozen=True, slots=True, eq=False)
class DicomFile:
    """A parsed header and where the pixels are.

    Attributes:
        name: how messages call the file.
        dataset: everything before the pixel data.
        syntax_uid: transfer syntax.
        syntax: what is known about it.
        pixels: how pixels are stored.
        body: the data set's bytes, inflated if they were deflated.
        start: where the value of the pixel data begins in ``body``.
        length: its length, or ``None`` for fragments.
    """

    name: str
    dataset: Dataset
    syntax_uid: str
    syntax: Syntax
    pixels: PixelFormat
    body: bytes
    start: int
    length: int | None


def open_dicom(data: bytes, name: str, limits: DicomLimits) -> DicomFile:
    """Parse the header of a DICOM file and check it against the policy.

    Raises:
        ExtraUnavailableError: pydicom is not installed.
        ImageError: damaged, truncated, no image, too large, or of a kind that is not read.
    """
    need("pydicom", f"read the DICOM file {name}")
    try:
        with elements.quiet():
            return _open(data, name, limits)
    except SamrtError as exc:
        raise exc if str(exc).startswith(name) else ImageError(f"{name}: {exc}") from exc
    except Exception as exc:  # a hostile header may end in any exception; its text may hold names
        raise ImageError(
            f"{name} is a damaged DICOM file: its header cannot be parsed ({type(exc).__name__})"
        ) from exc


def _open(data: bytes, name: str, limits: DicomLimits) -> DicomFile:
    uid, begin = _file_meta(data)
    if uid is None:
        explicit = data[begin + 4 : begin + 6].isalpha() and data[begin + 4 : begin + 6].isupper()
        uid = _EXPLICIT if explicit else _IMPLICIT
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        raise ImageError(
            f"{name} has the transfer syntax {_printable(uid)}, which samrt does not read: "
            "convert it, for instance with dcmconv or gdcmconv"
        )
    body = data[begin:]
    if syntax.deflated:
        body = _inflate(body, name, limits)
    dataset, stop = _parse(body, syntax, name, limits)
    _attach_meta(dataset, uid)
    if stop is None:
        raise ImageError(_no_pixels(dataset, name))
    start, length = stop
    pixels = _pixel_format(dataset, name, limits)
    if syntax.compressed != (length is None):
        raise ImageError(f"{name} is damaged: its pixel data do not have the form of {syntax.name}")
    if length is not None and start + length > len(body):
        raise ImageError(
            f"{name} is truncated: its pixel data have {len(body) - start} bytes, its header "
            f"says {length}"
        )
    if length is not None and length < pixels.frame_bytes * pixels.frames:
        raise ImageError(
            f"{name} is damaged or truncated: {pixels.frames} frames of {pixels.columns} x "
            f"{pixels.rows} take {pixels.frame_bytes * pixels.frames} bytes, it holds {length}"
        )
    return DicomFile(name, dataset, uid, syntax, pixels, body, start, length)


def _file_meta(data: bytes) -> tuple[str | None, int]:
    """``(transfer syntax UID, where the data set begins)`` from group 0002, explicit VR."""
    at = 132 if data[128:132] == b"DICM" else 0
    uid = None
    while data[at : at + 2] == b"\x02\x00":
        vr = data[at + 4 : at + 6]
        if vr in _LONG_VR:
            length, value = int.from_bytes(data[at + 8 : at + 12], "little"), at + 12
        else:
            length, value = int.from_bytes(data[at + 6 : at + 8], "little"), at + 8
        if length > 65536 or value + length > len(data):
            raise ImageError("the file meta information is damaged or cut off")
        if data[at + 2 : at + 4] == b"\x10\x00":
            uid = data[value : value + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = value + length
    return uid, at


def _printable(uid: str) -> str:
    return uid if uid and len(uid) <= 64 and all(c in "0123456789." for c in uid) else "(no UID)"


def _inflate(packed: bytes, name: str, limits: DicomLimits) -> bytes:
    """Undo the deflation of PS3.5 A.5, never beyond the largest size of a file."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = stream.decompress(packed, limits.max_file_bytes)
    except zlib.error as exc:
        raise ImageError(f"{name} is damaged: its deflated data cannot be inflated") from exc
    if stream.unconsumed_tail and not stream.eof:
        raise ImageError(
            f"{name} inflates to more than {limits.max_file_bytes} bytes: raise max_file_bytes "
            "if the file can be trusted"
        )
    if not stream.eof:
        raise ImageError(f"{name} is truncated: its deflated data end too early")
    return body


class _Capped(BytesIO):
    """A stream that refuses to read more than so many bytes."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._left = most

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise ImageError("its header is larger than max_header_bytes allows")
        return found


def _parse(
    body: bytes, syntax: Syntax, name: str, limits: DicomLimits
) -> tuple[Dataset, tuple[int, int | None] | None]:
    """The header, and ``(start, length)`` of the pixel data's value if there are any."""
    from pydicom.filereader import read_dataset

    stream = _Capped(body, limits.max_header_bytes)
    stop: list[tuple[int, int | None]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if int(tag) not in _PIXEL_TAGS:
            return False
        if int(tag) != 0x7FE00010:
            raise ImageError("its pixels are floating-point numbers, which samrt does not read")
        stop.append((stream.tell(), None if length == _UNDEFINED else length))
        return True

    dataset = read_dataset(stream, syntax.implicit, syntax.little_endian, stop_when=at_pixels)
    return dataset, stop[0] if stop else None


def _attach_meta(dataset: Dataset, uid: str) -> None:
    """Give a data set the file meta information that writers of derived objects look for."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(uid)
    dataset.file_meta = meta


def _no_pixels(dataset: Dataset, name: str) -> str:
    from pydicom.uid import UID

    kind = elements.text(dataset, "SOPClassUID")
    known = UID(kind).name if kind else "of unknown kind"
    if kind and "Image Storage" not in known and elements.whole(dataset, "Rows") is None:
        return f"{name} holds no image, it is a DICOM file ({known})"
    return f"{name} is truncated or damaged: it is a DICOM file without pixel data ({known})"


def _pixel_format(dataset: Dataset, name: str, limits: DicomLimits) -> PixelFormat:
    def need_whole(keyword: str, default: int | None = None) -> int:
        value = elements.whole(dataset, keyword)
        if value is None:
            value = default
        if value is None:
            raise ImageError(f"{name} is damaged: the DICOM element {keyword} is missing")
        return value

    rows, columns = need_whole("Rows"), need_whole("Columns")
    frames = need_whole("NumberOfFrames", 1)
    photometric = elements.text(dataset, "PhotometricInterpretation") or ""
    allocated = need_whole("BitsAllocated")
    stored = need_whole("BitsStored", allocated)
    found = PixelFormat(
        rows=rows,
        columns=columns,
        samples=need_whole("SamplesPerPixel", 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=need_whole("HighBit", stored - 1),
        signed=bool(need_whole("PixelRepresentation", 0)),
        photometric=photometric,
        planar=need_whole("PlanarConfiguration", 0),
        frames=frames,
    )
    _check_size(found, name, limits)
    _check_type(found, name)
    return found


def _check_size(found: PixelFormat, name: str, limits: DicomLimits) -> None:
    if found.rows < 1 or found.columns < 1:
        raise ImageError(f"{name} has no pixels: it says {found.columns} x {found.rows}")
    if found.rows * found.columns > limits.max_pixels:
        raise ImageError(
            f"{name} has {found.columns} x {found.rows} = {found.rows * found.columns} pixels, "
            f"the limit is {limits.max_pixels}: crop or shrink it, or raise max_pixels"
        )
    if not 1 <= found.frames <= limits.max_frames:
        raise ImageError(
            f"{name} says it has {found.frames} frames, expected 1 to {limits.max_frames}"
        )


def _check_type(found: PixelFormat, name: str) -> None:
    def refuse(what: str, got: Any, expected: str) -> None:
        raise ImageError(f"{name} has {what} {got}, expected {expected}")

    if found.photometric not in (*_GREY, *_COLOUR):
        refuse("a photometric interpretation that is not read:", found.photometric or "none",
               ", ".join((*_GREY, *_COLOUR)))  # fmt: skip
    if found.samples != (3 if found.photometric in _COLOUR else 1):
        refuse(f"{found.photometric} with SamplesPerPixel", found.samples, "1 for grey, 3 for RGB")
    allowed = (8, 16) if found.samples == 3 or found.photometric.startswith("PAL") else (8, 16, 32)
    if found.bits_allocated not in allowed:
        refuse("BitsAllocated", found.bits_allocated, f"one of {allowed}")
    if not 1 <= found.bits_stored <= found.bits_allocated:
        refuse("BitsStored", found.bits_stored, f"1 to {found.bits_allocated}")
    if not found.bits_stored - 1 <= found.high_bit < found.bits_allocated:
        refuse("HighBit", found.high_bit, f"{found.bits_stored - 1}")
    if found.planar not in (0, 1):
        refuse("PlanarConfiguration", found.planar, "0 or 1")
    if found.photometric == "YBR_FULL_422" and (found.columns % 2 or found.bits_allocated != 8):
        refuse("YBR_FULL_422 of an odd width or more than 8 bits, width", found.columns, "even")
