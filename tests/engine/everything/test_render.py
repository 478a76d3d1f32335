"""Files of everything mode."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt import _kernels
from samrt.errors import ImageError
from samrt.everything.findings import Findings, Masks
from samrt.everything.render import label_map, render
from samrt.imaging import rle_to_mask
from samrt.imaging.colours import MOST_COLOURS, distinct
from samrt.imaging.overlay import draw_masks


def findings(masks: list[NDArray[np.bool_]]) -> Findings:
    count = len(masks)
    _, boxes = _kernels.mask_stats(np.stack(masks))
    table = Masks(
        [_kernels.rle_encode(mask) for mask in masks],
        boxes - np.array([0, 0, 1, 1]),
        np.linspace(0.5, 0.9, count, dtype=np.float32),
        np.full(count, 0.8, np.float32),
        boxes[:, :2].astype(np.float64),
        np.tile(np.array([0, 0, 50, 40]), (count, 1)),
    )
    return Findings(table, (40, 50))


def squares() -> list[NDArray[np.bool_]]:
    """A small square inside a large one, and one beside."""
    masks = [np.zeros((40, 50), bool) for _ in range(3)]
    masks[0][10:14, 10:14] = True
    masks[1][5:30, 5:30] = True
    masks[2][2:9, 40:49] = True
    return masks


def test_small_masks_lie_above_large_ones_in_the_label_map() -> None:
    masks = squares()
    labels = label_map(findings(masks))
    assert labels.dtype == np.uint8
    assert (labels[masks[0]] == 1).all()
    assert (labels[masks[1] & ~masks[0]] == 2).all()
    assert (labels[masks[2]] == 3).all()
    assert not labels[~np.any(masks, axis=0)].any()
    assert label_map(findings(masks * 90)).dtype == np.uint16


def test_files_hold_the_masks() -> None:
    masks = squares()
    image = np.full((40, 50), 90, np.uint8)
    kinds = ("overlay", "label", "coco", "polygons", "mask")
    files = render(
        findings(masks), image, Path("out"), "scan", kinds, file_name="scan.png", facts={"samrt": 1}
    )
    names = [path.name for path in files]
    assert names == [
        "scan.overlay.png", "scan.labels.png", "scan.coco.json", "scan.polygons.geojson",
        "scan.m0.mask.png", "scan.m1.mask.png", "scan.m2.mask.png",
    ]  # fmt: skip
    content = {path.name: data for path, data in files.items()}
    coco = json.loads(content["scan.coco.json"])
    for mask, annotation in zip(masks, coco["annotations"], strict=True):
        np.testing.assert_array_equal(rle_to_mask(annotation["segmentation"]), mask)
        ys, xs = np.nonzero(mask)
        x, y, w, h = annotation["bbox"]
        assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert annotation["area"] == mask.sum()
    single = np.asarray(Image.open(io.BytesIO(content["scan.m1.mask.png"])))
    np.testing.assert_array_equal(single == 255, masks[1])
    shapes = json.loads(content["scan.polygons.geojson"])["features"]
    assert [f["properties"]["area_px"] for f in shapes] == [int(m.sum()) for m in masks]
    overlay = np.asarray(Image.open(io.BytesIO(content["scan.overlay.png"])))
    assert overlay.shape == (614, 768, 3)
    inside = [overlay[int(y * 15.35) + 8, int(x * 15.35) + 8] for y, x in ((11, 11), (20, 20))]
    assert np.abs(inside[0].astype(int) - inside[1]).max() > 15


def test_no_masks_give_files_too() -> None:
    empty = Findings(Masks.none(), (40, 50))
    image = np.zeros((40, 50, 3), np.uint8)
    kinds = ("overlay", "label", "coco", "mask")
    files = render(empty, image, Path(), "x", kinds, file_name="x.png", facts={})
    assert len(files) == 3
    assert not label_map(empty).any()


def test_masks_of_another_size_are_not_drawn() -> None:
    image = np.zeros((40, 50), np.uint8)
    with pytest.raises(ImageError, match=r"mask has shape \(3, 3\)"):
        draw_masks(image, [np.ones((3, 3), bool)], [(1, 2, 3)])


def test_colours_differ() -> None:
    colours = np.array(distinct(MOST_COLOURS), int)
    assert len(colours) == MOST_COLOURS
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert (apart + np.eye(len(colours)) * 999).min() >= 45
    assert distinct(3) == tuple(tuple(c) for c in colours[:3])
    assert len(distinct(10_000)) == MOST_COLOURS
