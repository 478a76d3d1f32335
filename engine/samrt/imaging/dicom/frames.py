"""What the header says about one frame: functional groups first, then the data set itself.

Enhanced multi-frame objects keep these values per frame or shared between frames (PS3.3
C.7.6.16); classic objects keep them at the top level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.header import DicomFile

__all__ = ["FrameGeometry", "frame_geometry", "groups_of"]

_UNIT = 1e-3


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Where a frame lies in the patient (PS3.3 C.7.6.2), in mm, LPS directions.

    Attributes:
        position: centre of the first pixel, ``(x, y, z)``.
        row: direction of increasing column index (along a row), unit vector.
        column: direction of increasing row index (down a column), unit vector.
        spacing: ``(between rows, between columns)``.
        thickness: slice thickness, if it is known.
    """

    position: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing: tuple[float, float]
    thickness: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector ``row x column``."""
        return np.cross(self.row, self.column)


def groups_of(file: DicomFile, index: int, macro: str) -> list[Any]:
    """Data sets that may hold values of a frame, in the order in which they count.

    Args:
        file: the file.
        index: frame number from 0.
        macro: keyword of the functional group's sequence.
    """
    found: list[Any] = []
    per_frame = elements.sequence(file.dataset, "PerFrameFunctionalGroupsSequence")
    if per_frame:
        if index >= len(per_frame):
            raise ImageError(
                f"{file.name} is damaged: it has functional groups of {len(per_frame)} frames "
                f"only, frame {index} was asked for"
            )
        found += elements.sequence(per_frame[index], macro)[:1]
    shared = elements.sequence(file.dataset, "SharedFunctionalGroupsSequence")
    if shared:
        found += elements.sequence(shared[0], macro)[:1]
    return [*found, file.dataset]


def first_numbers(
    groups: Sequence[Any], keyword: str, count: int | None = None
) -> tuple[float, ...] | None:
    """Numbers of the first data set that has the element."""
    for group in groups:
        found = elements.numbers(group, keyword, count)
        if found is not None:
            return found
    return None


def pixel_spacing(file: DicomFile, index: int) -> tuple[float, float] | None:
    """``(between rows, between columns)`` in mm, ``None`` if unknown.

    PixelSpacing, else NominalScannedPixelSpacing or ImagerPixelSpacing, else the physical deltas
    of an ultrasound image with a single region in cm (PS3.3 C.8.5.5).
    """
    groups = groups_of(file, index, "PixelMeasuresSequence")
    for keyword in ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing"):
        found = first_numbers(groups, keyword, 2)
        if found is not None:
            if min(found) <= 0:
                raise ImageError(f"{file.name} is damaged: {keyword} is not positive")
            return found[0], found[1]
    regions = elements.sequence(file.dataset, "SequenceOfUltrasoundRegions")
    if len(regions) == 1:
        x = elements.number(regions[0], "PhysicalDeltaX")
        y = elements.number(regions[0], "PhysicalDeltaY")
        cm = all(elements.whole(regions[0], f"PhysicalUnits{axis}Direction") == 3 for axis in "XY")
        if cm and x and y:
            return abs(y) * 10.0, abs(x) * 10.0
    return None


def frame_geometry(file: DicomFile, index: int) -> FrameGeometry | None:
    """Position and orientation of a frame, ``None`` if the file does not give them.

    Raises:
        ImageError: the values are damaged or no right angle.
    """
    groups = groups_of(file, index, "PlanePositionSequence")
    position = first_numbers(groups, "ImagePositionPatient", 3)
    directions = first_numbers(
        groups_of(file, index, "PlaneOrientationSequence"), "ImageOrientationPatient", 6
    )
    spacing = pixel_spacing(file, index)
    if position is None or directions is None or spacing is None:
        return None
    row, column = np.array(directions[:3]), np.array(directions[3:])
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    if any(abs(length - 1.0) > 0.01 for length in lengths) or abs(float(row @ column)) > 0.01:
        raise ImageError(
            f"{file.name} is damaged: ImageOrientationPatient is no pair of unit vectors at a "
            "right angle"
        )
    thickness = first_numbers(groups_of(file, index, "PixelMeasuresSequence"), "SliceThickness", 1)
    usable = thickness is not None and thickness[0] > 0 and math.isfinite(thickness[0])
    return FrameGeometry(
        position=(position[0], position[1], position[2]),
        row=_triple(row / lengths[0]),
        column=_triple(column / lengths[1]),
        spacing=spacing,
        thickness=thickness[0] if thickness is not None and usable else None,
    )


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
