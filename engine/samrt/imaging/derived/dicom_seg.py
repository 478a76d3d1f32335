"""DICOM Segmentation objects, BINARY or LABELMAP (PS3.3 A.51, C.8.20), by highdicom."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt._version import __version__
from samrt.errors import OutputError, SamrtError
from samrt.imaging._extras import need
from samrt.imaging.derived.segments import MANUFACTURER, NOTICE, Segments, prepare, refused
from samrt.imaging.dicom.elements import quiet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["write_seg"]

_SERIES_NUMBER = 9100
_RLE = "1.2.840.10008.1.2.5"
_STAND_IN = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture
_EXPLICIT = "1.2.840.10008.1.2.1"


def write_seg(segments: Segments, *, labelmap: bool = False) -> bytes:
    """Make a segmentation object; frames refer to the source frames that they lie on.

    All frames of the source are written, empty ones too, because viewers lose their way
    otherwise; of a multi-frame source those that were segmented.

    Args:
        segments: masks, their source and what they show.
        labelmap: one image of segment numbers (few viewers know it yet) in place of one bit per
            segment and pixel; where masks overlap the later segment wins.

    Returns:
        The bytes of a DICOM file.

    Raises:
        ExtraUnavailableError: highdicom is not installed.
        OutputError: no mask at all, or the source lacks what a segmentation needs.
    """
    need("highdicom", "write DICOM segmentations")
    if not segments.masks.any():
        raise OutputError("all masks are empty: a DICOM segmentation needs at least one pixel")
    try:
        with quiet():
            prepare(segments.sources)
            alone = _frame_alone(segments)
            made = _build(alone or segments, labelmap)
            _complete(made, segments, numbered=alone is not None)
            return _bytes(made)
    except SamrtError:
        raise
    except Exception as exc:
        raise refused("a DICOM segmentation", exc, segments.sources) from exc


def _frame_alone(segments: Segments) -> Segments | None:
    """A frame of a loop without a frame of reference, as if it were an image of its own.

    highdicom takes such sources as single images only; :func:`_complete` puts the class and the
    frame's number into the references.
    """
    source = segments.sources[0]
    if segments.frames is None or len(segments.frames) != 1 or "FrameOfReferenceUID" in source:
        return None
    single = deepcopy(source)
    single.SOPClassUID = _STAND_IN
    del single.NumberOfFrames
    return replace(segments, sources=[single], frames=None)


def _complete(made: Any, segments: Segments, *, numbered: bool) -> None:
    """Add what highdicom leaves out for images without a place in the patient."""
    source = segments.sources[0]
    shared = made.SharedFunctionalGroupsSequence[0]
    if "PlaneOrientationSequence" not in shared and "PatientOrientation" not in made:
        made.PatientOrientation = getattr(source, "PatientOrientation", None)  # type 2C
    if not numbered or segments.frames is None:
        return

    def set_class(_: Any, element: Any) -> None:
        if element.keyword == "ReferencedSOPClassUID" and element.value == _STAND_IN:
            element.value = source.SOPClassUID

    made.walk(set_class)
    for groups in made.PerFrameFunctionalGroupsSequence:
        for derivation in getattr(groups, "DerivationImageSequence", ()):
            for image in derivation.SourceImageSequence:
                image.ReferencedFrameNumber = segments.frames[0] + 1


def _bytes(dataset: Any) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _build(segments: Segments, labelmap: bool) -> Dataset:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = segments.algorithm
    identification = hd.AlgorithmIdentificationSequence(
        name=f"samrt {algorithm.model}",
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
    )
    descriptions = []
    for number in range(len(segments.masks)):
        term = segments.term(number)
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number + 1,
                segment_label=segments.label(number)[:64],
                segmented_property_category=_concept(term.category),
                segmented_property_type=_concept(term.kind),
                algorithm_type="AUTOMATIC" if algorithm.automatic else "SEMIAUTOMATIC",
                algorithm_identification=identification,
                tracking_uid=hd.UID(),
                tracking_id=segments.label(number)[:64],
            )
        )
    result: Dataset = hd.seg.Segmentation(
        source_images=list(segments.sources),
        pixel_array=_pixels(segments, labelmap),
        segmentation_type="LABELMAP" if labelmap else "BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.model,
        software_versions=__version__,
        device_serial_number="0",
        content_description="Segmentation by samrt",
        content_label="SEGMENTATION",
        series_description=NOTICE,
        transfer_syntax_uid=_RLE if labelmap else _EXPLICIT,
        omit_empty_frames=segments.frames is not None,
    )
    return result


def _concept(code: Any) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def _pixels(segments: Segments, labelmap: bool) -> NDArray[Any]:
    """``(F, H, W, S)`` uint8 of 0 and 1, or ``(F, H, W)`` of segment numbers, on all frames."""
    masks = segments.masks
    if segments.frames is not None:
        count = int(getattr(segments.sources[0], "NumberOfFrames", 1) or 1)
        whole = np.zeros((len(masks), count, *masks.shape[2:]), bool)
        whole[:, list(segments.frames)] = masks
        masks = whole
    if not labelmap:
        return np.moveaxis(masks, 0, -1).astype(np.uint8)
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return labels
