"""Everything mode finds what the generator of `segment_anything` finds on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.imaging import rle_to_mask

Records = list[dict[str, Any]]
Generate = Callable[..., Records]
LEAST_IOU = 0.99


def drawing(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture with discs and a little noise, (H, W, 3)."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    values = 110 + 50 * np.sin(x / 31)[..., None] * np.cos(y[..., None] / 23 + np.arange(3))
    for _ in range(12):
        cx, cy, radius = rng.uniform([0, 0, 10], [width, height, 60])
        values[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return np.clip(values + rng.normal(0, 4, values.shape), 0, 255).astype(np.uint8)


def between(values: list[float], share: float) -> float:
    """A threshold near this quantile, in the widest gap around it: rounding cannot matter."""
    ordered = np.unique(np.float64(values))
    place = int(share * (len(ordered) - 1))
    low, high = max(0, place - 3), min(len(ordered) - 2, place + 3)
    gap = low + int(np.argmax(np.diff(ordered[low : high + 2])))
    return float(ordered[gap] + ordered[gap + 1]) / 2


def mask_of(record: dict[str, Any]) -> NDArray[np.bool_]:
    segmentation = record["segmentation"]
    return segmentation if isinstance(segmentation, np.ndarray) else rle_to_mask(segmentation)


def assert_same(theirs: Records, ours: Records) -> None:
    """The same masks in any order, and the same figures."""
    assert len(theirs) == len(ours)
    left = list(ours)
    for record in theirs:
        mask = mask_of(record)
        alike = [r for r in left if r["crop_box"] == record["crop_box"]]
        alike = [r for r in alike if np.allclose(r["point_coords"], record["point_coords"])]
        alike.sort(key=lambda r: abs(r["predicted_iou"] - record["predicted_iou"]))
        assert alike, f"no mask for {record['point_coords']}"
        mine = alike[0]
        left = [r for r in left if r is not mine]
        other = mask_of(mine)
        assert (mask & other).sum() >= LEAST_IOU * (mask | other).sum()
        assert mine["area"] == pytest.approx(record["area"], rel=0.01, abs=2)
        np.testing.assert_allclose(mine["bbox"], record["bbox"], atol=1)
        assert mine["predicted_iou"] == pytest.approx(record["predicted_iou"], abs=1e-4)
        assert mine["stability_score"] == pytest.approx(record["stability_score"], abs=2e-3)
        assert mine.keys() == record.keys()
        assert [type(v) for v in mine["bbox"]] == [type(v) for v in record["bbox"]]


def thresholds(ours: Generate, image: NDArray[np.uint8], share: float, **options: Any) -> Any:
    """Options of both filters that let through about this share each."""
    everything = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    found = ours(image, **{**options, **everything, "output_mode": "coco_rle"})
    return {
        "pred_iou_thresh": between([r["predicted_iou"] for r in found], 1 - share),
        "stability_score_thresh": between([r["stability_score"] for r in found], 1 - share),
    }


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_blobs(blobs: tuple[Generate, Generate], mode: str) -> None:
    if mode == "coco_rle":
        pytest.importorskip("pycocotools")
    theirs, ours = blobs
    image = drawing(260, 350)
    options = {"points_per_side": 12, **thresholds(ours, image, 0.7, points_per_side=12)}
    expected = theirs(image, output_mode=mode, **options)
    assert 10 <= len(expected) <= 200
    assert_same(expected, ours(image, output_mode=mode, **options))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((300, 420), {"crop_n_layers": 1}),
        ((420, 260), {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2}),
        ((300, 420), {"crop_n_layers": 1, "crop_overlap_ratio": 0.5, "crop_nms_thresh": 0.4}),
    ],
)
def test_crops(
    blobs: tuple[Generate, Generate], size: tuple[int, int], options: dict[str, Any]
) -> None:
    theirs, ours = blobs
    image = drawing(*size)
    options = {"points_per_side": 8, "output_mode": "uncompressed_rle", **options}
    options.update(thresholds(ours, image, 0.8, **options))
    expected = theirs(image, **options)
    crops = {tuple(record["crop_box"]) for record in expected}
    assert len(expected) >= 20
    assert len(crops) > 3
    assert_same(expected, ours(image, **options))


def test_small_regions(blobs: tuple[Generate, Generate]) -> None:
    pytest.importorskip("cv2")
    theirs, ours = blobs
    image = drawing(240, 300)
    options = {"points_per_side": 10, "stability_score_offset": 0.5, "box_nms_thresh": 0.8}
    options.update(thresholds(ours, image, 0.8, **options))
    before = ours(image, **options)
    options["min_mask_region_area"] = 400
    expected, found = theirs(image, **options), ours(image, **options)
    assert_same(expected, found)
    assert sum(r["area"] for r in found) != sum(r["area"] for r in before)


def test_own_points(blobs: tuple[Generate, Generate]) -> None:
    theirs, ours = blobs
    image = drawing(200, 300)
    grids = [np.random.default_rng(4).uniform(0, 1, (count, 2)) for count in (30, 9)]
    options: dict[str, Any] = {"point_grids": grids, "points_per_side": None, "crop_n_layers": 1}
    options.update(thresholds(ours, image, 0.8, **options))
    expected = theirs(image, **options)
    assert len(expected) >= 5
    assert_same(expected, ours(image, **options))


def test_a_networks_masks(mobile_sam: tuple[Generate, Generate]) -> None:
    theirs, ours = mobile_sam
    image = drawing(180, 240)
    options: dict[str, Any] = {
        "points_per_side": 6,
        "stability_score_offset": 0.05,
        "box_nms_thresh": 1.0,  # random weights give masks that span the image
        "output_mode": "uncompressed_rle",
    }
    options.update(thresholds(ours, image, 0.6, **options))
    expected = theirs(image, **options)
    assert 10 <= len(expected) <= 100
    assert_same(expected, ours(image, **options))
