"""Make the pictures of this folder again.

    python examples/make_examples.py            # needs numpy, pillow, pydicom, scikit-image
    python examples/make_examples.py --phantom  # the CT phantom alone: numpy, pillow, pydicom

Two pictures come from scikit-image's wheel, the CT phantom is drawn by ``ct_phantom.py``.
samrt itself needs none of this.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ct_phantom import SPACING_MM, Phantom, make_phantom, window_8bit
from PIL import Image

HERE = Path(__file__).resolve().parent
WINDOW_CENTRE, WINDOW_WIDTH = 40.0, 400.0
RESCALE_INTERCEPT = -1024


def copy_public_pictures(target: Path) -> None:
    """Copy ``cell.png`` and a 512 x 512 version of ``retina.jpg`` out of scikit-image."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    shutil.copyfile(data / "cell.png", target / "cell.png")
    with Image.open(data / "retina.jpg") as retina:
        small = retina.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
    small.save(target / "retina.jpg", quality=88, optimize=True)


def write_phantom_png(phantom: Phantom, path: Path) -> None:
    """Write the slice as 8-bit grey in the usual abdominal window."""
    grey = window_8bit(phantom.hu, WINDOW_CENTRE, WINDOW_WIDTH)
    Image.fromarray(grey).save(path, optimize=True)


def _uid(name: str) -> str:
    """UID under 2.25 (an integer in place of a registered root) that depends on ``name`` only."""
    digest = hashlib.sha256(f"samrt/examples/{name}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def write_phantom_dicom(phantom: Phantom, path: Path) -> None:
    """Write the slice as one CT Image Storage instance, explicit VR little endian."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid("instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    meta.ImplementationVersionName = "SAMRT_EXAMPLES"
    dataset: Any = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    for block in (_identity(), _geometry(phantom), _pixels(phantom)):
        for keyword, value in block.items():
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def _identity() -> dict[str, Any]:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": _uid("instance"),
        "StudyInstanceUID": _uid("study"),
        "SeriesInstanceUID": _uid("series"),
        "FrameOfReferenceUID": _uid("frame"),
        "StudyDate": "20000101",
        "StudyTime": "120000",
        "ContentDate": "20000101",
        "ContentTime": "120000",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "samrt",
        "ManufacturerModelName": "drawn phantom",
        "ReferringPhysicianName": "",
        "StudyDescription": "Abdomen phantom",
        "SeriesDescription": "Drawn, not measured",
        "PatientName": "Phantom^samrt",
        "PatientID": "SAMRT-PHANTOM",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "BodyPartExamined": "ABDOMEN",
        "StudyID": "1",
        "SeriesNumber": 1,
        "AcquisitionNumber": 1,
        "InstanceNumber": 1,
        "KVP": "120",
    }


def _geometry(phantom: Phantom) -> dict[str, Any]:
    rows, columns = phantom.hu.shape
    return {
        "PatientPosition": "HFS",
        "PositionReferenceIndicator": "",
        "SliceThickness": "3",
        "PixelSpacing": [SPACING_MM, SPACING_MM],
        "ImagePositionPatient": [
            round(-SPACING_MM * (columns - 1) / 2, 3),
            round(-SPACING_MM * (rows - 1) / 2, 3),
            0.0,
        ],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceLocation": "0",
    }


def _pixels(phantom: Phantom) -> dict[str, Any]:
    rows, columns = phantom.hu.shape
    stored = (phantom.hu.astype(np.int32) - RESCALE_INTERCEPT).astype("<u2")
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": str(RESCALE_INTERCEPT),
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": str(WINDOW_CENTRE),
        "WindowWidth": str(WINDOW_WIDTH),
        "PixelData": stored.tobytes(),
    }


def main() -> None:
    """Write all pictures and print the tight box of every organ of the phantom."""
    parser = argparse.ArgumentParser(description="make the example pictures again")
    parser.add_argument("--phantom", action="store_true", help="only the CT phantom")
    parser.add_argument("-o", "--output-dir", type=Path, default=HERE, metavar="DIR")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    phantom = make_phantom()
    write_phantom_png(phantom, args.output_dir / "ct_phantom.png")
    write_phantom_dicom(phantom, args.output_dir / "ct_phantom.dcm")
    if not args.phantom:
        copy_public_pictures(args.output_dir)
    for organ in phantom.organs:
        print(f"{organ:14s} --box " + ",".join(str(v) for v in phantom.box(organ)))


if __name__ == "__main__":
    main()
