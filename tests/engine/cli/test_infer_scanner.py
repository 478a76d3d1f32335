"""``samrt infer`` on what scanners make: DICOM files, series, volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.imaging.volumes.series import read_series

Cli = Callable[..., Any]
BOX = "20,10,50,36"


@pytest.fixture
def slice_file(scanner: Any, tmp_path: Path) -> Path:
    values, _ = scanner.body((3, 48, 80))
    path: Path = tmp_path / "scan.dcm"
    path.write_bytes(scanner.packed(scanner.series(values)[1]))
    return path


@pytest.fixture
def series_folder(scanner: Any, tmp_path: Path) -> Path:
    values, _ = scanner.body((7, 96, 112))
    folder: Path = scanner.write_series(tmp_path / "series", scanner.series(values))
    return folder


def document(outcome: Any) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_a_slice(infer: Cli, slice_file: Path, workplace: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")
    import pydicom

    kinds = "mask,seg,rtstruct,capture"
    outcome = infer(slice_file, "--box", BOX, "--outputs", kinds, "--label", "liver", "--json")
    found = document(outcome)
    image = found["image"]
    assert (image["format"], image["mode"], image["bit_depth"]) == ("DICOM", "MONOCHROME2", 12)
    assert image["spacing_mm"] == [0.8, 0.7]
    assert image["window"] == [-160.0, 239.0]
    assert image["scanner"]["mapping"]["voi"]["source"] == "file:0"
    assert "uids" not in image["scanner"]
    mask = found["prompts"][0]["masks"][0]
    assert mask["area_mm2"] == pytest.approx(mask["area_px"] * 0.8 * 0.7, abs=1e-4)
    names = {path.name for path in workplace.iterdir()}
    assert names == {f"scan.{end}" for end in
                     ("mask.png", "seg.dcm", "rtstruct.dcm", "capture.dcm")}  # fmt: skip
    seg = pydicom.dcmread(workplace / "scan.seg.dcm")
    from PIL import Image

    pixels = np.asarray(Image.open(workplace / "scan.mask.png")) > 0
    np.testing.assert_array_equal(seg.pixel_array.astype(bool).reshape(pixels.shape), pixels)
    assert seg.SegmentSequence[0].SegmentLabel == "liver"


def test_nothing_of_the_patient_is_printed(infer: Cli, slice_file: Path) -> None:
    for words in ((), ("--json",), ("--json", "--with-uids")):
        outcome = infer(slice_file, "--box", BOX, "--outputs", "none", *words)
        assert outcome.code == 0
        said = (outcome.out + outcome.err).upper()
        assert "SECRET" not in said
        assert "DOE" not in said
        assert ("UIDS" in said) == ("--with-uids" in words)


@pytest.mark.parametrize(
    ("window", "low", "high"),
    [("40,400", -160.0, 239.0), ("lung", -1350.0, 149.0), ("-100:300", -100.0, 300.0)],
)
def test_windows(infer: Cli, slice_file: Path, window: str, low: float, high: float) -> None:
    outcome = infer(slice_file, "--box", BOX, "--outputs", "none", "--window", window, "--json")
    assert document(outcome)["image"]["window"] == [low, high]


def test_frames(infer: Cli, scanner: Any, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")
    values, _ = scanner.body((4, 48, 80))
    path = tmp_path / "many.dcm"
    path.write_bytes(scanner.packed(scanner.enhanced(values)))
    first = infer(path, "--box", BOX, "--outputs", "none", "--json")
    assert any("holds 4 frames" in text for text in document(first)["warnings"])
    third = document(infer(path, "--box", BOX, "--frame", 2, "--outputs", "seg", "--json"))
    assert third["image"]["scanner"]["frame"] == 2
    assert "there is no frame 4" in infer(path, "--box", BOX, "--frame", 4).error
    import pydicom

    seg = pydicom.dcmread("many.seg.dcm")
    assert seg.NumberOfFrames == 1
    place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert [float(v) for v in place] == pytest.approx([-30, -25, 46])


def test_a_slice_of_a_series(infer: Cli, series_folder: Path) -> None:
    words = ("--box", BOX, "--outputs", "none", "--json")
    found = document(infer(series_folder, *words, "--frame", 3))
    assert found["image"]["scanner"]["slice"] == 3
    coronal = document(infer(series_folder, "--box", "10,1,60,6", *words[2:], "--frame", 30,
                             "--plane", "coronal"))  # fmt: skip
    assert (coronal["image"]["width"], coronal["image"]["height"]) == (112, 7)
    assert "choose one with --frame" in infer(series_folder, *words).error


def volume_words(box: str = "45,22,1,90,65,6") -> tuple[str, ...]:
    return ("--box3d", box, "--model", "tiny", "--threads", "1")


def test_a_volume(samrt_command: Cli, series_folder: Path, scanner: Any, workplace: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    import pydicom

    outcome = samrt_command(
        "infer", series_folder, *volume_words(), "--outputs", "nifti,seg,rtstruct,overlay", "--json"
    )
    found = document(outcome)
    answer = found["prompts"][0]["volume"]
    _, truth = scanner.body((7, 96, 112))
    image = nibabel.load(workplace / "series.mask.nii.gz")
    mask = np.asarray(image.dataobj).transpose(2, 1, 0).astype(bool)
    assert np.count_nonzero(mask) == answer["voxels"]
    assert answer["volume_ml"] == pytest.approx(answer["voxels"] * 3 * 0.8 * 0.7 / 1000, abs=1e-5)
    middle = truth[1:6]
    dice = 2 * np.count_nonzero(mask[1:6] & middle) / (mask[1:6].sum() + middle.sum())
    assert dice > 0.9
    assert [item["index"] for item in answer["slices"]] == [2, 3, 4, 5]
    assert set(answer["stopped"]) == {"up", "down"}
    np.testing.assert_allclose(image.affine, read_series(series_folder).affine_ras, atol=1e-4)
    seg = pydicom.dcmread(workplace / "series.seg.dcm")
    assert seg.NumberOfFrames == 7
    assert int(seg.pixel_array.sum()) == answer["voxels"]
    assert (workplace / "series.overlay.png").stat().st_size > 10_000
    assert "SECRET" not in (outcome.out + outcome.err).upper()


def test_several_objects(samrt_command: Cli, series_folder: Path, workplace: Path) -> None:
    """Each box is a segment; in the label map the higher score wins where they overlap."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    import pydicom

    words = ("--box3d", "45,22,1,90,65,6", "--box3d", "50,30,2,80,60,5", "--label", "liver",
             "--label", "lesion", "--threads", "1", "--json")  # fmt: skip
    outcome = samrt_command("infer", series_folder, *words, "--outputs", "nifti,seg,overlay")
    first, second = document(outcome)["prompts"]
    assert first["prompt"]["box3d"] == [45, 22, 1, 90, 65, 6]
    assert [item["index"] for item in second["volume"]["slices"]] == [2, 3, 4]
    seg = pydicom.dcmread(workplace / "series.seg.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver 1", "lesion 2"]
    assert seg.NumberOfFrames == 14
    total = first["volume"]["voxels"] + second["volume"]["voxels"]
    assert int(seg.pixel_array.sum()) == total
    labels = np.asarray(nibabel.load(workplace / "series.mask.nii.gz").dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert 0 < np.count_nonzero(labels) <= total


def test_propagation_of_a_box(samrt_command: Cli, scanner: Any, tmp_path: Path) -> None:
    values, _ = scanner.body((7, 96, 112))
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    path = scanner.nifti(values.transpose(2, 1, 0), affine, tmp_path / "v.nii.gz")
    words = ("--box", "45,22,90,65", "--frame", 3, "--propagate", "--threads", 1)
    outcome = samrt_command("infer", path, *words, "--window", "40,400")
    assert outcome.code == 0, outcome.err
    assert "object on slices" in outcome.out
    assert Path("v.mask.nii.gz").is_file()
    assert "needs DICOM images" in samrt_command(
        "infer", path, *words, "--outputs", "seg", "--force"
    ).error  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--box3d", "0,0,0,10,10,99"), "does not fit"),
        (("--box3d", "0,0,0.5,10,10,3"), "does not fit"),
        (("--box3d", "30,0,0,10,10,3"), "does not fit"),
        (("--propagate", "--box", BOX, "--frame", "7"), "there is no slice 7"),
        (("--box", BOX, "--frame", "3", "--outputs", "nifti"), "nifti is for volumes"),
        (("--box", BOX, "--frame", "3", "--label", "unicorn"), "unknown label"),
        (("--box", BOX, "--frame", "3", "--time", "1"), "time is for NIfTI"),
        (("--box", BOX, "--frame", "3", "--window", "file:9"), "none is '9'"),
        (("--box", BOX, "--frame", "1", "--plane", "coronal", "--outputs", "seg"), "DICOM"),
    ],
)
def test_bad_input(
    infer: Cli, series_folder: Path, workplace: Path, words: tuple[str, ...], message: str
) -> None:
    box = ("--box", "1,1,9,6") if "--plane" in words else ()
    words = (*words[2:], *box) if box else words
    assert message in infer(series_folder, *words).error
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--propagate",),
        ("--propagate", "--box", BOX),
        ("--box3d", "1,2,3,4,5"),
        ("--box3d", "1,1,1,9,9,3", "--box", BOX),
        ("--box3d", "1,1,1,9,9,3", "--point", "1,1"),
        ("--box3d", "1,1,1,9,9,3", "--outputs", "mask"),
        ("--box3d", "1,1,1,9,9,3", "--everything"),
        ("--box3d", "1,1,1,9,9,3", "--zoom", "on"),
        ("--box", BOX, "--frame", "-1"),
        ("--box", BOX, "--seg-type", "fractional"),
    ],
)
def test_wrong_usage(infer: Cli, series_folder: Path, words: tuple[str, ...]) -> None:
    outcome = infer(series_folder, *words)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err


def test_derived_objects_need_dicom(infer: Cli, png: Path) -> None:
    assert "needs a DICOM image" in infer(png, "--box", "20,10,60,40", "--outputs", "seg").error
    assert "--plane is for volumes" in infer(png, "--box", "20,10,60,40", "--plane", "axial").error
    assert "no DICOM file" in infer(png, "--box", "20,10,60,40", "--frame", "0").error
