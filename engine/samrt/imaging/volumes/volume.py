"""A volume, its place in the patient, and the planes a reader looks at.

Arrays are ``(Z, Y, X)``: slices, rows, columns as stored. The affine maps ``(column, row, slice)``
indices of voxel centres to mm in DICOM's LPS directions (left, posterior, superior).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError

if TYPE_CHECKING:
    from samrt.imaging.dicom.frames import FrameGeometry

__all__ = ["PLANES", "Plane", "SliceSources", "Volume", "plane_of"]

PLANES = ("native", "axial", "coronal", "sagittal")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Directions in which columns, rows and slices of a plane run: radiological convention, the
# patient's right on the left of the picture, front or head on top.
_TARGETS: dict[str, tuple[tuple[int, int], ...]] = {
    "axial": ((0, 1), (1, 1), (2, 1)),
    "coronal": ((0, 1), (2, -1), (1, 1)),
    "sagittal": ((1, 1), (2, -1), (0, 1)),
}


@dataclass(frozen=True, slots=True, eq=False)
class SliceSources:
    """The DICOM objects behind a volume, for objects derived from it: never print them.

    Attributes:
        datasets: one header per slice, or a single multi-frame header.
        frames: frame of each slice in a multi-frame header; ``None`` for single slices.
        geometries: where each slice lies.
    """

    datasets: Sequence[Any]
    frames: tuple[int, ...] | None
    geometries: Sequence[FrameGeometry]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Grey values on a regular grid.

    Attributes:
        values: ``(Z, Y, X)`` uint8, uint16, int16 or float32, bright is high.
        affine: ``(4, 4)`` float64, ``(column, row, slice)`` to mm LPS.
        window: ``(lo, hi)`` shown black and white; ``None`` if uint8 values are grey levels.
        name: how messages call it.
        sha256: digest of the file, or of the digests of a series' files in slice order.
        format: ``NIFTI`` or ``DICOM``.
        mode: photometric interpretation, or the NIfTI data type.
        bit_depth: bits per voxel in the file.
        details: JSON-ready facts and the mapping; nothing about the patient.
        warnings: what a careful user should know.
        even: whether slices are evenly spaced along a line, so that the affine says it all.
        sources: of a DICOM volume.
        header: of a NIfTI volume, kept for writing on the same grid.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    window: tuple[float, float] | None
    name: str
    sha256: str
    format: str
    mode: str
    bit_depth: int
    details: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    even: bool = True
    sources: SliceSources | None = None
    header: Any = field(default=None)

    @property
    def affine_ras(self) -> NDArray[np.float64]:
        """``(4, 4)``, to mm in NIfTI's RAS directions."""
        result: NDArray[np.float64] = _LPS_TO_RAS @ self.affine
        return result

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between slices, rows and columns."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml: the determinant of the affine, in mm^3, over 1000."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0


@dataclass(frozen=True, slots=True)
class Plane:
    """Axes of a volume turned so that slices look as a reader expects; nothing is resampled.

    Attributes:
        name: ``native``, ``axial``, ``coronal`` or ``sagittal``.
        axes: which stored axis (0 slices, 1 rows, 2 columns) becomes slice, row, column.
        flips: whether each of the three new axes runs backwards.
        shape: ``(slices, rows, columns)`` in this plane.
        spacing: mm between slices, rows, columns in this plane.
        oblique_degrees: largest angle between a stored axis and the plane's own.
    """

    name: str
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    oblique_degrees: float

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """The stored array in this plane: a view, no copy."""
        turned: NDArray[Any] = array.transpose(self.axes)
        turned = turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return turned


def plane_of(volume: Volume, name: str) -> Plane:
    """Find the stored axes nearest to those of a plane.

    Raises:
        OptionError: no such plane.
        ImageError: the affine has no inverse.
    """
    if name not in PLANES:
        raise OptionError(f"unknown plane {name!r}: expected one of {', '.join(PLANES)}")
    directions = volume.affine[:3, :3] / np.maximum(
        np.linalg.norm(volume.affine[:3, :3], axis=0), 1e-12
    )
    if abs(float(np.linalg.det(directions))) < 1e-3:
        raise ImageError(f"{volume.name} has axes that lie in one plane: its affine is damaged")
    if name == "native":
        axes, flips = (0, 1, 2), (False, False, False)
        angle = 0.0
    else:
        columns = _nearest(directions)
        order, signs, cosines = [], [], []
        for axis, wanted in (_TARGETS[name][2], _TARGETS[name][1], _TARGETS[name][0]):
            stored = columns.index(axis)
            order.append(2 - stored)  # column, row, slice -> index of the (Z, Y, X) axis
            signs.append(directions[axis, stored] * wanted < 0)
            cosines.append(abs(float(directions[axis, stored])))
        axes = (order[0], order[1], order[2])
        flips = (bool(signs[0]), bool(signs[1]), bool(signs[2]))
        angle = float(np.degrees(np.arccos(min(1.0, min(cosines)))))
    shape, spacing = volume.values.shape, volume.spacing
    return Plane(
        name,
        axes,
        flips,
        (shape[axes[0]], shape[axes[1]], shape[axes[2]]),
        (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]),
        angle,
    )


def _nearest(directions: NDArray[np.float64]) -> list[int]:
    """Patient axis (0 L, 1 P, 2 S) of each stored axis, each taken once, best fit first."""
    found = [-1, -1, -1]
    strength = np.abs(directions).copy()
    for _ in range(3):
        axis, stored = (int(v) for v in np.unravel_index(int(np.argmax(strength)), (3, 3)))
        found[stored] = axis
        strength[axis, :] = -1.0
        strength[:, stored] = -1.0
    return found
