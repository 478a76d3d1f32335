"""Volumes as data sets, and what becomes of damaged files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import DatasetError, SamrtError
from samrt.evaluation.formats import ReadOptions, open_dataset

Shapes = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def write_nifti(root: Path, flips: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray[Any, Any]:
    """A volume of 20 x 24 x 10 with 1 x 0.5 x 3 mm; the label box at x 5..14, y 4..15, z 2..7.

    Coordinates grow to the patient's right, front and head; ``flips`` stores an axis reversed.
    """
    nibabel = pytest.importorskip("nibabel")
    image = np.zeros((20, 24, 10), np.float32)
    image += np.arange(20)[:, None, None] * 10 + np.arange(24)[None, :, None]
    image[0, 0, 0] = 50000.0  # a sentinel
    labels = np.zeros(image.shape, np.uint8)
    labels[5:15, 4:16, 2:8] = 2
    affine = np.diag([1.0, 0.5, 3.0, 1.0])
    stored = tuple(slice(None, None, f) for f in flips)
    affine = affine @ np.diag([*flips, 1.0])
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for folder, values, name in (
        ("imagesTr", image, "a_0000.nii.gz"),
        ("labelsTr", labels, "a.nii.gz"),
    ):
        nibabel.save(nibabel.Nifti1Image(values[stored], affine), root / folder / name)
    return labels


def test_axes_of_a_volume_may_be_stored_in_any_order(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    write_nifti(tmp_path)
    plain = open_dataset(tmp_path)
    for folder, name in (("imagesTr", "a_0000.nii.gz"), ("labelsTr", "a.nii.gz")):
        path = tmp_path / folder / name
        volume = nibabel.load(path)
        turn = nibabel.orientations.axcodes2ornt(("S", "L", "A"))
        path.write_bytes(volume.as_reoriented(turn).to_bytes())
        path.rename(path.with_name(name.removesuffix(".gz")))
        path.unlink(missing_ok=True)
    turned = open_dataset(tmp_path)
    assert "".join(nibabel.aff2axcodes(nibabel.load(path.with_suffix("")).affine)) != "RAS"
    for one, two in zip(plain.targets, turned.targets, strict=True):
        assert (one.box, one.spacing, one.slice) == (two.box, two.spacing, two.slice)
        assert turned.read_mask(two).sum() == two.area_px


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_nifti_slices_are_upright_whatever_the_storage(
    tmp_path: Path, flips: tuple[int, int, int]
) -> None:
    write_nifti(tmp_path, flips)
    data = open_dataset(tmp_path)
    assert (data.kind, [t.slice for t in data.targets]) == ("nifti", [2, 3, 4, 5, 6, 7])
    target = data.targets[0]
    assert (target.size, target.area_px, target.spacing) == ((24, 20), 120, (0.5, 1.0))
    # the front of the patient is up and the right side at the left
    assert target.box == (20 - 15, 24 - 16, 20 - 6, 24 - 5)
    image = data.read_image(target).astype(int)
    assert image[0, 0] > image[-1, 0]
    assert image[0, 0] > image[0, -1]
    assert image[0, 0] == 255  # the sentinel does not darken the rest
    assert data.read_mask(target).sum() == 120


def test_nifti_planes_and_windows(tmp_path: Path) -> None:
    write_nifti(tmp_path)
    options = ReadOptions(window=(0.0, 100.0), plane="coronal", modality="CT")
    data = open_dataset(tmp_path, options=options)
    target = data.targets[0]
    assert (target.size, target.spacing) == ((10, 20), (3.0, 1.0))
    assert target.modality == "CT"
    with pytest.raises(DatasetError, match="unknown plane"):
        open_dataset(tmp_path, options=ReadOptions(plane="oblique"))


def test_nifti_that_does_not_fit(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    write_nifti(tmp_path)
    path = tmp_path / "labelsTr" / "a.nii.gz"
    shifted = np.diag([1.0, 0.5, 3.0, 1.0])
    shifted[0, 3] = 7.0
    labels = np.zeros((20, 24, 10), np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, shifted), path)
    with pytest.raises(DatasetError, match="not on one grid"):
        open_dataset(tmp_path)
    nibabel.save(nibabel.Nifti1Image(labels + np.float32(0.5), np.diag([1.0, 0.5, 3, 1])), path)
    with pytest.raises(DatasetError, match="no labels"):
        open_dataset(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"damaged|no NIfTI"):
        open_dataset(tmp_path)
    path.unlink()
    with pytest.raises(DatasetError, match="no label volume"):
        open_dataset(tmp_path)


def test_npz_of_the_challenge(tmp_path: Path, shapes: Shapes) -> None:
    image, labels = shapes(0)
    labels[labels == 3] = 0
    boxes = np.array([[8.0, 12.0, 33.0, 38.0], [43.0, 13.0, 61.0, 46.0]])
    np.savez(
        tmp_path / "2D_CT_a.npz", imgs=np.stack([image] * 3, -1), gts=labels, boxes=boxes,
        spacing=np.array([0.5, 0.7, 1.0]),
    )  # fmt: skip
    np.savez(tmp_path / "3D_MR_b.npz", imgs=np.stack([image] * 4), gts=np.stack([labels] * 4))
    data = open_dataset(tmp_path)
    assert (data.kind, len(data.targets)) == ("npz", 10)
    first, volume = data.targets[0], data.targets[-1]
    assert (first.image, first.modality, first.spacing) == ("2D_CT_a.npz", "CT", (0.7, 0.5))
    assert first.given_box == (8.0, 12.0, 33.0, 38.0)
    assert (volume.image, volume.modality, volume.given_box) == ("3D_MR_b.npz@3", "MR", None)
    assert data.read_image(first).shape == (60, 80, 3)
    assert np.array_equal(data.read_image(volume), image)
    assert np.array_equal(data.read_mask(volume), labels == volume.label)
    alone = open_dataset(tmp_path / "2D_CT_a.npz")
    assert len(alone.targets) == 2


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"imgs": np.zeros((4, 4), np.uint8)}, "no gts"),
        ({"imgs": np.zeros((4, 4), np.uint8), "gts": np.zeros((5, 4), np.uint8)}, "do not fit"),
        ({"imgs": np.full((4, 4), 999.0), "gts": np.ones((4, 4), np.uint8)}, "0 to 255"),
        ({"imgs": np.zeros((4, 4), np.uint8), "gts": np.full((4, 4), 0.5)}, "no labels"),
        (
            {"imgs": np.zeros((9, 9), np.uint8), "gts": np.ones((9, 9), np.uint8),
             "boxes": np.zeros((2, 4))},
            "2 boxes for 1 labels",
        ),
        (
            {"imgs": np.zeros((9, 9), np.uint8), "gts": np.ones((9, 9), np.uint8),
             "spacing": np.zeros(3)},
            "spacing",
        ),
        ({"imgs": np.array([{}], dtype=object), "gts": np.ones((4, 4), np.uint8)}, "no sound"),
    ],
)  # fmt: skip
def test_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, Any], word: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DatasetError, match=word):
        open_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["png", "nifti", "npz", "index"])
def test_damaged_files_end_in_our_errors(
    tmp_path: Path, index_data: Path, shapes: Shapes, kind: str
) -> None:
    """Bytes flipped, cut or inserted: an error with one line, or targets that can be read."""
    root = tmp_path / "data"
    if kind == "nifti":
        write_nifti(root)
        path = root / "labelsTr" / "a.nii.gz"
    elif kind == "npz":
        root.mkdir()
        image, labels = shapes(0)
        path = root / "x.npz"
        np.savez(path, imgs=image, gts=labels, boxes=np.zeros((3, 4)), spacing=np.ones(3))
    else:
        root = index_data
        path = root / ("index.json" if kind == "index" else "alpha/m0.png")
    sound = path.read_bytes()
    rng = np.random.default_rng(11)
    failed = 0
    for _ in range(60):
        data = bytearray(sound)
        at = int(rng.integers(len(data)))
        how = int(rng.integers(4))
        if how == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        else:
            data[at : at + 8] = rng.bytes(8)
        path.write_bytes(bytes(data))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _read_first(root)
        except SamrtError:
            failed += 1
    assert failed > 20


def _read_first(root: Path) -> None:
    data = open_dataset(root)
    data.read_mask(data.targets[0])
    data.read_image(data.targets[0])
