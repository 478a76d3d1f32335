"""Single slices of volumes as pictures, and volumes from whatever path is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError
from samrt.imaging.array import Window, as_uint8
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.read import LoadedImage
from samrt.imaging.sniff import ImageLimits, is_dicom, read_bytes
from samrt.imaging.spacing import uneven_note
from samrt.imaging.volumes.nifti import is_nifti, read_nifti
from samrt.imaging.volumes.series import Progress, read_dicom_volume, read_series
from samrt.imaging.volumes.volume import Plane, Volume, plane_of

if TYPE_CHECKING:
    from samrt.imaging.dicom.read import DicomOrigin

__all__ = ["is_volume_path", "read_volume", "slice_image"]


def is_volume_path(source: str) -> bool:
    """Whether a path is a folder or a NIfTI file, which have no meaning as a single picture."""
    path = Path(source)
    try:
        if source == "-" or not path.exists():
            return False
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return is_nifti(stream.read(65536))
    except (OSError, ValueError):
        return False


def read_volume(
    source: str,
    *,
    window: Window | None = None,
    series: int | None = None,
    time: int | None = None,
    limits: ImageLimits | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Read a NIfTI file, a folder with a DICOM series, or a multi-frame DICOM file.

    Args:
        source: a path, or ``"-"`` for a file on standard input.
        window: see :func:`samrt.imaging.dicom.voi.choose_voi`.
        series: which series of a folder.
        time: which volume of a NIfTI file with several.
        limits: caps.
        progress: told about files and slices.

    Raises:
        ImageError: no volume, damaged, too large.
        OptionError: a choice that this kind of volume does not have.
        ExtraUnavailableError: an optional package is not installed.
    """
    caps = DicomLimits.of(limits)
    if source != "-" and Path(source).is_dir():
        _only(time, "time", "NIfTI files", source)
        return read_series(
            Path(source), window=window, series=series, limits=caps, progress=progress
        )
    _only(series, "series", "folders", source)
    data = read_bytes(source, limits or ImageLimits())
    name = "standard input" if source == "-" else source
    if is_nifti(data):
        return read_nifti(data, name, window=window, time=time, limits=caps)
    _only(time, "time", "NIfTI files", source)
    if is_dicom(data):
        return read_dicom_volume(data, name, window=window, limits=caps, progress=progress)
    raise ImageError(f"{name} is no volume: expected NIfTI, a DICOM folder or multi-frame DICOM")


def _only(value: int | None, option: str, where: str, source: str) -> None:
    if value is not None:
        raise OptionError(f"{option} is for {where}, {source} is none")


def slice_image(volume: Volume, plane: str, index: int | None) -> LoadedImage:
    """One slice as a picture, for everything that works on pictures.

    Args:
        volume: the volume.
        plane: ``native``, ``axial``, ``coronal`` or ``sagittal``.
        index: slice number from 0.

    Raises:
        OptionError: no index, or no such plane.
        ImageError: no such slice.
    """
    turned = plane_of(volume, plane)
    count = turned.shape[0]
    if index is None:
        raise OptionError(
            f"{volume.name} has {count} {turned.name} slices: choose one with --frame, or "
            "segment the volume with --box3d or --propagate"
        )
    if not 0 <= index < count:
        raise ImageError(f"{volume.name} has {count} slices, there is no slice {index}")
    values: NDArray[Any] = np.ascontiguousarray(turned.view(volume.values)[index])
    shown = as_uint8(values, window=volume.window, name=volume.name)
    spacing = (turned.spacing[1], turned.spacing[2])
    notes = [*volume.warnings, *plane_notes(volume, turned)]
    return LoadedImage(
        array=shown.array,
        source=values,
        size=(values.shape[0], values.shape[1]),
        sha256=volume.sha256,
        format=volume.format,
        mode=volume.mode,
        bit_depth=volume.bit_depth,
        window=shown.window,
        name=volume.name,
        warnings=tuple(notes),
        spacing_mm=spacing,
        details={**volume.details, "plane": turned.name, "slice": index},
        origin=_origin(volume, turned, index),
    )


def plane_notes(volume: Volume, plane: Plane, *, stretched: bool = False) -> list[str]:
    """Remarks about a plane of a volume, and whether pixels are made square for the model."""
    notes = []
    if plane.oblique_degrees > 5.0:
        notes.append(
            f"{volume.name} lies {plane.oblique_degrees:.0f} degrees off the {plane.name} plane: "
            "its nearest stored axes are used, nothing is resampled"
        )
    ratio = plane.spacing[1] / plane.spacing[2]
    uneven = uneven_note((plane.spacing[1], plane.spacing[2]), f"{volume.name} in this plane")
    if uneven and not (stretched and not 2 / 3 < ratio < 1.5):
        notes.append(uneven)
    return notes


def _origin(volume: Volume, plane: Plane, index: int) -> DicomOrigin | None:
    """The DICOM frame behind a slice, if slices are stored as they are shown."""
    stored = plane.axes == (0, 1, 2) and not plane.flips[1] and not plane.flips[2]
    if volume.sources is None or not stored:
        return None
    from samrt.imaging.dicom.read import DicomOrigin

    k = plane.shape[0] - 1 - index if plane.flips[0] else index
    sources = volume.sources
    if sources.frames is None:
        return DicomOrigin(sources.datasets[k], 0, sources.geometries[k])
    return DicomOrigin(sources.datasets[0], sources.frames[k], sources.geometries[k])
