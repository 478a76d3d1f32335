"""Scanners' files made by pydicom and nibabel alone, for tests: every kind that samrt reads."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
SECRET = "Doe^Secret^Name"


def dataset(
    pixels: NDArray[Any],
    *,
    photometric: str = "MONOCHROME2",
    bits_stored: int | None = None,
    sop_class: str = CT,
    **elements: Any,
) -> Dataset:
    """A data set of ``(H, W)``, ``(H, W, 3)``, ``(F, H, W)`` or ``(F, H, W, 3)`` stored pixels."""
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    ds: Any = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = SECRET, "SECRET-ID-77", "19330405"
    ds.PatientSex, ds.StudyID, ds.AccessionNumber = "F", "1", "ACC-SECRET"
    ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = "20000101", "120000", "Ref^Secret"
    ds.Modality = {CT: "CT", ENHANCED_CT: "CT", MR: "MR"}.get(sop_class, "OT")
    ds.Manufacturer, ds.ManufacturerModelName = "test", "test"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.PositionReferenceIndicator = ""
    ds.Rows, ds.Columns = shape[-2], shape[-1]
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits_stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    for keyword, value in elements.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return ds


def item(**values: Any) -> Dataset:
    """An item of a sequence."""
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def packed(ds: Dataset, syntax: str = EXPLICIT) -> bytes:
    """The bytes of a file in a transfer syntax; compressed ones take native pixels."""
    buffer = BytesIO()
    if syntax in (JPEG_LS, JPEG_2000, RLE):
        ds.compress(UID(syntax), generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == BIG_ENDIAN:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    options = {
        IMPLICIT: {"implicit_vr": True, "little_endian": True},
        BIG_ENDIAN: {"implicit_vr": False, "little_endian": False},
    }.get(syntax, {"implicit_vr": False, "little_endian": True})
    dcmwrite(buffer, ds, enforce_file_format=True, **options)
    return buffer.getvalue()


def jpeg(ds: Dataset, pictures: list[NDArray[np.uint8]], mode: str = "L") -> bytes:
    """A JPEG Baseline file of the given pictures, as Pillow compresses them."""
    from PIL import Image

    frames = []
    for picture in pictures:
        buffer = BytesIO()
        Image.fromarray(picture).convert(mode).save(buffer, "JPEG", quality=95, subsampling=0)
        frames.append(buffer.getvalue())
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return packed(ds, JPEG)


def deflate_bomb(size: int) -> bytes:
    """A small deflated file that grows to more than ``size`` bytes."""
    ds = dataset(np.zeros((4, 4), np.uint16))
    head = packed(ds, DEFLATED)
    meta_end = 132 + 12 + int.from_bytes(head[140:144], "little")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(stream.compress(b"\0" * (1 << 20)) for _ in range(size >> 20))
    return head[:meta_end] + body + stream.flush()


def rotation(name: str) -> NDArray[np.float64]:
    """Directions of row, column and slice axis as the columns of a matrix, right-handed."""
    if name == "axial":
        return np.eye(3)
    if name == "coronal":
        return np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    if name == "sagittal":
        return np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
    if name == "flipped":  # feet first, prone: x and z turned round
        return np.diag([-1.0, 1.0, -1.0])
    a, b = np.deg2rad(20.0), np.deg2rad(-35.0)
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return turn_x @ turn_z


def affine_of(
    axes: NDArray[np.float64],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> NDArray[np.float64]:
    """``(column, row, slice)`` to LPS mm; spacing is (between slices, rows, columns)."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes * np.array(spacing[::-1])
    matrix[:3, 3] = origin
    return matrix


def series(
    volume: NDArray[np.int16],
    *,
    orientation: str = "axial",
    spacing: tuple[float, float, float] = (3.0, 0.8, 0.7),
    origin: tuple[float, float, float] = (-30.0, -25.0, 40.0),
    **elements: Any,
) -> list[Dataset]:
    """One CT data set per slice of ``(Z, Y, X)`` values in Hounsfield units."""
    matrix = affine_of(rotation(orientation), spacing, origin)
    study, one_series, frame = generate_uid(), generate_uid(), generate_uid()
    found = []
    for k, plane in enumerate(volume):
        position = matrix @ np.array([0.0, 0.0, k, 1.0])
        ds = dataset(
            (plane.astype(np.int32) + 1024).astype(np.uint16),
            bits_stored=12,
            RescaleSlope="1",
            RescaleIntercept="-1024",
            RescaleType="HU",
            WindowCenter="40",
            WindowWidth="400",
            ImagePositionPatient=[f"{v:.6f}" for v in position[:3]],
            ImageOrientationPatient=[f"{v:.10f}" for v in rotation(orientation).T[:2].ravel()],
            PixelSpacing=[str(spacing[1]), str(spacing[2])],
            SliceThickness=str(spacing[0]),
            InstanceNumber=len(volume) - k,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            KVP="120",
            AcquisitionNumber=1,
            **elements,
        )
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, one_series, frame
        found.append(ds)
    return found


def enhanced(volume: NDArray[np.int16], **kwargs: Any) -> Dataset:
    """The same as one multi-frame data set with functional groups."""
    slices = series(volume, **kwargs)
    first = slices[0]
    stored = (volume.astype(np.int32) + 1024).astype(np.uint16)
    ds = dataset(stored, bits_stored=12, sop_class=ENHANCED_CT)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    measures = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    orientation = item(ImageOrientationPatient=first.ImageOrientationPatient)
    ds.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=s.ImagePositionPatient)],
            FrameVOILUTSequence=[item(WindowCenter=str(40 + k), WindowWidth="400")],
            PixelValueTransformationSequence=[
                item(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")
            ],
            FrameContentSequence=[
                item(DimensionIndexValues=[k + 1], StackID="1", InStackPositionNumber=k + 1)
            ],
        )
        for k, s in enumerate(slices)
    ]
    return ds


def body(shape: tuple[int, int, int] = (9, 48, 64)) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """A ``(Z, Y, X)`` phantom in Hounsfield units with an off-centre ellipsoid, and its mask."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    centre = np.array(shape) * (0.5, 0.45, 0.6)
    radii = np.array(shape) * (0.38, 0.25, 0.2)
    inside = sum(((v - c) / r) ** 2 for v, c, r in zip((z, y, x), centre, radii, strict=True)) < 1.0
    noise = np.random.default_rng(3).normal(0, 8, shape)
    values = np.where(inside, 120, -20) + noise
    return values.astype(np.int16), np.asarray(inside)


def write_series(folder: Path, datasets: list[Dataset], syntax: str = EXPLICIT) -> Path:
    """Write data sets as files whose names do not follow the slices' order."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, ds in enumerate(datasets):
        (folder / f"i{(k * 7919) % 10007:05d}.dcm").write_bytes(packed(ds, syntax))
    return folder


def nifti(volume: NDArray[Any], affine_ras: NDArray[np.float64], path: Path, **header: Any) -> Path:
    """Write ``(X, Y, Z)`` values as NIfTI-1."""
    import pytest

    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    image = nibabel.Nifti1Image(volume, affine_ras)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path
