"""Derived objects say where every pixel lies: read back by other code, compared voxel by voxel."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels
from samrt.errors import OptionError, OutputError
from samrt.imaging.derived.capture import write_capture
from samrt.imaging.derived.dicom_seg import write_seg
from samrt.imaging.derived.rtstruct import keyhole, write_rtstruct
from samrt.imaging.derived.segments import Algorithm, Segments
from samrt.imaging.derived.terms import TERMS, find_term
from samrt.imaging.dicom.frames import FrameGeometry
from samrt.imaging.volumes.series import read_dicom_volume, read_series
from samrt.imaging.volumes.volume import Volume

ORIENTATIONS = ("axial", "coronal", "sagittal", "flipped", "oblique")


@pytest.fixture(autouse=True)
def packages() -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")


def odd_mask(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask without symmetry, with a hole and with an empty slice."""
    mask = np.zeros(shape, bool)
    mask[1:-1, 5:20, 8:31] = True
    mask[2, 9:12, 14:22] = False
    mask[3:, 17:, :12] = False
    mask[1, 30:33, 2:4] = True
    mask[-2] = False
    return mask


def segments_of(volume: Volume, masks: NDArray[np.bool_], **options: Any) -> Segments:
    assert volume.sources is not None
    return Segments(
        masks=masks,
        sources=volume.sources.datasets,
        frames=volume.sources.frames,
        algorithm=Algorithm("tiny", "tiny@0123456789ab"),
        **options,
    )


@pytest.fixture(params=["series", "enhanced"])
def make_volume(request: Any, scanner: Any, tmp_path: Any) -> Any:
    def make(orientation: str) -> Volume:
        values, _ = scanner.body((6, 40, 48))
        if request.param == "enhanced":
            data = scanner.packed(scanner.enhanced(values, orientation=orientation))
            return read_dicom_volume(data, "x.dcm")
        folder = tmp_path / orientation
        scanner.write_series(folder, scanner.series(values, orientation=orientation))
        return read_series(folder)

    return make


def placed(dataset: Any) -> dict[tuple[float, ...], NDArray[np.bool_]]:
    """Frames of a binary segmentation by their position, read with pydicom alone."""
    rows, columns = dataset.Rows, dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames = bits[: dataset.NumberOfFrames * rows * columns].reshape(-1, rows, columns)
    found = {}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[(segment, *(round(float(v), 3) for v in place))] = frame.astype(bool)
    return found


def test_seg_frames_lie_on_their_sources(make_volume: Any) -> None:
    import pydicom

    for orientation in ORIENTATIONS:
        volume = make_volume(orientation)
        mask = odd_mask(volume.values.shape)
        data = write_seg(segments_of(volume, np.stack([mask, mask[:, ::-1]])))
        dataset = pydicom.dcmread(BytesIO(data))
        frames = placed(dataset)
        sources = volume.sources
        assert sources is not None
        for k, geometry in enumerate(sources.geometries):
            place = tuple(round(v, 3) for v in geometry.position)
            for number, expected in ((1, mask[k]), (2, mask[k, ::-1])):
                frame = frames.get((number, *place), np.zeros_like(expected))
                np.testing.assert_array_equal(frame, expected, err_msg=f"{orientation} {k}")
        shared = dataset.SharedFunctionalGroupsSequence[0]
        directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        first = sources.geometries[0]
        np.testing.assert_allclose([float(v) for v in directions], [*first.row, *first.column])
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
        np.testing.assert_allclose([float(v) for v in spacing], first.spacing)


def test_seg_says_who_made_what(make_volume: Any) -> None:
    import pydicom

    volume = make_volume("axial")
    mask = odd_mask(volume.values.shape)
    terms = (find_term("liver"), find_term("lesion"))
    made = segments_of(volume, np.stack([mask, mask]), terms=terms)
    dataset = pydicom.dcmread(BytesIO(write_seg(made)))
    assert dataset.SegmentationType == "BINARY"
    assert dataset.SeriesDescription == "samrt, not for clinical use"
    liver, lesion = dataset.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert (liver.SegmentLabel, lesion.SegmentLabel) == ("liver 1", "lesion 2")
    assert liver.SegmentAlgorithmType == "SEMIAUTOMATIC"
    identification = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert identification.AlgorithmName == "samrt tiny"
    assert identification.AlgorithmVersion.endswith("+0123456789ab")
    assert volume.sources is not None
    source = volume.sources.datasets[0]
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    known = {str(item.SOPInstanceUID) for item in volume.sources.datasets}
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID in known


def test_labelmap(make_volume: Any) -> None:
    import pydicom

    volume = make_volume("oblique")
    mask = odd_mask(volume.values.shape)
    other = np.roll(mask, 3, axis=2)
    data = write_seg(segments_of(volume, np.stack([mask, other])), labelmap=True)
    dataset = pydicom.dcmread(BytesIO(data))
    assert dataset.SegmentationType == "LABELMAP"
    assert len(data) < len(write_seg(segments_of(volume, np.stack([mask, other]))))
    expected = np.where(other, 2, mask.astype(int))
    pixels = dataset.pixel_array
    sources = volume.sources
    assert sources is not None
    places = [tuple(round(v, 3) for v in g.position) for g in sources.geometries]
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        k = places.index(tuple(round(float(v), 3) for v in place))
        np.testing.assert_array_equal(frame, expected[k])


def inside(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixel centres inside a polygon by the even-odd rule, edge by edge."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    odd = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return odd


def test_rtstruct_fills_to_the_mask(make_volume: Any) -> None:
    import pydicom

    for orientation in ORIENTATIONS:
        volume = make_volume(orientation)
        mask = odd_mask(volume.values.shape)
        sources = volume.sources
        assert sources is not None
        made = segments_of(volume, mask[None], terms=(TERMS["kidney"],))
        dataset = pydicom.dcmread(BytesIO(write_rtstruct(made, sources.geometries)))
        assert dataset.StructureSetROISequence[0].ROIName == "kidney"
        assert dataset.ApprovalStatus == "UNAPPROVED"
        back = np.zeros_like(mask)
        to_index = np.linalg.inv(volume.affine)
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            world = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
            index = world @ to_index[:3, :3].T + to_index[:3, 3]
            assert np.ptp(index[:, 2]) < 1e-3
            k = round(float(index[0, 2]))
            back[k] ^= inside(np.round(index[:, :2] * 2) / 2, *mask.shape[1:])
            image = contour.ContourImageSequence[0]
            number = 0 if sources.frames is not None else k
            assert image.ReferencedSOPInstanceUID == sources.datasets[number].SOPInstanceUID
            if sources.frames is not None:
                assert image.ReferencedFrameNumber == sources.frames[k] + 1
        np.testing.assert_array_equal(back, mask, err_msg=orientation)


def test_keyhole() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        mask = rng.random((12, 15)) > 0.35
        back = np.zeros_like(mask)
        for rings in _kernels.mask_polygons(mask):
            back ^= inside(keyhole(rings) - 0.5, *mask.shape)
        np.testing.assert_array_equal(back, mask)


def test_capture(make_volume: Any) -> None:
    import pydicom

    volume = make_volume("oblique")
    assert volume.sources is not None
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    source, geometry = volume.sources.datasets[0], volume.sources.geometries[0]
    for place, letters in ((geometry, ["L", "P"]), (None, None)):
        dataset = pydicom.dcmread(BytesIO(write_capture(picture, source, place)))
        np.testing.assert_array_equal(dataset.pixel_array, picture)
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert (list(dataset.PatientOrientation) if letters else None) == letters
        assert dataset.BurnedInAnnotation == "YES"


def test_what_cannot_be_written(make_volume: Any, scanner: Any) -> None:
    volume = make_volume("axial")
    assert volume.sources is not None
    nothing = np.zeros((1, *volume.values.shape), bool)
    with pytest.raises(OutputError, match="all masks are empty"):
        write_seg(segments_of(volume, nothing))
    with pytest.raises(OutputError, match="all masks are empty"):
        write_rtstruct(segments_of(volume, nothing), volume.sources.geometries)
    bare = scanner.dataset(np.zeros((4, 4), np.uint8), sop_class=scanner.SECONDARY)
    del bare.FrameOfReferenceUID
    one = Segments(np.ones((1, 1, 4, 4), bool), [bare], None, Algorithm("tiny"))
    with pytest.raises(OutputError, match="position in the patient"):
        write_rtstruct(one, [None])
    bare.PatientSex = "SECRET SEX"
    with pytest.raises(OutputError, match="cannot be made from this source") as caught:
        write_seg(one)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("frames", [1, 4])
def test_images_without_a_place(scanner: Any, frames: int) -> None:
    """Radiographs and ultrasound loops: no position, no frame of reference."""
    import pydicom

    from samrt.imaging.dicom.read import read_dicom

    grey = np.random.default_rng(0).integers(0, 255, (frames, 24, 30)).astype(np.uint8)
    kind = "1.2.840.10008.5.1.4.1.1.3.1" if frames > 1 else "1.2.840.10008.5.1.4.1.1.6.1"
    ds = scanner.dataset(grey if frames > 1 else grey[0], sop_class=kind)
    del ds.FrameOfReferenceUID
    origin = read_dicom(scanner.packed(ds), "x.dcm", frame=frames - 1).origin
    assert origin is not None
    mask = odd_mask((6, 40, 48))[2][:24, :30]
    made = Segments(
        mask[None, None], [origin.dataset], (frames - 1,) if frames > 1 else None, Algorithm("t")
    )
    dataset = pydicom.dcmread(BytesIO(write_seg(made)))
    np.testing.assert_array_equal(dataset.pixel_array.astype(bool), mask)
    groups = dataset.PerFrameFunctionalGroupsSequence[0]
    image = groups.DerivationImageSequence[0].SourceImageSequence[0]
    assert image.ReferencedSOPInstanceUID == ds.SOPInstanceUID
    assert image.ReferencedSOPClassUID == kind
    assert dataset.SourceImageSequence[0].ReferencedSOPClassUID == kind
    assert image.get("ReferencedFrameNumber") == (frames if frames > 1 else None)
    assert "PatientOrientation" in dataset


def test_sources_without_identity(scanner: Any, tmp_path: Any) -> None:
    """De-identified files lack elements, or have empty ones."""
    values, _ = scanner.body((3, 24, 32))
    slices = scanner.series(values)
    for ds in slices:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
                        "AccessionNumber", "ReferringPhysicianName", "StudyDate", "StudyTime",
                        "Manufacturer", "ManufacturerModelName", "PositionReferenceIndicator",
                        "DeviceSerialNumber", "SoftwareVersions"):  # fmt: skip
            delattr(ds, keyword)
        ds.SpecificCharacterSet = ""
    volume = read_series(scanner.write_series(tmp_path / "s", slices))
    assert volume.sources is not None
    made = segments_of(volume, np.ones((1, *values.shape), bool))
    assert write_seg(made)
    assert write_seg(made, labelmap=True)
    assert write_rtstruct(made, volume.sources.geometries)
    source, place = volume.sources.datasets[0], volume.sources.geometries[0]
    assert write_capture(np.zeros((4, 4, 3), np.uint8), source, place)


def test_terms() -> None:
    import pydicom.sr.codedict

    codes = pydicom.sr.codedict.codes.SCT
    for term in TERMS.values():
        assert getattr(codes, term.kind.meaning).value == term.kind.value
    assert find_term("1234:99LAB:Left thing").kind.scheme == "99LAB"
    for text in ("unicorn", "a:b", "1:2:" + "x" * 65):
        with pytest.raises(OptionError, match="unknown label"):
            find_term(text)


def test_geometry_is_a_value() -> None:
    geometry = FrameGeometry((0, 0, 0), (1, 0, 0), (0, 0, -1), (1.0, 1.0), None)
    np.testing.assert_array_equal(geometry.normal, [0, 1, 0])
