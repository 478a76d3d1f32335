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


def test_pixels_that_are_far_from_square(
    infer: Cli, scanner: Any, tmp_path: Path, workplace: Path
) -> None:
    """Height 2 mm, width 0.5 mm: areas and outlines in mm are right, and a warning says more."""
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")
    import pydicom

    values, _ = scanner.body((3, 48, 80))
    path = tmp_path / "flat.dcm"
    ds = scanner.series(values)[1]
    ds.PixelSpacing = [2.0, 0.5]
    path.write_bytes(scanner.packed(ds))
    found = document(infer(path, "--box", BOX, "--outputs", "seg,rtstruct", "--json"))
    (said,) = found["warnings"]
    assert "0.5 mm width and 2 mm height: areas and distances in mm are right" in said
    assert "4.00 times flatter than they are; samrt infer --square-pixels" in said
    mask = found["prompts"][0]["masks"][0]
    assert mask["area_px"] > 0
    assert mask["area_mm2"] == pytest.approx(mask["area_px"] * 1.0)
    seg = pydicom.dcmread(workplace / "flat.seg.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == [2.0, 0.5]
    assert int(seg.pixel_array.sum()) == mask["area_px"]
    contours = pydicom.dcmread(workplace / "flat.rtstruct.dcm").ROIContourSequence[0]
    area = 0.0
    for contour in contours.ContourSequence:
        points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
        after = np.roll(points, -1, axis=0)
        area += float(np.linalg.norm(np.cross(points, after).sum(axis=0))) / 2.0
    assert area == pytest.approx(mask["area_mm2"], rel=1e-4)


def test_square_pixels(samrt_command: Cli, scanner: Any, tmp_path: Path) -> None:
    """A coronal slice as a picture: asked for, it is shown upright, and the document says so."""
    pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    values, truth = scanner.body((24, 96, 112))
    path = scanner.nifti(values.transpose(2, 1, 0), np.diag([-0.7, -0.8, 3.0, 1.0]),
                         tmp_path / "v.nii.gz")  # fmt: skip
    held = truth[::-1, 40]
    ys, xs = np.flatnonzero(held.any(1)), np.flatnonzero(held.any(0))
    box = f"{xs[0]},{ys[0]},{xs[-1] + 1},{ys[-1] + 1}"
    words = ("infer", path, "--plane", "coronal", "--frame", 40, "--box", box, "--threads", 1,
             "--window", "40,400", "--outputs", "none", "--json")  # fmt: skip
    plain, square = (document(samrt_command(*words, *more)) for more in ((), ("--square-pixels",)))
    assert plain["image"]["model_stretch"] == [1, 1]
    assert any("shown the pixels as squares" in text for text in plain["warnings"])
    assert square["image"]["model_stretch"] == [4, 1]
    assert not any("shown the pixels as squares" in text for text in square["warnings"])
    assert square["prompts"][0]["prompt"] == plain["prompts"][0]["prompt"]
    mask = square["prompts"][0]["masks"][0]
    assert mask["area_mm2"] == pytest.approx(mask["area_px"] * 3.0 * 0.7, abs=1e-3)
    wrong = abs(mask["area_px"] - int(held.sum()))
    assert wrong < 0.12 * held.sum()


def test_square_pixels_need_to_know_their_size(infer: Cli, png: Path, workplace: Path) -> None:
    words = ("--box", "20,10,60,40", "--square-pixels")
    assert "does not say how large its pixels are" in infer(png, *words).error
    assert list(workplace.iterdir()) == []
    for more in (("--zoom", "auto"), ("--outputs", "npz"), ("--everything",)):
        outcome = infer(png, *words, *more)
        assert (outcome.code, "--square-pixels" in outcome.err) == (2, True), more


@pytest.mark.parametrize(
    ("spacing", "word"),
    [((0.7, 0.7), None), ((0.7, 0.703), None), ((1.0, 0.5), "2.00 times flatter"),
     ((0.4, 1.0), "2.50 times narrower")],
)  # fmt: skip
def test_the_remark_about_pixels(spacing: tuple[float, float], word: str | None) -> None:
    from samrt.imaging.spacing import uneven_note

    note = uneven_note(spacing, "x.dcm")
    assert (note is None) == (word is None)
    assert word is None or (note is not None and word in note)


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


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_slices_as_coco_and_polygons(
    samrt_command: Cli, scanner: Any, tmp_path: Path, plane: str
) -> None:
    """An entry per object and slice, in the plane asked for, with the voxels of the label map."""
    from samrt.imaging.polygons import geometry_area
    from samrt.imaging.rle import rle_to_mask
    from samrt.imaging.volumes.slices import read_volume
    from samrt.imaging.volumes.volume import plane_of

    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    values, _ = scanner.body((9, 96, 112))
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    path = scanner.nifti(values.transpose(2, 1, 0), affine, tmp_path / "v.nii.gz")
    boxes = {
        "axial": ("45,22,1,90,65,8", "50,30,2,80,60,6"),
        "coronal": ("45,1,36,90,8,44", "50,1,38,85,8,43"),
    }
    words = [word for box in boxes[plane] for word in ("--box3d", box)]
    outcome = samrt_command(
        "infer", path, *words, "--plane", plane, "--window", "40,400", "--threads", 1,
        "--outputs", "nifti,coco,polygons", "--json",
    )  # fmt: skip
    found = document(outcome)
    shape = (found["image"]["slices"], found["image"]["height"], found["image"]["width"])
    assert set(found["files"]) == {"nifti", "coco", "polygons"}
    coco = json.loads(Path("v.coco.json").read_text())
    polygons = json.loads(Path("v.polygons.geojson").read_text())
    assert coco["info"]["plane"] == polygons["samrt"]["plane"] == plane
    assert [(i["id"], i["slice"]) for i in coco["images"]] == [(k + 1, k) for k in range(shape[0])]
    masks = np.zeros((2, *shape), bool)
    for one, feature in zip(coco["annotations"], polygons["features"], strict=True):
        mask = rle_to_mask(one["segmentation"])
        assert (one["slice"], one["image_id"]) == (one["image_id"] - 1, one["slice"] + 1)
        assert {k: feature["properties"][k] for k in ("slice", "prompt_index", "score")} == {
            k: one[k] for k in ("slice", "prompt_index", "score")
        }
        assert mask.sum() == one["area"] == geometry_area(feature["geometry"])
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert one["bbox"] == [xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1]
        masks[one["prompt_index"], one["slice"]] = mask
    for number, mask in enumerate(masks):
        assert mask.sum() == found["prompts"][number]["volume"]["voxels"] > 100
    volume = read_volume(str(path), window="40,400")
    labels = np.asarray(nibabel.load("v.mask.nii.gz").dataobj).transpose(2, 1, 0)
    turned = plane_of(volume, plane).view(labels)
    np.testing.assert_array_equal(turned > 0, masks.any(axis=0))


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
        ("--box3d", "1,1,1,9,9,3", "--square-pixels"),
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
