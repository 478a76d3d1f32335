"""Stored values to grey levels: modality, VOI, inversion, in this order (PS3.3 C.11, PS3.4 N.2).

1. Modality: the Modality LUT, or ``slope * stored + intercept``.
2. VOI: a window, a sigmoid or a VOI LUT, see :mod:`samrt.imaging.dicom.voi`.
3. MONOCHROME1 (or the presentation shape INVERSE): black and white change places.

Pixel padding takes no part in any rule and becomes black. What is linear in all this is not
applied here but handed on as values and window, so the kernel does it in one step to the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.imaging.array import Window
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.frames import first_numbers, groups_of
from samrt.imaging.dicom.header import DicomFile
from samrt.imaging.dicom.lut import read_table
from samrt.imaging.dicom.voi import Voi, choose_voi

__all__ = ["GreyFrame", "Rescaled", "display", "is_inverted", "map_grey", "rescale"]


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled:
    """A frame in its modality's units.

    Attributes:
        values: ``(H, W)`` uint8, uint16, int16 or float32.
        padding: ``(H, W)`` bool, pixels that lie outside the picture; ``None`` if there are none.
        record: the step as JSON.
        units: ``HU`` or another RescaleType; ``None`` if the file names none.
        identity: whether stored values were taken as they are.
    """

    values: NDArray[Any]
    padding: NDArray[np.bool_] | None
    record: dict[str, Any]
    units: str | None
    identity: bool


@dataclass(frozen=True, slots=True, eq=False)
class GreyFrame:
    """A frame ready for display or for the kernel.

    Attributes:
        values: ``(H, W)`` of which ``window`` maps linearly to 0..255; bright is high.
        window: ``(lo, hi)``; ``None`` if uint8 values are grey levels already.
        record: the whole mapping as JSON.
        warnings: what a careful user should know.
    """

    values: NDArray[Any]
    window: tuple[float, float] | None
    record: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


def rescale(file: DicomFile, index: int, stored: NDArray[Any]) -> Rescaled:
    """Apply the modality step to the stored values of a frame.

    Raises:
        ImageError: damaged elements.
    """
    padding, padding_record = _padding(file, stored)
    tables = elements.sequence(file.dataset, "ModalityLUTSequence")
    record: dict[str, Any]
    stated = False
    if tables:
        values: NDArray[Any] = read_table(tables[0], file.pixels.signed).apply(stored)
        units = elements.text(tables[0], "ModalityLUTType")
        record = {"kind": "lut", "slope": None, "intercept": None, "type": units}
        identity = False
    else:
        groups = groups_of(file, index, "PixelValueTransformationSequence")
        given = first_numbers(groups, "RescaleSlope", 1)
        stated, slope = given is not None, (given or (1.0,))[0]
        intercept = (first_numbers(groups, "RescaleIntercept", 1) or (0.0,))[0]
        units = next((u for g in groups if (u := elements.text(g, "RescaleType"))), None)
        values = _linear(stored, slope, intercept)
        identity = slope == 1.0 and intercept == 0.0
        kind = "identity" if identity else "rescale"
        record = {"kind": kind, "slope": slope, "intercept": intercept, "type": units}
    modality = elements.text(file.dataset, "Modality")
    if units is None and modality == "CT" and stated and not tables:
        units = "HU"  # PS3.3 C.8.2.1.1.6: what CT means unless it says otherwise
    steps = {"modality": record, "padding": padding_record}
    return Rescaled(values, padding, steps, units, identity)


def _linear(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """``slope * stored + intercept`` in the smallest of uint8, uint16, int16, float32 that fits."""
    whole = slope == 1.0 and intercept == int(intercept) and abs(intercept) < 2**31
    if not whole or stored.dtype.itemsize > 2:
        scaled = stored.astype(np.float64) * slope + intercept
        return scaled.astype(np.float32)
    shifted = stored.astype(np.int64) + int(intercept) if intercept else stored
    if stored.dtype == np.uint8 and not intercept:
        return stored
    low, high = int(shifted.min()), int(shifted.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return shifted.astype(kind)
    return shifted.astype(np.float32)


def _padding(
    file: DicomFile, stored: NDArray[Any]
) -> tuple[NDArray[np.bool_] | None, dict[str, Any] | None]:
    """Pixels equal to PixelPaddingValue, or up to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    value = elements.whole(file.dataset, "PixelPaddingValue")
    if value is None:
        return None, None
    limit = elements.whole(file.dataset, "PixelPaddingRangeLimit")
    span = 2**file.pixels.bits_allocated
    ends = []
    for end in (value, value if limit is None else limit):
        # Its VR follows PixelRepresentation, yet writers differ: bring it to the stored range.
        folded = end % span
        ends.append(folded - span if file.pixels.signed and folded >= span // 2 else folded)
    low, high = min(ends), max(ends)
    mask = (stored >= low) & (stored <= high)
    count = int(np.count_nonzero(mask))
    return (mask if count else None), {"low": low, "high": high, "pixels": count}


def map_grey(file: DicomFile, index: int, stored: NDArray[Any], window: Window | None) -> GreyFrame:
    """Choose and describe the whole mapping of a frame.

    Raises:
        ImageError: damaged elements or an unusable window.
        OptionError: a window that does not exist.
    """
    scaled = rescale(file, index, stored)
    groups = groups_of(file, index, "FrameVOILUTSequence")
    inside = scaled.values if scaled.padding is None else scaled.values[~scaled.padding]
    voi = choose_voi(
        window,
        groups,
        inside,
        modality=elements.text(file.dataset, "Modality") or "",
        hounsfield=scaled.units == "HU",
        eight_bit=scaled.identity and scaled.values.dtype == np.uint8,
        signed=file.pixels.signed or scaled.values.dtype.kind != "u",
    )
    inverted = is_inverted(file)
    values, limits = display(scaled.values, voi, scaled.padding, inverted=inverted)
    record = {**scaled.record, "voi": voi.record(), "inverted": inverted}
    return GreyFrame(values, limits, record, () if voi.remark is None else (voi.remark,))


def is_inverted(file: DicomFile) -> bool:
    """Whether low values are white: MONOCHROME1 or PresentationLUTShape INVERSE."""
    shape = elements.text(file.dataset, "PresentationLUTShape")
    return file.pixels.photometric == "MONOCHROME1" or shape == "INVERSE"


def display(
    values: NDArray[Any],
    voi: Voi,
    padding: NDArray[np.bool_] | None,
    *,
    inverted: bool,
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Do what is not linear; leave the rest to a window.

    Returns:
        New or unchanged values and the window that maps them to 0..255, ``None`` for identity.
    """
    window: tuple[float, float] | None = voi.limits
    if voi.kind == "sigmoid" and voi.centre is not None and voi.width is not None:
        # PS3.3 C.11.2.1.3.1; the exponent is bounded so that exp stays finite.
        share = (values.astype(np.float64) - voi.centre) / voi.width
        values = (255.0 / (1.0 + np.exp(np.clip(-4.0 * share, -80.0, 80.0)))).astype(np.float32)
        window = (0.0, 255.0)
    elif voi.kind == "lut" and voi.table is not None:
        values, window = voi.table.apply(values), (0.0, float(2**voi.table.bits - 1))
    if not inverted and padding is None:
        return values, window
    low, high = window or (0.0, 255.0)
    if inverted:  # low and high change places, so the window stays as it is
        flipped = (low + high) - values.astype(np.float64)
        if window is None:
            values = flipped.astype(np.uint8)
        elif values.dtype.kind in "iu" and low + high == int(low + high):
            values = _smallest(flipped)
        else:
            values = flipped.astype(np.float32)
    if padding is not None:
        values = _with_black(values, padding, low)
    return values, window


def _smallest(whole: NDArray[np.float64]) -> NDArray[Any]:
    """Whole numbers as int16 or uint16 if they fit, else as float32."""
    low, high = float(whole.min()), float(whole.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return whole.astype(kind)
    return whole.astype(np.float32)


def _with_black(values: NDArray[Any], padding: NDArray[np.bool_], low: float) -> NDArray[Any]:
    """Set padding to a value that the window maps to black."""
    if values.dtype.kind in "iu":
        info = np.iinfo(values.dtype)
        if not info.min <= np.floor(low) <= info.max:
            values = values.astype(np.float32)
    filled: NDArray[Any] = values.copy()
    filled[padding] = np.floor(low) if values.dtype.kind in "iu" else low
    return filled
