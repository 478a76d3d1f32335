"""Figures of difference against values worked out by hand or by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.verification.figures import ArrayTally, MaskTally, compare_masks, hd95


def square(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 50), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_masks_by_hand() -> None:
    found = compare_masks(square(10, 10, 20, 20), square(13, 10, 23, 20))
    assert found.iou == pytest.approx(70 / 130)
    assert found.dice == pytest.approx(140 / 200)
    assert found.hd95_px == pytest.approx(3.0)
    assert (found.flipped_px, found.pixels, found.informative) == (60, 2000, True)


def test_empty_and_full_masks() -> None:
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    both = compare_masks(empty, empty)
    assert (both.iou, both.dice, both.hd95_px, both.informative) == (1.0, 1.0, 0.0, False)
    assert not compare_masks(full, full).informative
    lost = compare_masks(full, empty)
    assert (lost.iou, lost.dice, lost.flipped_px) == (0.0, 0.0, 1200)
    assert lost.hd95_px == pytest.approx(50.0)
    appeared = compare_masks(empty, square(1, 1, 3, 3)[:30, :40])
    assert (appeared.iou, appeared.informative, appeared.hd95_px) == (0.0, False, 50.0)


def test_hd95_against_distances_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = rng.random((2, 17, 23)) < 0.2

        def border(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
            wide = np.pad(mask, 1)
            inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
            return np.argwhere(mask & ~inner)

        pairs = border(a)[:, None, :] - border(b)[None, :, :]
        distances = np.sqrt((pairs**2).sum(-1))
        wanted = max(
            np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95)
        )  # fmt: skip
        assert hd95(a, b) == pytest.approx(wanted, rel=1e-5)


def test_arrays_by_hand() -> None:
    tally = ArrayTally()
    tally.add("far", np.array([0.0, 2.0], np.float32), np.array([0.0, 3.0], np.float32))
    tally.add("near", np.array([1.0, 5.0], np.float32), np.array([1.0, 5.0], np.float32))
    found = tally.figures()
    assert (found.max_abs, found.mean_abs, found.comparisons) == (1.0, 0.25, 2)
    assert found.worst_case == "far"
    assert found.rms_rel_worst == pytest.approx(math.sqrt(0.5) / 1.0)
    assert found.rms_rel == pytest.approx(0.5 / np.std([0.0, 2.0, 1.0, 5.0]))
    assert found.cosine_worst == 1.0
    tally.add("turned", np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32))
    assert tally.figures().cosine_worst == 0.0


def test_constant_reference_gives_an_absolute_error() -> None:
    tally = ArrayTally()
    tally.add("flat", np.full(4, 3.0, np.float32), np.full(4, 3.5, np.float32))
    assert tally.figures().rms_rel_worst == pytest.approx(0.5)


def test_one_pixel_of_a_small_mask_is_excused_and_still_shown() -> None:
    tally = MaskTally(slack_px=2)
    small, smaller = square(5, 5, 8, 8), square(5, 5, 8, 8)
    smaller[5, 5] = False
    tally.add("small", compare_masks(small, smaller))
    assert tally.iou_worst == pytest.approx(8 / 9)
    assert (tally.iou_worst_judged, tally.excused, tally.worst_case) == (1.0, 1, "small")
    tally.add("large", compare_masks(small, square(5, 5, 8, 9)))
    assert tally.iou_worst_judged == pytest.approx(9 / 12)
