"""Through a real archive: C-STORE and DICOMweb, in and out, compared voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.cli import main
from samrt.imaging.volumes.series import read_series

Tool = Callable[..., Any]
ORIENTATIONS = ("axial", "coronal", "flipped", "oblique")


@pytest.fixture(autouse=True)
def packages() -> None:
    for name in ("highdicom", "nibabel"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra dicom)")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_round_trip(
    orthanc: Any, tool: Tool, scanner: Any, tmp_path: Path, monkeypatch: Any, orientation: str
) -> None:
    """Scan to archive, archive to samrt, result to archive, back, and onto the scan's grid."""
    import nibabel
    import pydicom

    values, _ = scanner.body((6, 96, 112))
    slices = scanner.series(values, orientation=orientation)
    folder = scanner.write_series(tmp_path / "sent", slices)
    tool("storescu", "-aec", "ARCHIVE", "+sd", "127.0.0.1", orthanc.dicom, folder)
    study, series = slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID
    found = orthanc.search(f"/studies/{study}/series/{series}/instances")
    assert len(found) == 6

    received = tmp_path / "received"
    received.mkdir()
    for number, part in enumerate(orthanc.retrieve(f"/studies/{study}/series/{series}")):
        (received / f"{number}.dcm").write_bytes(part)
    volume = read_series(received)
    np.testing.assert_array_equal(volume.values, values)

    monkeypatch.chdir(tmp_path)
    words = ["--box3d", "45,22,1,90,65,6", "--threads", "1", "--label", "liver"]
    assert main(["infer", "received", *words, "--outputs", "seg,rtstruct,nifti"]) == 0
    mask = np.asarray(nibabel.load(tmp_path / "received.mask.nii.gz").dataobj)
    expected = mask.transpose(2, 1, 0).astype(bool)
    assert expected.any()

    tool("storescu", "-R", "-aec", "ARCHIVE", "127.0.0.1", orthanc.dicom, "received.seg.dcm")
    boundary = b"samrt-test-boundary"
    body = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
    body += (tmp_path / "received.rtstruct.dcm").read_bytes() + b"\r\n--" + boundary + b"--\r\n"
    kind = f'multipart/related; type="application/dicom"; boundary={boundary.decode()}'
    orthanc.post("/dicom-web/studies", body, kind)

    modalities = {
        item["00080060"]["Value"][0]: item["0020000E"]["Value"][0]
        for item in orthanc.search(f"/studies/{study}/series")
    }
    assert set(modalities) == {"CT", "SEG", "RTSTRUCT"}
    (part,) = orthanc.retrieve(f"/studies/{study}/series/{modalities['SEG']}")
    np.testing.assert_array_equal(_on_grid(pydicom.dcmread(BytesIO(part)), volume), expected)
    (part,) = orthanc.retrieve(f"/studies/{study}/series/{modalities['RTSTRUCT']}")
    structures = pydicom.dcmread(BytesIO(part))
    assert structures.StructureSetROISequence[0].ROIName == "liver"


def _on_grid(dataset: Any, volume: Any) -> Any:
    """A segmentation's voxels on the grid of the scan, each placed by its own geometry."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    cosines = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    back = np.zeros(volume.values.shape, bool)
    to_index = np.linalg.inv(volume.affine)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array([float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient])
        ys, xs = np.nonzero(frame)
        world = origin + np.outer(xs, row) * spacing[1] + np.outer(ys, column) * spacing[0]
        index = world @ to_index[:3, :3].T + to_index[:3, 3]
        nearest = np.rint(index).astype(int)
        assert np.abs(index - nearest).max(initial=0.0) < 1e-2
        back[nearest[:, 2], nearest[:, 1], nearest[:, 0]] = True
    return back


def test_the_archive_shows_the_capture(
    orthanc: Any, tool: Tool, scanner: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    values, _ = scanner.body((3, 48, 64))
    (tmp_path / "s.dcm").write_bytes(scanner.packed(scanner.series(values)[1]))
    monkeypatch.chdir(tmp_path)
    words = ["--box", "20,10,50,36", "--threads", "1"]
    assert main(["infer", "s.dcm", *words, "--outputs", "capture,overlay"]) == 0
    tool("storescu", "-aec", "ARCHIVE", "127.0.0.1", orthanc.dicom, "s.capture.dcm")
    import pydicom
    from PIL import Image

    uid = pydicom.dcmread("s.capture.dcm").SOPInstanceUID
    found = orthanc.search(f"/instances?SOPInstanceUID={uid}")
    assert len(found) == 1
    study, series = (found[0][tag]["Value"][0] for tag in ("0020000D", "0020000E"))
    picture = orthanc.get(
        f"/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={uid}"
        "&contentType=image/png",
        "image/png",
    )
    with Image.open(BytesIO(picture)) as shown, Image.open("s.overlay.png") as overlay:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.asarray(overlay))
