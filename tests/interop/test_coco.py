"""The COCO tools read our masks."""

from __future__ import annotations

import json
from pathlib import Path

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


@pytest.fixture
def png_of_noise(tmp_path: Path) -> Path:
    y, x = np.mgrid[:48, :80]
    image = 60 + 120 * ((x - 40) ** 2 + (y - 25) ** 2 < 150) + 60 * ((x - 17) ** 2 < 60)
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    path = tmp_path / "scan.png"
    Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(path)
    return path
