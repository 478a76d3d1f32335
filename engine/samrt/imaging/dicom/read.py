"""One frame of a DICOM file as a picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, SamrtError
from samrt.imaging.array import Window, as_uint8
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.decoder import FrameDecoder
from samrt.imaging.dicom.frames import FrameGeometry, frame_geometry, pixel_spacing
from samrt.imaging.dicom.grey import map_grey
from samrt.imaging.dicom.header import DicomFile, open_dicom
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.dicom.pixels import read_frame
from samrt.imaging.read import LoadedImage
from samrt.imaging.spacing import uneven_note

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["DicomOrigin", "read_dicom", "uids_of"]


@dataclass(frozen=True, slots=True, eq=False)
class DicomOrigin:
    """Where a picture comes from, for writers of derived objects.

    Attributes:
        dataset: the header, patient and all: never print it.
        frame: frame number from 0.
        geometry: where it lies, if the file says so.
    """

    dataset: Dataset
    frame: int
    geometry: FrameGeometry | None


def read_dicom(
    data: bytes,
    name: str,
    *,
    window: Window | None = None,
    frame: int | None = None,
    limits: DicomLimits | None = None,
    decoder: FrameDecoder | None = None,
) -> LoadedImage:
    """Read one frame of a DICOM file.

    Args:
        data: the file's bytes.
        name: how messages call it.
        window: see :func:`samrt.imaging.dicom.voi.choose_voi`; colour takes none but numbers.
        frame: number from 0; ``None`` is the first, with a warning if there are more.
        limits: caps.
        decoder: for compressed frames, to be used again; ``None`` starts one and ends it.

    Returns:
        A :class:`LoadedImage` with ``details`` (the mapping) and ``origin`` filled in.

    Raises:
        ExtraUnavailableError: pydicom or a decoder is not installed.
        ImageError: damaged, truncated, too large or unsupported.
        OptionError: no such window.
    """
    limits = limits or DicomLimits()
    file = open_dicom(data, name, limits)
    notes: list[str] = []
    if frame is None and file.pixels.frames > 1:
        notes.append(f"{name} holds {file.pixels.frames} frames: the first one is used")
    index = frame or 0
    if decoder is not None:
        stored, used = read_frame(file, index, decoder)
    else:
        with FrameDecoder(limits) as own:
            stored, used = read_frame(file, index, own)
    try:
        with elements.quiet():
            image = _picture(file, index, stored, used, window, notes)
    except SamrtError as exc:
        raise exc if name in str(exc) else type(exc)(f"{name}: {exc}") from exc
    except Exception as exc:  # odd types in damaged headers
        raise ImageError(f"{name} is a damaged DICOM file ({type(exc).__name__})") from exc
    return _finish(image, hashlib.sha256(data).hexdigest())


def _finish(image: LoadedImage, sha256: str) -> LoadedImage:
    from dataclasses import replace

    return replace(image, sha256=sha256)


def _picture(
    file: DicomFile,
    index: int,
    stored: NDArray[Any],
    used: str,
    window: Window | None,
    notes: list[str],
) -> LoadedImage:
    pixels = file.pixels
    record: dict[str, Any] = {}
    if stored.ndim == 3 or pixels.photometric == "PALETTE COLOR":
        rgb = _colour(file, stored)
        numeric = None if window in (None, "auto") else window
        shown = as_uint8(rgb, window=numeric, name=file.name)
        array, source, limits = shown.array, shown.array, shown.window
        notes += shown.warnings
    else:
        grey = map_grey(file, index, stored, window)
        shown = as_uint8(grey.values, window=grey.window, name=file.name)
        array, source, limits, record = shown.array, grey.values, grey.window, grey.record
        notes += [f"{file.name}: {text}" for text in grey.warnings]
    spacing = pixel_spacing(file, index)
    uneven = None if spacing is None else uneven_note(spacing, file.name)
    notes += [uneven] if uneven else []
    return LoadedImage(
        array=array,
        source=source,
        size=(array.shape[0], array.shape[1]),
        sha256="",
        format="DICOM",
        mode=pixels.photometric,
        bit_depth=pixels.bits_stored,
        window=limits,
        name=file.name,
        warnings=tuple(notes),
        spacing_mm=spacing,
        details={**_facts(file, index, used), "mapping": record or None},
        origin=DicomOrigin(file.dataset, index, frame_geometry(file, index)),
    )


def _facts(file: DicomFile, index: int, used: str) -> dict[str, Any]:
    """What the result says about the file: its kind, nothing about the patient."""
    from pydicom.uid import UID

    kind = elements.text(file.dataset, "SOPClassUID")
    return {
        "sop_class": UID(kind).name if kind else None,
        "modality": elements.text(file.dataset, "Modality"),
        "transfer_syntax": file.syntax.name,
        "decoder": used,
        "frame": index,
        "frames": file.pixels.frames,
        "signed": file.pixels.signed,
    }


def _colour(file: DicomFile, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` uint8; deeper colour keeps its upper 8 bits."""
    bits = file.pixels.bits_stored
    if file.pixels.photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, file.dataset)
        bits = 8 * stored.dtype.itemsize
        stored = stored[:, :, :3]
    if file.pixels.signed:
        raise ImageError(f"{file.name} has signed colour values, expected unsigned ones")
    if bits > 8:
        stored = stored >> (bits - 8)
    elif bits < 8:
        stored = (stored.astype(np.uint16) * 255 + (2**bits - 1) // 2) // (2**bits - 1)
    return np.ascontiguousarray(stored.astype(np.uint8))


def uids_of(origin: DicomOrigin) -> dict[str, str | None]:
    """Study, series and instance UID, which point to the patient: for those who ask for them."""
    names = {
        "study": "StudyInstanceUID",
        "series": "SeriesInstanceUID",
        "instance": "SOPInstanceUID",
    }
    with elements.quiet():
        return {key: elements.text(origin.dataset, keyword) for key, keyword in names.items()}
