"""Other input sizes, and leaving the padding out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import samrt
import samrt_export
from samrt.bundle import Bundle
from samrt.cli import main
from samrt.phantoms import PhantomCase, phantom_case, phantom_cases
from samrt_export import exporter
from samrt_export.seeded import seeded_state
from samrt_export.verify.crop import crop_deviation, shaped


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "edge.pth"
    torch.save(seeded_state("edge_sam"), path)
    return path


@pytest.fixture
def two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [phantom_case("portrait"), phantom_case("microscopy")]
    monkeypatch.setattr(exporter, "phantom_cases", lambda: cases)


@pytest.mark.usefixtures("two_pictures")
@pytest.mark.parametrize("size", ["256", "192x320"])
def test_another_input_size_is_proven_like_the_usual_one(
    checkpoint: Path, tmp_path: Path, size: str
) -> None:
    out = tmp_path / "small.samrt"
    assert main(["export", str(checkpoint), "-o", str(out), "--image-size", size]) == 0
    bundle = Bundle.open(out, verify="full")
    wanted = (256, 256) if size == "256" else (192, 320)
    assert bundle.manifest.input.size == wanted
    assert bundle.manifest.input.cropped_from is None
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity["passed"] is True
    with samrt.load(out) as engine:
        embedding = engine.encode(np.full((96, 128, 3), 90, np.uint8))
    grid = tuple(side // 16 for side in wanted)
    assert embedding.features["image_embeddings"].shape == (1, 256, *grid)


@pytest.mark.usefixtures("two_pictures")
def test_a_cropped_bundle_says_what_it_costs(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "wide.samrt"
    assert main(["export", str(checkpoint), "-o", str(out), "--crop-padding", "512x1024"]) == 0
    assert "against the exact model on 2 built-in images" in capsys.readouterr().err
    bundle = Bundle.open(out)
    assert bundle.manifest.input.size == (512, 1024)
    assert bundle.manifest.input.cropped_from == (1024, 1024)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity["passed"] is True  # equal to the network of the same frame
    price = bundle.manifest.parity["crop_padding"]
    assert 0 < price["mask_iou_worst"] <= price["mask_iou_mean"] < 1
    assert 0 < price["encode_ratio"] < 1
    assert price["pictures"] == ["portrait", "microscopy"]
    with samrt.load(out) as engine:
        wide = engine.encode(np.full((100, 200, 3), 90, np.uint8))
        square = engine.encode(np.full((200, 200, 3), 90, np.uint8))
        assert wide.warnings == ()
        assert "encodes only 512x1024" in square.warnings[0]
        assert "512x512" in square.warnings[0]
        prediction = engine.decode(square, samrt.Prompt(box=(20, 20, 120, 150)))[0]
        assert square.warnings[0] in prediction.warnings


def test_pictures_are_cut_to_the_shape_of_the_crop() -> None:
    for case in phantom_cases():
        for crop in ((512, 1024), (1024, 512), (768, 1024), (1024, 1024)):
            cut = shaped(case, crop)
            height, width = cut.image.shape[:2]
            assert abs(height * crop[1] - width * crop[0]) <= max(crop)
            assert len(cut.prompts) <= len(case.prompts)
            for prompt in cut.prompts:
                if prompt.box is not None:
                    assert prompt.box[2] < width
                    assert prompt.box[3] < height
    whole = phantom_case("ultrasound")  # 4:3 already
    assert shaped(whole, (768, 1024)).image.shape == whole.image.shape
    assert len(shaped(whole, (768, 1024)).prompts) == len(whole.prompts)


def test_nothing_to_compare_is_an_error(checkpoint: Path) -> None:
    exact = samrt.Predictor(samrt_export.load_reference(checkpoint, image_size=(256, 256)))
    part = samrt.Predictor(samrt_export.load_reference(checkpoint, image_size=(128, 256)))
    empty = PhantomCase("empty", np.zeros((64, 64), np.uint8), ())
    with pytest.raises(ValueError, match="no built-in picture"):
        crop_deviation(exact, part, [empty])
