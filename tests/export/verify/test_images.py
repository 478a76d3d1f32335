"""The user's own pictures: prompts by rule, no file names in records."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import samrt
from samrt.errors import ImageError
from samrt.prompts import check_prompt

pytest.importorskip("cv2")
from samrt_export.verify import automatic_prompts, compare, image_cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "scans"
    place.mkdir()
    for name, mode in (("b_Smith.png", "L"), ("a.jpg", "RGB")):
        canvas = np.zeros((60, 90), np.uint8)
        canvas[10:30, 20:70] = 200
        Image.fromarray(canvas).convert(mode).save(place / name)
    (place / "notes.txt").write_text("not a picture")
    (place / "folder.png").mkdir()
    return place


def test_boxes_are_those_of_the_regions() -> None:
    canvas = np.full((60, 90), 10, np.uint8)
    canvas[10:30, 20:70] = 200
    canvas[40:42, 3:5] = 220  # smaller
    prompts = automatic_prompts(canvas)
    assert [p.box for p in prompts[:2]] == [(20, 10, 70, 30), (22, 15, 68, 45)]
    points = [tuple(p.point_coords[0]) for p in prompts if p.point_coords is not None]
    assert 20 <= points[0][0] < 70
    assert 10 <= points[0][1] < 30
    assert points[-1] == (45, 30)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (5, 300), (64, 64, 3)])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_every_picture_gets_prompts_that_lie_on_it(shape: tuple[int, ...], kind: str) -> None:
    values: dict[str, Any] = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8),
    }
    prompts = automatic_prompts(values[kind])
    assert prompts
    for prompt in prompts:
        check_prompt(prompt, (shape[0], shape[1]))


def test_cases_are_named_by_content(folder: Path) -> None:
    cases = list(image_cases(folder))
    assert [case.path.name for case in cases] == ["a.jpg", "b_Smith.png"]
    digest = hashlib.sha256((folder / "b_Smith.png").read_bytes()).hexdigest()
    assert cases[1].name == f"image-{digest[:12]}"


def test_they_can_be_verified_on(folder: Path, predictor: samrt.Predictor) -> None:
    record = compare(predictor, predictor, image_cases(folder))
    assert record.passed
    assert len(record.image_names) == 2
    assert record.expected == {}
    assert "Smith" not in str(record.as_dict())


def test_damaged_files_are_errors_or_told_of(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        list(image_cases(folder))
    skipped: list[str] = []
    cases = list(image_cases(folder, on_skip=lambda path, why: skipped.append(path.name)))
    assert (len(cases), skipped) == (1, ["a.jpg"])
    (folder / "b_Smith.png").write_bytes(b"")
    with pytest.raises(ImageError, match="none of the 2 pictures"):
        list(image_cases(folder, on_skip=lambda path, why: None))


def test_folders_without_pictures_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no picture"):
        list(image_cases(tmp_path))
    with pytest.raises(ImageError, match="is not a folder"):
        list(image_cases(tmp_path / "none"))
