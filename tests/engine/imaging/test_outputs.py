"""Overlay, label map, COCO, polygons and logits of a run."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.errors import ImageError, PromptError
from samrt.imaging.logits import load_mask_inputs, pack_logits
from samrt.imaging.outputs import OUTPUT_KINDS, OutputNames, Run, label_map, render
from samrt.imaging.overlay import PALETTE, OverlayItem, draw_overlay
from samrt.imaging.polygons import geometry_area
from samrt.imaging.rle import rle_to_mask
from samrt.types import Prediction, Prompt

SIZE = (40, 60)
Mask = NDArray[np.bool_]


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def answer(masks: list[Mask], scores: list[float], prompt: Prompt | None = None) -> Prediction:
    def box(mask: Mask) -> list[float]:
        ys, xs = np.nonzero(mask)
        return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if ys.size else [0, 0, 0, 0]

    count = len(masks)
    return Prediction(
        masks=np.array(masks),
        scores=np.array(scores, np.float32),
        logits=np.arange(count * 64, dtype=np.float32).reshape(count, 8, 8),
        stability=np.full(count, 0.5, np.float32),
        areas_px=np.array([m.sum() for m in masks], np.int64),
        boxes=np.array([box(m) for m in masks], np.float64),
        prompt=prompt or Prompt(box=(5, 5, 30, 30)),
    )


LOW = answer([rectangle(5, 5, 30, 30), rectangle(0, 0, 2, 2)], [0.6, 0.1])
HIGH = answer([rectangle(0, 0, 1, 1), rectangle(20, 10, 50, 35)], [0.2, 0.9])


@pytest.fixture
def run() -> Run:
    image = np.full(SIZE, 90, np.uint8)
    return Run(image, "a.png", [LOW, HIGH], {"samrt": "0", "model": "m@1"})


def test_names() -> None:
    def names(prompts: int, masks: int) -> list[str]:
        return [p.name for p in OutputNames(Path("o"), "a.b", prompts, masks).all(["mask"])]

    assert names(1, 1) == ["a.b.mask.png"]
    assert names(2, 1) == ["a.b.p0.mask.png", "a.b.p1.mask.png"]
    assert names(1, 2) == ["a.b.m0.mask.png", "a.b.m1.mask.png"]
    assert names(2, 2)[-1] == "a.b.p1.m1.mask.png"
    everything = OutputNames(Path("o"), "a", 1, 1).all(OUTPUT_KINDS)
    assert len(set(everything)) == len(OUTPUT_KINDS)


def test_render_makes_exactly_the_planned_files(run: Run) -> None:
    names = OutputNames(Path("o"), "a", 2, 2)
    files = render(run, names, OUTPUT_KINDS)
    assert list(files) == names.all(OUTPUT_KINDS)
    mask = np.asarray(Image.open(BytesIO(files[names.mask(1, 1)])))
    assert np.array_equal(mask, np.where(HIGH.masks[1], 255, 0))
    overlay = Image.open(BytesIO(files[names.single("overlay")]))
    assert (overlay.mode, max(overlay.size)) == ("RGB", 768)


def test_the_higher_score_wins_in_the_label_map() -> None:
    for order, (high, low) in (([LOW, HIGH], (2, 1)), ([HIGH, LOW], (1, 2))):
        labels = label_map(order, SIZE)
        assert labels.dtype == np.uint8
        assert (labels[HIGH.masks[1]] == high).all()
        assert (labels[LOW.masks[0] & ~HIGH.masks[1]] == low).all()
        assert not labels[~(HIGH.masks[1] | LOW.masks[0])].any()
    assert label_map([LOW, LOW], SIZE).max() == 1


def test_many_prompts_need_sixteen_bits(run: Run) -> None:
    tiny = [
        answer([rectangle(i % 60, i // 60, i % 60 + 1, i // 60 + 1)], [0.5]) for i in range(256)
    ]
    labels = label_map(tiny, SIZE)
    assert labels.dtype == np.uint16
    assert labels.max() == 256
    names = OutputNames(Path(), "a", 256, 1)
    content = render(Run(run.image, "a", tiny), names, ["label"])[names.single("label")]
    assert np.array_equal(np.asarray(Image.open(BytesIO(content))), labels)


def test_coco(run: Run) -> None:
    names = OutputNames(Path(), "a", 2, 2)
    document = json.loads(render(run, names, ["coco"])[names.single("coco")])
    assert document["images"] == [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    notes = document["annotations"]
    assert [n["id"] for n in notes] == [1, 2, 3, 4]
    assert [(n["prompt_index"], n["mask_index"]) for n in notes] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert np.array_equal(rle_to_mask(notes[3]["segmentation"]), HIGH.masks[1])
    assert (notes[3]["area"], notes[3]["bbox"]) == (750, [20.0, 10.0, 30.0, 25.0])
    assert notes[3]["score"] == pytest.approx(0.9)


def test_polygons(run: Run) -> None:
    names = OutputNames(Path(), "a", 2, 2)
    document = json.loads(render(run, names, ["polygons"])[names.single("polygons")])
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert geometry_area(feature["geometry"]) == feature["properties"]["area_px"]


# -- overlay -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "longer"), [((1, 1), 768), ((300, 400), 768), ((900, 1000), 1000), ((3000, 30), 2048)]
)
def test_overlay_sizes(size: tuple[int, int], longer: int) -> None:
    image = np.zeros(size, np.uint8)
    mask = np.ones(size, bool)
    picture = draw_overlay(image, [OverlayItem(mask, Prompt(box=(0, 0, size[1], size[0])), 0.5)])
    assert max(picture.size) == longer
    assert picture.mode == "RGB"


def test_overlay_tints_inside_and_leaves_the_outside() -> None:
    image = np.full((1000, 1000), 100, np.uint8)
    mask = np.zeros((1000, 1000), bool)
    mask[300:700, 300:700] = True
    drawn = np.asarray(draw_overlay(image, [OverlayItem(mask)]))
    assert (drawn[:290] == 100).all()
    inside = drawn[500, 500].astype(int)
    assert np.abs(inside - (100 + 0.27 * (np.array(PALETTE[0]) - 100))).max() <= 2
    assert np.abs(drawn[300, 500].astype(int) - PALETTE[0]).max() <= 40


def test_overlay_of_nothing_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (800, 900, 3), dtype=np.uint8)
    empty = OverlayItem(np.zeros((800, 900), bool), None, 0.1)
    assert np.array_equal(np.asarray(draw_overlay(image, [empty])), image)


def test_thin_things_keep_a_line() -> None:
    image = np.zeros((2000, 2000), np.uint8)
    mask = np.zeros((2000, 2000), bool)
    mask[1000, 200:1800] = True
    drawn = np.asarray(draw_overlay(image, [OverlayItem(mask)]))
    assert (drawn[1000, 300:1700].max(axis=1) > 150).all()


def test_prompts_of_every_kind_are_drawn() -> None:
    image = np.zeros((50, 70, 3), np.uint8)
    coords, labels = np.array([[0.0, 0.0], [69.0, 49.0]]), np.array([1, 0])
    prompt = Prompt(box=(0, 0, 70, 50), point_coords=coords, point_labels=labels)
    empty = np.zeros((50, 70), bool)
    drawn = np.asarray(draw_overlay(image, [OverlayItem(empty, prompt, 0.9)])).astype(int)
    assert (drawn[:25, :25, 1] - drawn[:25, :25, 0]).max() > 60  # green plus
    assert (drawn[-25:, -25:, 0] - drawn[-25:, -25:, 1]).max() > 60  # red minus
    assert drawn[0, 300:500].max() > 150  # dashes along the top


def test_overlay_refuses_what_does_not_fit() -> None:
    with pytest.raises(ImageError):
        draw_overlay(np.zeros((5, 5), np.uint16), [])  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        draw_overlay(np.zeros((5, 5), np.uint8), [OverlayItem(np.zeros((5, 6), bool))])


# -- logits ------------------------------------------------------------------------------------


def test_logits_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(pack_logits([LOW, HIGH], SIZE, {"model": "m"}))
    first, second = load_mask_inputs(path, 2, SIZE)
    assert np.array_equal(first, LOW.logits[0])
    assert np.array_equal(second, HIGH.logits[1])
    with np.load(path, allow_pickle=False) as archive:
        assert archive["logits"].shape == (2, 2, 8, 8)
        assert json.loads(str(archive["meta"])) == {"model": "m"}
    path.write_bytes(pack_logits([HIGH], SIZE, {}))
    assert len(load_mask_inputs(path, 3, SIZE)) == 3


def arrays(**changes: Any) -> bytes:
    content = {"logits": np.zeros((1, 1, 8, 8), np.float32), "scores": np.zeros((1, 1), np.float32)}
    content.update(changes)
    buffer = BytesIO()
    np.savez(buffer, **{k: v for k, v in content.items() if v is not None})
    return buffer.getvalue()


def bomb() -> bytes:
    """An archive whose directory claims two gigabytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("logits.npy", b"x")
        archive.filelist[0].file_size = 2 * 1024**3
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as NPZ"),
        (b"PK\x03\x04 not really", "cannot be read as NPZ"),
        (arrays()[:200], "cannot be read as NPZ"),
        (arrays(scores=None), "no scores"),
        (arrays(logits=np.zeros((8, 8), np.float32)), "shape"),
        (arrays(logits=np.zeros((1, 1, 8, 8))), "float64"),
        (arrays(logits=np.full((1, 1, 8, 8), np.nan, np.float32)), "NaN"),
        (arrays(logits=np.array([None])), "cannot be read as NPZ"),
        (arrays(original_size=np.array([1, 2])), "use the file of this image"),
        (arrays(original_size=np.array(["a"])), "use the file of this image"),
        (bomb(), "1 GiB|cannot be read"),
    ],
)
def test_damaged_logits_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=words) as caught:
        load_mask_inputs(path, 1, SIZE)
    assert "\n" not in str(caught.value)


def test_missing_logits_and_wrong_numbers(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="does not exist"):
        load_mask_inputs(tmp_path / "none.npz", 1, SIZE)
    with pytest.raises(PromptError, match="no regular file"):
        load_mask_inputs(tmp_path, 1, SIZE)
    path = tmp_path / "a.npz"
    path.write_bytes(pack_logits([LOW, HIGH], SIZE, {}))
    with pytest.raises(PromptError, match="masks of 2 prompts, this run has 3"):
        load_mask_inputs(path, 3, SIZE)
