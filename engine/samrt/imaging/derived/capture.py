"""The overlay as a DICOM secondary capture, which every viewer shows (PS3.3 A.8.1)."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.imaging._extras import need
from samrt.imaging.derived.segments import MANUFACTURER, NOTICE, prepare, refused
from samrt.imaging.dicom.elements import quiet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from samrt.imaging.dicom.frames import FrameGeometry

__all__ = ["write_capture"]

_SERIES_NUMBER = 9300


def _directions(geometry: FrameGeometry | None) -> tuple[str, str] | None:
    """Where a row and a column lead, as one letter each (PS3.3 C.7.6.1.1.1)."""
    if geometry is None:
        return None
    letters = []
    for vector in (geometry.row, geometry.column):
        axis = int(np.argmax(np.abs(vector)))
        letters.append("LPH"[axis] if vector[axis] > 0 else "RAF"[axis])
    return letters[0], letters[1]


def write_capture(
    picture: NDArray[np.uint8], source: Dataset, geometry: FrameGeometry | None
) -> bytes:
    """Make a secondary capture of a picture, in the study of its source.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        source: header of the image that it was drawn over.
        geometry: of that image, for the letters at the edges.

    Returns:
        The bytes of a DICOM file.

    Raises:
        ExtraUnavailableError: highdicom is not installed.
        OutputError: the source lacks what a capture needs.
    """
    need("highdicom", "write DICOM captures")
    import highdicom as hd

    try:
        with quiet():
            prepare([source])
            capture: Any = hd.sc.SCImage.from_ref_dataset(
                ref_dataset=source,
                pixel_array=np.ascontiguousarray(picture),
                photometric_interpretation="RGB",
                bits_allocated=8,
                coordinate_system="PATIENT",
                patient_orientation=_directions(geometry) or ("L", "P"),
                series_instance_uid=hd.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                series_description=NOTICE,
            )
            capture.BurnedInAnnotation = "YES"  # scores and prompts
            capture.Laterality = None  # type 2C: unknown
            if geometry is None:
                capture.PatientOrientation = None
            buffer = BytesIO()
            capture.save_as(buffer, enforce_file_format=True)
    except Exception as exc:
        raise refused("a secondary capture", exc, [source]) from exc
    return buffer.getvalue()
