"""DICOM series and multi-frame files as volumes: sorted by position, checked, decoded.

Slices are put in order along the normal of their plane (row x column), so slice 0 of a usual axial
series is the lowest. Instance numbers play no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError, SamrtError
from samrt.imaging.array import Window
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.decoder import FrameDecoder
from samrt.imaging.dicom.frames import FrameGeometry, frame_geometry, groups_of
from samrt.imaging.dicom.grey import display, is_inverted, rescale
from samrt.imaging.dicom.header import DicomFile, open_dicom
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.dicom.pixels import read_frame
from samrt.imaging.dicom.voi import choose_voi
from samrt.imaging.sniff import ImageLimits, is_dicom, read_bytes
from samrt.imaging.volumes.volume import SliceSources, Volume

__all__ = ["Progress", "read_dicom_volume", "read_series"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

_MOST_FILES = 50_000
_EVEN = 0.02  # of the spacing: what slices may lie beside their places
_STEP = 1e-3


@dataclass(slots=True)
class _Slice:
    """One slice before its pixels are read: the header, and where to find the rest."""

    dataset: Any
    frame: int
    geometry: FrameGeometry
    path: Path | None
    name: str


def read_series(
    folder: Path,
    *,
    window: Window | None = None,
    series: int | None = None,
    limits: DicomLimits | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Read the DICOM series in a folder and the folders below it.

    Args:
        folder: other files in it are passed over.
        window: see :func:`samrt.imaging.dicom.voi.choose_voi`; chosen once for all slices.
        series: which series, from 0 in the order of their numbers, if there are several.
        limits: caps.
        progress: told about each file and slice.

    Raises:
        ExtraUnavailableError: pydicom or a decoder is not installed.
        ImageError: no images, a damaged one, slices that do not make one volume.
        OptionError: several series and none chosen.
    """
    limits = limits or DicomLimits()
    groups = _scan(folder, limits, progress)
    chosen = _choose(groups, series, folder)
    slices = _ordered(chosen, str(folder))

    def load(item: _Slice) -> tuple[DicomFile, str]:
        return _load(item.path or folder, limits)

    return _assemble(slices, str(folder), load, window, limits, progress)


def read_dicom_volume(
    data: bytes,
    name: str,
    *,
    window: Window | None = None,
    limits: DicomLimits | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Read a multi-frame DICOM file as a volume; raises as :func:`read_series`."""
    limits = limits or DicomLimits()
    file = open_dicom(data, name, limits)
    with elements.quiet():
        slices = [_slice_of(file, frame, None) for frame in range(file.pixels.frames)]
    found = [item for item in slices if item is not None]
    if len(found) < 2 or len(found) != len(slices):
        raise ImageError(
            f"{name} is no volume: {len(found)} of its {len(slices)} frame(s) have a position in "
            "the patient"
        )
    digest = hashlib.sha256(data).hexdigest()
    ordered = _ordered(found, name)
    return _assemble(ordered, name, lambda _: (file, digest), window, limits, progress)


def _load(path: Path, limits: DicomLimits) -> tuple[DicomFile, str]:
    caps = ImageLimits(max_file_bytes=limits.max_file_bytes, max_pixels=limits.max_pixels)
    data = read_bytes(path, caps)
    return open_dicom(data, str(path), limits), hashlib.sha256(data).hexdigest()


def _slice_of(file: DicomFile, frame: int, path: Path | None) -> _Slice | None:
    geometry = frame_geometry(file, frame)
    if geometry is None or file.pixels.samples != 1 or file.pixels.photometric.startswith("PAL"):
        return None
    return _Slice(file.dataset, frame, geometry, path, file.name)


def _scan(folder: Path, limits: DicomLimits, progress: Progress | None) -> dict[str, list[_Slice]]:
    """Series instance UID -> its slices."""
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as exc:
        raise ImageError(f"cannot read the folder {folder}: {exc.strerror or exc}") from exc
    if len(paths) > _MOST_FILES:
        raise ImageError(f"{folder} holds {len(paths)} files, the limit is {_MOST_FILES}")
    groups: dict[str, list[_Slice]] = {}
    voxels = 0
    for number, path in enumerate(paths):
        if progress is not None:
            progress("reading headers", number, len(paths))
        if path.name.upper() == "DICOMDIR" or not _looks_like_dicom(path):
            continue
        try:
            file, _ = _load(path, limits)
            with elements.quiet():
                uid = elements.text(file.dataset, "SeriesInstanceUID") or ""
                frames = file.pixels.frames
                found = [_slice_of(file, frame, path) for frame in range(frames)]
        except SamrtError as exc:
            if "holds no image" in str(exc):
                continue
            raise
        kept = [item for item in found if item is not None]
        voxels += len(kept) * file.pixels.rows * file.pixels.columns
        if kept:
            groups.setdefault(uid, []).extend(kept)
    if not groups:
        raise ImageError(
            f"{folder} is a folder without DICOM images that have a position in the patient"
        )
    return groups


def _looks_like_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(256))
    except OSError:
        return False


def _choose(groups: dict[str, list[_Slice]], series: int | None, folder: Path) -> list[_Slice]:
    def key(items: list[_Slice]) -> tuple[float, str]:
        number = elements.number(items[0].dataset, "SeriesNumber")
        return (number if number is not None else 1e9, items[0].name)

    with elements.quiet():
        ordered = sorted(groups.values(), key=key)
    if series is None and len(ordered) > 1:
        listed = "; ".join(
            f"{k}: {len(items)} slices, {elements.text(items[0].dataset, 'Modality') or '?'}"
            for k, items in enumerate(ordered[:12])
        )
        raise OptionError(
            f"{folder} holds {len(ordered)} series ({listed}): choose one with its number"
        )
    if not 0 <= (series or 0) < len(ordered):
        raise OptionError(f"{folder} holds {len(ordered)} series, there is no series {series}")
    return ordered[series or 0]


def _ordered(slices: list[_Slice], name: str) -> list[_Slice]:
    """Sort by position; refuse what is no stack of parallel, equal, distinct slices."""
    first = slices[0]
    for item in slices:
        same = (
            np.allclose(item.geometry.row, first.geometry.row, atol=2e-3)
            and np.allclose(item.geometry.column, first.geometry.column, atol=2e-3)
            and np.allclose(item.geometry.spacing, first.geometry.spacing, rtol=1e-3)
            and elements.whole(item.dataset, "Rows") == elements.whole(first.dataset, "Rows")
            and elements.whole(item.dataset, "Columns") == elements.whole(first.dataset, "Columns")
        )
        if not same:
            raise ImageError(
                f"{name} is no volume: {Path(item.name).name} and {Path(first.name).name} differ "
                "in orientation, spacing or size"
            )
    normal = first.geometry.normal
    ordered = sorted(slices, key=lambda item: float(normal @ np.array(item.geometry.position)))
    heights = [float(normal @ np.array(item.geometry.position)) for item in ordered]
    for k, step in enumerate(np.diff(heights)):
        if step < _STEP:
            raise ImageError(
                f"{name} is no single volume: slices {k} and {k + 1} lie at the same place "
                "(several phases or echoes in one series?)"
            )
    return ordered


def _affine(slices: Sequence[_Slice]) -> tuple[NDArray[np.float64], bool, float]:
    """``(affine, evenly spaced, worst distance of a slice from its place in mm)``."""
    first = slices[0].geometry
    positions = np.array([item.geometry.position for item in slices])
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    else:
        step = first.normal * (first.thickness or 1.0)
    places = positions[0] + np.arange(len(slices))[:, None] * step
    worst = float(np.linalg.norm(positions - places, axis=1).max())
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.row) * first.spacing[1]
    affine[:3, 1] = np.array(first.column) * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return affine, worst <= _EVEN * float(np.linalg.norm(step)) + 1e-4, worst


def _assemble(
    slices: list[_Slice],
    name: str,
    load: Callable[[_Slice], tuple[DicomFile, str]],
    window: Window | None,
    limits: DicomLimits,
    progress: Progress | None,
) -> Volume:
    """Decode all slices, choose one window for them, describe the whole."""
    with elements.quiet():
        return _decode(slices, name, load, window, limits, progress)


def _decode(
    slices: list[_Slice],
    name: str,
    load: Callable[[_Slice], tuple[DicomFile, str]],
    window: Window | None,
    limits: DicomLimits,
    progress: Progress | None,
) -> Volume:
    rows = elements.whole(slices[0].dataset, "Rows") or 0
    columns = elements.whole(slices[0].dataset, "Columns") or 0
    if len(slices) * rows * columns > limits.max_voxels:
        raise ImageError(
            f"{name} has {columns} x {rows} x {len(slices)} voxels, the limit is "
            f"{limits.max_voxels}"
        )
    stack = _Stack((len(slices), rows, columns))
    middle = len(slices) // 2
    kept: tuple[DicomFile, int, dict[str, Any], str | None, bool] | None = None
    digests, used = [], "none"
    with FrameDecoder(limits) as decoder:
        for k, item in enumerate(slices):
            if progress is not None:
                progress("reading slices", k, len(slices))
            file, digest = load(item)
            stored, used = read_frame(file, item.frame, decoder)
            scaled = rescale(file, item.frame, stored)
            stack.put(k, scaled.values, scaled.padding)
            digests.append(digest)
            if k == middle:
                kept = (file, item.frame, scaled.record, scaled.units, scaled.identity)
    if kept is None:
        raise ImageError(f"{name} has no slices")
    file, frame, record, units, identity = kept
    voi = choose_voi(
        window,
        groups_of(file, frame, "FrameVOILUTSequence"),
        stack.sample(),
        modality=elements.text(file.dataset, "Modality") or "",
        hounsfield=units == "HU",
        eight_bit=identity and stack.values.dtype == np.uint8,
        signed=file.pixels.signed or stack.values.dtype.kind != "u",
    )
    inverted = is_inverted(file)
    values, limits_of_window = display(stack.values, voi, stack.padding, inverted=inverted)
    affine, even, worst = _affine(slices)
    notes = [] if voi.remark is None else [f"{name}: {voi.remark}"]
    if not even:
        notes.append(
            f"{name} has unevenly spaced slices, up to {worst:.2f} mm from their places: volumes "
            "in ml are estimates"
        )
    if len(slices) == 1:
        notes.append(f"{name} holds a single slice")
    shared = all(item.dataset is slices[0].dataset for item in slices)
    one_file = shared and len(slices) > 1
    return Volume(
        values=values,
        affine=affine,
        window=limits_of_window,
        name=name,
        sha256=digests[0]
        if one_file
        else hashlib.sha256("".join(digests).encode()).hexdigest(),
        format="DICOM",
        mode=file.pixels.photometric,
        bit_depth=file.pixels.bits_stored,
        details=_details(file, len(slices), used, {**record, "voi": voi.record(),
                                                   "inverted": inverted}),
        warnings=tuple(notes),
        even=even,
        sources=SliceSources(
            datasets=[slices[0].dataset] if one_file else [item.dataset for item in slices],
            frames=tuple(item.frame for item in slices) if one_file else None,
            geometries=[item.geometry for item in slices],
        ),
    )  # fmt: skip


def _details(file: DicomFile, slices: int, used: str, mapping: dict[str, Any]) -> dict[str, Any]:
    from pydicom.uid import UID

    kind = elements.text(file.dataset, "SOPClassUID")
    return {
        "sop_class": UID(kind).name if kind else None,
        "modality": elements.text(file.dataset, "Modality"),
        "transfer_syntax": file.syntax.name,
        "decoder": used,
        "slices": slices,
        "mapping": mapping,
    }


class _Stack:
    """Slices that grow into one array of a type that holds them all."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self.values: NDArray[Any] = np.zeros((0,), np.uint8)
        self.padding: NDArray[np.bool_] | None = None

    def put(self, k: int, plane: NDArray[Any], padding: NDArray[np.bool_] | None) -> None:
        """Store a slice; widen the array if need be."""
        if self.values.size == 0:
            self.values = np.zeros(self._shape, plane.dtype)
        if plane.dtype != self.values.dtype:
            wide = np.promote_types(plane.dtype, self.values.dtype)
            kind = wide if wide in (np.uint8, np.uint16, np.int16) else np.dtype(np.float32)
            self.values = self.values.astype(kind, copy=False)
        self.values[k] = plane
        if padding is not None:
            if self.padding is None:
                self.padding = np.zeros(self._shape, bool)
            self.padding[k] = padding

    def sample(self) -> NDArray[Any]:
        """At most about two million values, padding left out."""
        step = max(1, self.values.size // 2_000_000)
        found = self.values.reshape(-1)[::step]
        if self.padding is None:
            return found
        inside: NDArray[Any] = found[~self.padding.reshape(-1)[::step]]
        return inside
