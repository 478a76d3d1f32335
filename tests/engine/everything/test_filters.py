"""What goes and what stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels
from samrt.everything.filters import (
    ends_at_crop_edge,
    inclusive,
    keep_best,
    without_small_regions,
)
from samrt.everything.grid import Crop


def test_far_edges_become_the_last_pixels() -> None:
    boxes = np.array([[2, 3, 7, 9], [0, 0, 0, 0], [4, 4, 5, 5]])
    assert inclusive(boxes).tolist() == [[2, 3, 6, 8], [0, 0, 0, 0], [4, 4, 4, 4]]


def test_edges_of_a_crop_count_but_not_those_of_the_image() -> None:
    crop = Crop((0, 100, 300, 400), 1)
    boxes = np.array(
        [
            [5, 200, 60, 300],  # at the left edge, which is the image's
            [100, 119, 200, 300],  # 19 pixels from the crop's upper edge
            [100, 121, 200, 300],
            [100, 200, 281, 300],  # 19 pixels from its right edge
            [100, 200, 200, 390],  # near its lower edge
        ]
    )
    found = ends_at_crop_edge(boxes, crop, (1000, 900))
    assert found.tolist() == [False, True, False, True, True]
    assert not ends_at_crop_edge(boxes, Crop((0, 0, 900, 1000), 0), (1000, 900)).any()


def test_the_best_of_overlapping_boxes_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
    kept = keep_best(boxes, np.array([0.5, 0.9, 0.2], np.float32), 0.7)
    assert kept.tolist() == [1, 2]
    assert keep_best(boxes[:0], np.zeros(0, np.float32), 0.7).tolist() == []


def runs(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return _kernels.rle_encode(mask)


def test_small_regions_go_and_the_box_follows() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:30, 10:40] = True
    mask[15:17, 15:17] = False
    mask[2, 2:5] = True
    counts, box, changed = without_small_regions(runs(mask), (40, 50), 10)
    cleaned = _kernels.rle_decode(counts, (40, 50))
    assert changed
    assert box.tolist() == [10, 10, 39, 29]
    assert cleaned.sum() == 20 * 30
    same, box, changed = without_small_regions(runs(mask), (40, 50), 2)
    assert not changed
    np.testing.assert_array_equal(same, runs(mask))
    assert box.tolist() == [2, 2, 39, 29]
