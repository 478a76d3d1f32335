"""Masks straight to run lengths, and box suppression: the kernels against their twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels, _kernels_runs, reference_runs

LEVELS: dict[str, float] = {"threshold": 0.2, "inner": 1.7, "outer": -1.1}


def smooth(seed: int, count: int, side: int) -> NDArray[np.float32]:
    """Blobs with flat surroundings and some noise, so that bounds decide much but not all."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    cy, cx, radius = rng.uniform(0.1, 0.9, (3, count, 1, 1))
    made = 40 * (radius * 0.4 - np.hypot(y - cy, x - cx)) + rng.normal(0, 0.8, (count, side, side))
    return np.clip(made, -12, 12).astype(np.float32)


def sizes(frame: int, out: tuple[int, int]) -> dict[str, Any]:
    scale = frame / max(out)
    crop = (max(1, round(out[0] * scale)), max(1, round(out[1] * scale)))
    return {"frame": (frame, frame), "crop": crop, "out": out}


CASES = [(32, (37, 41)), (64, (1, 300)), (256, (200, 133)), (128, (519, 701)), (16, (1, 1))]


@pytest.mark.parametrize(("frame", "out"), CASES)
def test_runs_equal_masks_made_one_step_at_a_time(
    frame: int, out: tuple[int, int], instruction_set: str
) -> None:
    logits = smooth(frame, 5, max(4, frame // 4))
    plan = sizes(frame, out)
    found = _kernels_runs.mask_runs(logits, threads=2, **plan, **LEVELS)
    masks = _kernels.masks_from_logits(logits, threshold=LEVELS["threshold"], **plan)
    full = _kernels.upscale_logits(logits, **plan)
    inner = (full > np.float32(LEVELS["inner"])).sum((1, 2))
    outer = (full > np.float32(LEVELS["outer"])).sum((1, 2))
    np.testing.assert_array_equal(found.stability, (inner / np.maximum(outer, 1)).astype("f4"))
    areas, boxes = _kernels.mask_stats(masks)
    np.testing.assert_array_equal(found.areas, areas)
    np.testing.assert_array_equal(found.boxes, boxes)
    for mask, counts in zip(masks, found.counts, strict=True):
        np.testing.assert_array_equal(counts, _kernels.rle_encode(mask))


@pytest.mark.parametrize("probability", [False, True])
def test_runs_equal_their_twin(probability: bool, instruction_set: str) -> None:
    levels = {"threshold": 0.5, "inner": 0.7, "outer": 0.3} if probability else LEVELS
    for seed, (frame, out) in enumerate(CASES):
        logits = smooth(seed, 4, max(4, frame // 4))
        options = {**sizes(frame, out), **levels, "probability": probability, "min_stability": 0.6}
        found = _kernels_runs.mask_runs(logits, **options)
        twin = reference_runs.mask_runs(logits, **options)
        np.testing.assert_allclose(found.stability, twin.stability, atol=0.02)
        for mine, other in zip(found.counts, twin.counts, strict=True):
            assert (mine is None) == (other is None)
            if mine is None or other is None:
                continue
            a, b = _kernels.rle_decode(mine, out), _kernels.rle_decode(other, out)
            assert (a != b).mean() < 1e-3  # samples within rounding of a level
        stable = found.stability >= np.float32(0.6)
        assert [c is not None for c in found.counts] == stable.tolist()
        assert not found.areas[~stable].any()


def test_not_finite_logits_are_counted_as_they_are(instruction_set: str) -> None:
    logits = np.full((2, 16, 16), 5.0, np.float32)
    logits[0, 4:8, 4:8] = np.nan
    logits[1] = -5.0
    found = _kernels_runs.mask_runs(logits, **sizes(16, (16, 16)))
    assert found.stability.tolist() == [1.0, 0.0]
    assert found.areas.tolist() == [256 - 16, 0]
    assert found.counts[1] is not None
    assert found.counts[1].tolist() == [256]


def test_results_do_not_depend_on_threads() -> None:
    logits = smooth(5, 9, 64)
    plan = sizes(256, (700, 500))
    first = _kernels_runs.mask_runs(logits, threads=1, **plan)
    for threads in (2, 3, 50):
        again = _kernels_runs.mask_runs(logits, threads=threads, **plan)
        np.testing.assert_array_equal(first.stability, again.stability)
        for a, b in zip(first.counts, again.counts, strict=True):
            np.testing.assert_array_equal(a, b)


def test_levels_out_of_order_are_refused() -> None:
    logits = np.zeros((1, 4, 4), np.float32)
    plan = sizes(4, (4, 4))
    for levels in ({"inner": -0.5}, {"outer": 0.5}, {"inner": float("nan")}):
        with pytest.raises(ValueError, match=r"outer <= threshold <= inner|finite"):
            _kernels_runs.mask_runs(logits, **plan, **levels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_stability"):
        _kernels_runs.mask_runs(logits, **plan, min_stability=float("inf"))
    with pytest.raises(TypeError, match="float32"):
        _kernels_runs.mask_runs(logits.astype(np.float64), **plan)  # type: ignore[arg-type]


def test_placed_runs_equal_their_twin() -> None:
    rng = np.random.default_rng(8)
    for _ in range(300):
        h, w = (int(v) for v in rng.integers(1, 9, 2))
        top, left, bottom, right = (int(v) for v in rng.integers(0, 4, 4))
        mask = rng.random((h, w)) < rng.choice([0.0, 0.3, 0.7, 1.0])
        where = ((h, w), (top, left), (h + top + bottom, w + left + right))
        counts = _kernels.rle_encode(mask)
        expected = reference_runs.place_runs(counts, *where)
        np.testing.assert_array_equal(_kernels_runs.place_runs(counts, *where), expected)


def test_placing_outside_is_refused() -> None:
    counts = np.array([6], np.uint32)
    with pytest.raises(ValueError, match="must lie within whole"):
        _kernels_runs.place_runs(counts, (2, 3), (0, 1), (2, 3))
    with pytest.raises(ValueError, match="must lie within whole"):
        _kernels_runs.place_runs(counts, (2, 3), (-1, 0), (9, 9))
    with pytest.raises(ValueError, match="counts sum to 6"):
        _kernels_runs.place_runs(counts, (2, 2), (0, 0), (9, 9))


def test_suppression_equals_its_twin() -> None:
    rng = np.random.default_rng(9)
    for count in (1, 2, 40, 400):
        corners = rng.integers(0, 30, (count, 2, 2)).astype(np.float32)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)  # some without area
        scores = rng.integers(0, 9, count).astype(np.float32)  # many equal
        for threshold in (0.0, 0.3, 0.7, 1.0):
            kept = _kernels_runs.box_nms(boxes, scores, threshold)
            expected = reference_runs.box_nms(boxes, scores, threshold)
            np.testing.assert_array_equal(kept, expected)
            assert (np.diff(scores[kept]) <= 0).all()


def test_suppression_refuses_what_it_cannot_order() -> None:
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    for bad in (np.array([0, np.nan], np.float32), np.zeros(3, np.float32)):
        with pytest.raises(ValueError, match="scores"):
            _kernels_runs.box_nms(boxes, bad, 0.5)
    with pytest.raises(ValueError, match="boxes must be"):
        _kernels_runs.box_nms(boxes[:, :3].copy(), scores, 0.5)
