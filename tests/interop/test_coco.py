"""The COCO tools read our masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samrt.cli import main


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own
def test_masks_and_boxes(png_of_noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    monkeypatch.chdir(png_of_noise.parent)
    words = ["--box", "20,10,60,40", "--box", "5,5,30,30", "--threads", "1"]
    assert main(["infer", png_of_noise.name, *words, "--outputs", "mask,coco"]) == 0
    document = json.loads(Path("scan.coco.json").read_text("utf-8"))
    assert len(document["annotations"]) == 2
    for number, annotation in enumerate(document["annotations"]):
        mask = np.asarray(Image.open(f"scan.p{number}.mask.png")) > 0
        rle = annotation["segmentation"]
        np.testing.assert_array_equal(tools.decode(rle).astype(bool), mask)
        assert int(tools.area(rle)) == annotation["area"]
        assert tools.toBbox(rle).tolist() == annotation["bbox"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own
def test_slices_of_a_volume(scanner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's own index finds the slices; decoded and stacked they are the NIfTI mask."""
    coco_tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra dicom)")
    values, _ = scanner.body((7, 96, 112))
    path = scanner.nifti(
        values.transpose(2, 1, 0), np.diag([-0.7, -0.8, 3.0, 1.0]), tmp_path / "v.nii.gz"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--box3d", "45,22,1,90,65,6", "--threads", "1", "--window", "40,400"]
    assert main(["infer", str(path), *words, "--outputs", "nifti,coco"]) == 0
    index = coco_tools.COCO("v.coco.json")
    stored = np.asarray(nibabel.load("v.mask.nii.gz").dataobj).transpose(2, 1, 0) > 0
    stack = np.zeros_like(stored)
    for number, image in index.imgs.items():
        for annotation in index.loadAnns(index.getAnnIds(imgIds=[number])):
            stack[image["slice"]] |= index.annToMask(annotation).astype(bool)
    assert stack.any()
    np.testing.assert_array_equal(stack, stored)


@pytest.fixture
def png_of_noise(tmp_path: Path) -> Path:
    y, x = np.mgrid[:48, :80]
    image = 60 + 120 * ((x - 40) ** 2 + (y - 25) ** 2 < 150) + 60 * ((x - 17) ** 2 < 60)
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    path = tmp_path / "scan.png"
    Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(path)
    return path
