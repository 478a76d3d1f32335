"""Volumes keep their grid: series, multi-frame files and NIfTI, in every plane and back."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.errors import ImageError, OptionError, OutputError
from samrt.imaging.volumes.nifti import is_nifti, read_nifti, write_nifti
from samrt.imaging.volumes.series import read_dicom_volume, read_series
from samrt.imaging.volumes.slices import is_volume_path, read_volume, slice_image
from samrt.imaging.volumes.volume import PLANES, plane_of

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "dcmqi_ct_seg" / "dicom"
ORIENTATIONS = ("axial", "coronal", "sagittal", "flipped", "oblique")
SPACING = (3.0, 0.8, 0.7)
ORIGIN = (-30.0, -25.0, 40.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_series(scanner: Any, tmp_path: Path, orientation: str) -> None:
    values, _ = scanner.body((6, 20, 24))
    folder = scanner.write_series(tmp_path / "s", scanner.series(values, orientation=orientation))
    (folder / "notes.txt").write_text("no image")
    volume = read_series(folder)
    expected = scanner.affine_of(scanner.rotation(orientation), SPACING, ORIGIN)
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.voxel_ml == pytest.approx(3.0 * 0.8 * 0.7 / 1000)
    assert volume.window == (-160.0, 239.0)
    assert volume.even
    assert volume.sources is not None
    assert len(volume.sources.datasets) == 6


def test_multi_frame_in_any_order(scanner: Any) -> None:
    values, _ = scanner.body((6, 20, 24))
    ds = scanner.enhanced(values, orientation="oblique")
    order = [3, 0, 5, 1, 4, 2]
    frames = np.frombuffer(ds.PixelData, np.uint16).reshape(values.shape)[order]
    ds.PixelData = frames.tobytes()
    groups = list(ds.PerFrameFunctionalGroupsSequence)
    ds.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    volume = read_dicom_volume(scanner.packed(ds), "x.dcm")
    np.testing.assert_array_equal(volume.values, values)
    expected = scanner.affine_of(scanner.rotation("oblique"), SPACING, ORIGIN)
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)
    assert volume.sources is not None
    assert volume.sources.frames == tuple(np.argsort(order))


def test_compressed_series(scanner: Any, tmp_path: Path) -> None:
    pytest.importorskip("rle", reason="pylibjpeg-rle is not installed (extra dicom)")
    values, _ = scanner.body((5, 20, 24))
    folder = scanner.write_series(tmp_path / "s", scanner.series(values), scanner.RLE)
    volume = read_series(folder)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.details["decoder"].startswith("pylibjpeg-rle")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_planes(scanner: Any, tmp_path: Path, orientation: str) -> None:
    """In every plane columns, rows and slices run as radiologists expect."""
    values, _ = scanner.body((6, 20, 24))
    folder = scanner.write_series(tmp_path / "s", scanner.series(values, orientation=orientation))
    volume = read_series(folder)
    targets = {
        "axial": ([0, 0, 1], [0, 1, 0], [1, 0, 0]),
        "coronal": ([0, 1, 0], [0, 0, -1], [1, 0, 0]),
        "sagittal": ([1, 0, 0], [0, 0, -1], [0, 1, 0]),
    }
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in values.shape), indexing="ij"), -1)
    place = grid[..., ::-1] @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    for name, wanted in targets.items():
        plane = plane_of(volume, name)
        turned = np.stack([plane.view(place[..., axis]) for axis in range(3)], -1)
        assert plane.shape == turned.shape[:3]
        for axis, direction in enumerate(wanted):
            step = np.diff(turned, axis=axis).reshape(-1, 3).mean(axis=0)
            length = float(np.linalg.norm(step))
            assert length == pytest.approx(plane.spacing[axis])
            cosine = float(step @ direction) / length
            assert cosine > (0.75 if orientation == "oblique" else 0.9999), (name, axis)
        if orientation != "oblique":
            assert plane.oblique_degrees == pytest.approx(0.0, abs=1e-2)
    assert plane_of(volume, "native").view(values) is not None
    np.testing.assert_array_equal(plane_of(volume, "native").view(values), values)
    with pytest.raises(OptionError, match="unknown plane"):
        plane_of(volume, "diagonal")


def test_series_that_make_no_volume(scanner: Any, tmp_path: Path) -> None:
    values, _ = scanner.body((4, 12, 16))
    slices = scanner.series(values)
    twice = scanner.write_series(tmp_path / "twice", [*slices, slices[1]])
    with pytest.raises(ImageError, match="same place"):
        read_series(twice)
    other = scanner.series(values, orientation="coronal")
    for ds in other:
        ds.SeriesInstanceUID = slices[0].SeriesInstanceUID
    mixed = scanner.write_series(tmp_path / "mixed", [*slices[:3], other[3]])
    with pytest.raises(ImageError, match="differ in orientation"):
        read_series(mixed)
    second = scanner.series(values[:3], SeriesDescription="SECRET")
    for ds in second:
        ds.SeriesNumber = 7
    several = scanner.write_series(tmp_path / "several", [*slices, *second])
    with pytest.raises(OptionError, match=r"2 series .0: 4 slices, CT; 1: 3 slices, CT.") as caught:
        read_series(several)
    assert "SECRET" not in str(caught.value)
    assert read_series(several, series=1).values.shape[0] == 3
    with pytest.raises(OptionError, match="there is no series 2"):
        read_series(several, series=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="without DICOM images"):
        read_series(tmp_path / "empty")


def test_a_damaged_slice_is_not_passed_over(scanner: Any, tmp_path: Path) -> None:
    values, _ = scanner.body((5, 12, 16))
    folder = scanner.write_series(tmp_path / "s", scanner.series(values))
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match="truncated"):
        read_series(folder)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_series(folder)


@pytest.mark.shared
def test_a_real_series() -> None:
    """Three slices of a CT, and the liver that another program wrote as DICOM segmentation."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    if not (SHARED / "ct").is_dir():
        pytest.skip("no data beside the repository (../shared/data/dcmqi_ct_seg)")
    volume = read_series(SHARED / "ct")
    assert volume.values.shape == (3, 512, 512)
    assert volume.spacing == pytest.approx((1.0, 0.810547, 0.810547))
    assert volume.window == (-160.0, 239.0)
    inside = volume.values[volume.values > -900]
    assert -200 < float(np.median(inside)) < 200  # soft tissue and fat, in Hounsfield units
    liver = pydicom.dcmread(SHARED / "seg" / "liver.dcm")
    levels = []
    for frame, groups in zip(
        liver.pixel_array, liver.PerFrameFunctionalGroupsSequence, strict=True
    ):
        place = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        column, row, k = (np.linalg.inv(volume.affine) @ [*place, 1.0])[:3]
        assert (column, row) == pytest.approx((0, 0), abs=1e-3)
        levels.append(float(volume.values[round(k)][frame > 0].mean()))
    assert all(20 < level < 70 for level in levels)  # liver without contrast medium


def test_gaps_are_told(scanner: Any, tmp_path: Path) -> None:
    values, _ = scanner.body((6, 12, 16))
    slices = scanner.series(values)
    volume = read_series(scanner.write_series(tmp_path / "s", slices[:3] + slices[4:]))
    assert not volume.even
    assert "unevenly spaced" in volume.warnings[0]
    pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    with pytest.raises(OutputError, match="unevenly spaced"):
        write_nifti(np.ones(volume.values.shape, bool), volume)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("orientation", ["axial", "flipped", "oblique"])
def test_nifti_there_and_back(scanner: Any, tmp_path: Path, kind: str, orientation: str) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    values = np.random.default_rng(1).integers(0, 200, (5, 14, 18)).astype(kind)
    affine = TO_RAS @ scanner.affine_of(scanner.rotation(orientation), SPACING, ORIGIN)
    path = scanner.nifti(values.transpose(2, 1, 0), affine, tmp_path / "v.nii.gz")
    volume = read_nifti(path.read_bytes(), "v")
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine_ras, affine, atol=1e-5)
    mask = np.zeros(values.shape, bool)
    view = plane_of(volume, "coronal").view(mask)
    view[3, 1:3, 5:9] = True
    (tmp_path / "m.nii.gz").write_bytes(write_nifti(mask, volume, description="x"))
    image = nibabel.load(tmp_path / "m.nii.gz")
    source = nibabel.load(path)
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-6)
    assert int(image.header["sform_code"]) == int(source.header["sform_code"])
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask.transpose(2, 1, 0))
    assert image.get_data_dtype() == np.uint8


def test_nifti_scale_time_and_kinds(scanner: Any, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(values, np.eye(4), header)
    image.header.set_slope_inter(2.0, -10.0)
    image.to_filename(tmp_path / "s.nii")
    stored = np.asarray(nibabel.load(tmp_path / "s.nii").dataobj)
    volume = read_nifti((tmp_path / "s.nii").read_bytes(), "s")
    np.testing.assert_allclose(volume.values, stored.transpose(2, 1, 0), atol=1e-4)
    series = np.stack([values, values + 100], -1)
    data = scanner.nifti(series, np.eye(4), tmp_path / "t.nii").read_bytes()
    with pytest.raises(ImageError, match="holds 2 volumes"):
        read_nifti(data, "t")
    later = read_nifti(data, "t", time=1)
    np.testing.assert_array_equal(later.values, values.transpose(2, 1, 0) + 100)
    two = nibabel.Nifti2Image(values, np.eye(4))
    np.testing.assert_array_equal(
        read_nifti(two.to_bytes(), "n2").values, values.transpose(2, 1, 0)
    )
    for bad in (np.zeros((2, 2, 2), np.complex64), np.full((2, 2, 2), np.nan, np.float32)):
        with pytest.raises(ImageError, match=r"complex64|NaN"):
            read_nifti(nibabel.Nifti1Image(bad, np.eye(4)).to_bytes(), "x")


def test_nifti_that_lies(scanner: Any, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    good = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)).to_bytes()
    with pytest.raises(ImageError, match="truncated"):
        read_nifti(good[:-1], "x")
    with pytest.raises(ImageError, match="truncated"):
        read_nifti(gzip.compress(good)[:-30], "x")
    large = bytearray(good)
    large[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    with pytest.raises(ImageError, match="the limit is 500000000"):
        read_nifti(bytes(large), "x")
    bomb = gzip.compress(good + b"\0" * (64 << 20))
    assert read_nifti(bomb, "x").values.shape == (6, 5, 4)  # what the header says, no more
    assert is_nifti(bomb)
    assert not is_nifti(b"\x1f\x8b" + b"\0" * 99)
    pair = bytearray(good)
    pair[344:347] = b"ni1"
    with pytest.raises(ImageError, match="without voxels"):
        read_nifti(bytes(pair), "x")


def test_slices_are_pictures(scanner: Any, tmp_path: Path) -> None:
    values, _ = scanner.body((6, 20, 24))
    folder = scanner.write_series(tmp_path / "s", scanner.series(values))
    volume = read_volume(str(folder))
    image = slice_image(volume, "native", 2)
    np.testing.assert_array_equal(image.source, values[2])
    assert image.origin is not None
    assert image.origin.geometry is not None
    assert image.origin.geometry.position == pytest.approx((-30, -25, 46))
    coronal = slice_image(volume, "coronal", 7)
    np.testing.assert_array_equal(coronal.source, values[::-1, 7])
    assert coronal.spacing_mm == pytest.approx((3.0, 0.7))
    assert coronal.origin is None
    with pytest.raises(OptionError, match="6 native slices: choose one"):
        slice_image(volume, "native", None)
    with pytest.raises(ImageError, match="there is no slice 6"):
        slice_image(volume, "native", 6)
    assert is_volume_path(str(folder))
    assert not is_volume_path(str(next(folder.iterdir())))
    with pytest.raises(ImageError, match="is no volume"):
        read_volume(str(next(folder.iterdir())))
    with pytest.raises(OptionError, match="time is for NIfTI"):
        read_volume(str(folder), time=1)
    assert set(PLANES) == {"native", "axial", "coronal", "sagittal"}
