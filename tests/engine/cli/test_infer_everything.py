"""``samrt infer --everything``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Infer = Callable[..., Any]
LOOSE = (
    "--everything", "--points-per-side", "5", "--pred-iou-thresh", "0.1",
    "--stability-score-thresh", "0.3",
)  # fmt: skip


def test_files_and_document(infer: Infer, png: Path, workplace: Path) -> None:
    done = infer(png, *LOOSE, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert sorted(path.name for path in workplace.iterdir()) == [
        "scan.coco.json", "scan.labels.png", "scan.overlay.png",
    ]  # fmt: skip
    assert "prompts" not in document
    assert document["everything"]["prompts"] == 25
    assert document["everything"]["pred_iou_thresh"] == 0.1
    assert document["everything"]["box_nms_thresh"] == 0.7
    labels = np.asarray(Image.open(workplace / "scan.labels.png"))
    assert len(document["masks"]) >= labels.max() > 0
    coco = json.loads((workplace / "scan.coco.json").read_text("utf-8"))
    for mask, annotation in zip(document["masks"], coco["annotations"], strict=True):
        x, y, w, h = annotation["bbox"]
        assert mask["box"] == [x, y, x + w, y + h]
        assert mask["area_px"] == annotation["area"]
    assert set(document["timings_ms"]) >= {"encode", "decode", "masks", "filter", "write", "total"}
    assert document["files"]["coco"] == "scan.coco.json"


def test_text_and_single_masks(infer: Infer, png: Path, workplace: Path) -> None:
    done = infer(png, *LOOSE, "--outputs", "mask")
    assert done.code == 0, done.err
    assert "masks from 25 points" in done.out
    files = sorted(workplace.glob("*.mask.png"))
    assert len(files) > 1
    assert files[0].name in done.out


def test_nothing_found_is_told(infer: Infer, png: Path, workplace: Path) -> None:
    done = infer(png, "--everything", "--points-per-side", "3", "--pred-iou-thresh", "0.999")
    assert done.code == 0
    assert "0 masks from 9 points" in done.out
    assert "no mask passed: predicted IoU above 0.999" in done.err
    assert len(list(workplace.iterdir())) == 3


def test_existing_files_stay(infer: Infer, png: Path, workplace: Path) -> None:
    (workplace / "scan.labels.png").write_bytes(b"mine")
    assert "--force" in infer(png, *LOOSE).error
    assert (workplace / "scan.labels.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--everything", "--box", "1,1,9,9"), "takes no prompts"),
        (("--everything", "--point", "1,1"), "takes no prompts"),
        (("--points-per-side", "4", "--box", "1,1,9,9"), "--points-per-side needs --everything"),
        (("--everything", "--outputs", "npz"), "does not write npz"),
        (("--everything", "--points-per-side", "0"), "0 is below 1"),
    ],
)
def test_wrong_usage(infer: Infer, png: Path, words: tuple[str, ...], message: str) -> None:
    done = infer(png, *words)
    assert done.code == 2
    assert message in done.err


def test_wrong_values_are_one_line(infer: Infer, png: Path, workplace: Path) -> None:
    assert "crop_n_layers" in infer(png, "--everything", "--crop-n-layers", "7").error
    assert "finite" in infer(png, "--everything", "--pred-iou-thresh", "nan").error
    assert not list(workplace.iterdir())
