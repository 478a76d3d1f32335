"""DICOM structure sets: masks as contours in the patient (PS3.3 A.19, C.8.8.5, C.8.8.6).

Contours run along pixel edges and are exact: a reader that fills them gets the mask back. A hole
is joined to its region by a channel of no width (the "keyhole" of PS3.3 C.8.8.6.3), because a
CLOSED_PLANAR contour has no inside rings.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt._version import __version__
from samrt.errors import OutputError, SamrtError
from samrt.imaging._extras import need
from samrt.imaging.derived.segments import MANUFACTURER, NOTICE, Segments, prepare, refused
from samrt.imaging.dicom.elements import quiet, text
from samrt.imaging.dicom.frames import FrameGeometry
from samrt.imaging.overlay import PALETTE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["keyhole", "write_rtstruct"]

_SERIES_NUMBER = 9200
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_EXPLICIT = "1.2.840.10008.1.2.1"
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "SpecificCharacterSet",
)  # fmt: skip


def keyhole(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Join the holes of a polygon to its outer ring.

    Args:
        rings: open rings ``(N, 2)`` of ``(x, y)``, the outer one first.

    Returns:
        One ring ``(M, 2)``. Each channel is run along twice, there and back, so it holds no area
        and the even-odd rule is right everywhere.
    """
    outer = np.asarray(rings[0], np.float64)
    for hole in rings[1:]:
        ring = np.asarray(hole, np.float64)
        distance = np.abs(outer[:, None, :] - ring[None, :, :]).sum(axis=2)
        at, start = np.unravel_index(int(np.argmin(distance)), distance.shape)
        turned = np.concatenate([ring[start:], ring[: start + 1]])
        outer = np.concatenate([outer[: at + 1], turned, outer[at:]])
    return outer


def write_rtstruct(segments: Segments, geometries: Sequence[FrameGeometry | None]) -> bytes:
    """Make a structure set with one ROI per segment.

    Args:
        segments: masks, their source and what they show.
        geometries: where each frame of the masks lies.

    Returns:
        The bytes of a DICOM file.

    Raises:
        ExtraUnavailableError: pydicom is not installed.
        OutputError: no mask at all, or the source has no position in the patient.
    """
    need("pydicom", "write DICOM structure sets")
    if not segments.masks.any():
        raise OutputError("all masks are empty: a structure set needs at least one contour")
    first = segments.sources[0]
    if any(geometry is None for geometry in geometries) or not text(first, "FrameOfReferenceUID"):
        raise OutputError(
            "a structure set needs images with a position in the patient and a frame of "
            "reference: this source has none"
        )
    known = [geometry for geometry in geometries if geometry is not None]
    try:
        with quiet():
            prepare(segments.sources)
            dataset = _build(segments, known)
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
    except SamrtError:
        raise
    except Exception as exc:
        raise refused("a structure set", exc, segments.sources) from exc
    return buffer.getvalue()


def _build(segments: Segments, geometries: Sequence[FrameGeometry]) -> Any:
    from pydicom.uid import generate_uid

    source = segments.sources[0]
    result = _new_dataset(source)
    images = _image_references(segments)
    result.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source, images)]
    result.StructureSetROISequence = []
    result.ROIContourSequence = []
    result.RTROIObservationsSequence = []
    for number, masks in enumerate(segments.masks, 1):
        label = segments.label(number - 1)
        result.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=source.FrameOfReferenceUID,
                ROIName=label[:64],
                ROIGenerationAlgorithm=(
                    "AUTOMATIC" if segments.algorithm.automatic else "SEMIAUTOMATIC"
                ),
                ROIGenerationDescription=f"samrt {segments.algorithm.version}"[:64],
            )
        )
        colour = PALETTE[(number - 1) % len(PALETTE)]
        contours = [
            contour
            for mask, geometry, image in zip(masks, geometries, images, strict=True)
            for contour in _contours(mask, geometry, image)
        ]
        roi = _item(ROIDisplayColor=list(colour), ReferencedROINumber=number)
        if contours:
            roi.ContourSequence = contours
        result.ROIContourSequence.append(roi)
        result.RTROIObservationsSequence.append(
            _item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType="",
                ROIInterpreter="",
                ROIObservationLabel=label[:16],
            )
        )
    result.SOPInstanceUID = generate_uid(prefix=None)
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    return result


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _new_dataset(source: Dataset) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASS)
    meta.TransferSyntaxUID = UID(_EXPLICIT)
    result: Any = FileDataset(BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in (*_PATIENT, *_STUDY):
        value = getattr(source, keyword, "" if keyword != "SpecificCharacterSet" else None)
        if value is not None:
            setattr(result, keyword, value)
    now = datetime.datetime.now()
    result.SOPClassUID = UID(_SOP_CLASS)
    result.SeriesInstanceUID = generate_uid(prefix=None)
    result.SeriesNumber, result.InstanceNumber = _SERIES_NUMBER, 1
    result.Modality, result.SeriesDescription = "RTSTRUCT", NOTICE
    result.OperatorsName = ""
    result.Manufacturer, result.ManufacturerModelName = MANUFACTURER, MANUFACTURER
    result.SoftwareVersions = __version__
    result.StructureSetLabel, result.StructureSetName = "samrt", NOTICE
    result.StructureSetDate = result.InstanceCreationDate = now.strftime("%Y%m%d")
    result.StructureSetTime = result.InstanceCreationTime = now.strftime("%H%M%S")
    result.ApprovalStatus = "UNAPPROVED"
    result.FrameOfReferenceUID = source.FrameOfReferenceUID
    result.PositionReferenceIndicator = ""
    return result


def _image_references(segments: Segments) -> list[Any]:
    """One reference per frame of the masks."""
    if segments.frames is None:
        return [
            _item(ReferencedSOPClassUID=s.SOPClassUID, ReferencedSOPInstanceUID=s.SOPInstanceUID)
            for s in segments.sources
        ]
    source = segments.sources[0]
    return [
        _item(
            ReferencedSOPClassUID=source.SOPClassUID,
            ReferencedSOPInstanceUID=source.SOPInstanceUID,
            ReferencedFrameNumber=frame + 1,
        )
        for frame in segments.frames
    ]


def _frame_of_reference(source: Dataset, images: Sequence[Any]) -> Any:
    unique = {image.ReferencedSOPInstanceUID: image for image in images}
    contour_images = [
        _item(
            ReferencedSOPClassUID=image.ReferencedSOPClassUID,
            ReferencedSOPInstanceUID=image.ReferencedSOPInstanceUID,
        )
        for image in unique.values()
    ]
    series = _item(SeriesInstanceUID=source.SeriesInstanceUID, ContourImageSequence=contour_images)
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=source.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(mask: NDArray[np.bool_], geometry: FrameGeometry, image: Any) -> list[Any]:
    """Contours of one frame: ``P = S + (x - 1/2) d_x r + (y - 1/2) d_y c`` (PS3.3 C.7.6.2.1.1).

    Edges of the pixel at index i lie at i and i + 1 in the polygon's coordinates, which is why
    half a pixel is taken off.
    """
    from samrt import _kernels

    found = []
    origin = np.array(geometry.position)
    along_x = np.array(geometry.row) * geometry.spacing[1]
    along_y = np.array(geometry.column) * geometry.spacing[0]
    for rings in _kernels.mask_polygons(np.ascontiguousarray(mask)):
        ring = keyhole(rings) - 0.5
        points = origin + ring[:, :1] * along_x + ring[:, 1:] * along_y
        found.append(
            _item(
                ContourImageSequence=[image],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[_decimal(value) for value in points.ravel()],
            )
        )
    return found


def _decimal(value: float) -> str:
    """A DICOM decimal string of at most 16 characters, to a ten-thousandth of a mm or better."""
    return f"{value:.6f}"[:16].rstrip("0").rstrip(".") or "0"
