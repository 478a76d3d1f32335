"""Caps and accepted types, checked before any pixel of a DICOM file is decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from samrt.errors import OptionError
from samrt.imaging.sniff import ImageLimits

__all__ = ["SYNTAXES", "DicomLimits", "Syntax"]


@dataclass(frozen=True, slots=True)
class DicomLimits:
    """Caps that keep a hostile or mistaken file from eating the machine.

    Attributes:
        max_file_bytes: largest file, and the most that a deflated file may grow to.
        max_pixels: largest rows times columns.
        max_header_bytes: most bytes before the pixel data.
        max_frames: largest number of frames.
        max_voxels: largest number of voxels of a volume.
        decode_seconds: longest time for decoding one compressed frame.
        decode_memory_bytes: address space of the decoding process, beyond what three copies of
            the frame take.

    Raises:
        OptionError: a cap is not positive.
    """

    max_file_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_header_bytes: int = 32 * 1024 * 1024
    max_frames: int = 100_000
    max_voxels: int = 500_000_000
    decode_seconds: float = 30.0
    decode_memory_bytes: int = 2 * 1024**3

    def __post_init__(self) -> None:
        """Refuse caps that nothing can meet."""
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise OptionError(f"{item.name} must be above 0, got {getattr(self, item.name)}")

    @classmethod
    def of(cls, limits: ImageLimits | DicomLimits | None) -> DicomLimits:
        """Take over the caps of picture files."""
        if isinstance(limits, DicomLimits):
            return limits
        if limits is None:
            return cls()
        return cls(max_file_bytes=limits.max_file_bytes, max_pixels=limits.max_pixels)


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax.

    Attributes:
        name: what people call it.
        plugins: pydicom's names of the decoders that may be used, best first; empty for pixels
            that are not compressed.
        implicit: whether data elements carry no VR.
        little_endian: byte order.
        deflated: whether the whole data set is.
    """

    name: str
    plugins: tuple[str, ...] = ()
    implicit: bool = False
    little_endian: bool = True
    deflated: bool = False

    @property
    def compressed(self) -> bool:
        """Whether pixel data are fragments that need a decoder."""
        return bool(self.plugins)


_OPENJPEG = ("pylibjpeg",)
SYNTAXES: dict[str, Syntax] = {
    "1.2.840.10008.1.2": Syntax("Implicit VR Little Endian", implicit=True),
    "1.2.840.10008.1.2.1": Syntax("Explicit VR Little Endian"),
    "1.2.840.10008.1.2.1.99": Syntax("Deflated Explicit VR Little Endian", deflated=True),
    "1.2.840.10008.1.2.2": Syntax("Explicit VR Big Endian", little_endian=False),
    "1.2.840.10008.1.2.4.50": Syntax("JPEG Baseline", ("pillow",)),
    "1.2.840.10008.1.2.4.51": Syntax("JPEG Extended", ("pillow",)),
    "1.2.840.10008.1.2.4.57": Syntax("JPEG Lossless", ("none",)),
    "1.2.840.10008.1.2.4.70": Syntax("JPEG Lossless, first-order prediction", ("none",)),
    "1.2.840.10008.1.2.4.80": Syntax("JPEG-LS Lossless", ("pyjpegls",)),
    "1.2.840.10008.1.2.4.81": Syntax("JPEG-LS Near-Lossless", ("pyjpegls",)),
    "1.2.840.10008.1.2.4.90": Syntax("JPEG 2000 Lossless", _OPENJPEG),
    "1.2.840.10008.1.2.4.91": Syntax("JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.4.201": Syntax("High-Throughput JPEG 2000 Lossless", _OPENJPEG),
    "1.2.840.10008.1.2.4.202": Syntax("High-Throughput JPEG 2000 Lossless RPCL", _OPENJPEG),
    "1.2.840.10008.1.2.4.203": Syntax("High-Throughput JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.5": Syntax("RLE Lossless", ("pylibjpeg", "pydicom")),
}
"""What is read: UID -> syntax. No decoder is tried after another one has failed."""
