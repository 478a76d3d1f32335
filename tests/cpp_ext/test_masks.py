"""Measures, run lengths, regions and outlines of masks: the kernels against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels, reference

Mask = NDArray[np.bool_]


def masks() -> list[Mask]:
    """Empty, full, single pixels, lines, noise of several densities, smooth shapes."""
    rng = np.random.default_rng(21)
    made = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool)]
    made += [np.eye(9, dtype=bool), ~np.eye(9, dtype=bool), np.indices((8, 9)).sum(0) % 2 == 1]
    for height, width in ((1, 70), (70, 1), (33, 65), (64, 32), (41, 97), (3, 200)):
        made += [rng.random((height, width)) < density for density in (0.03, 0.3, 0.5, 0.7, 0.97)]
    y, x = np.mgrid[:90, :131]
    disk = np.hypot(y - 40, x - 60) < 35
    made += [disk, disk & (np.hypot(y - 35, x - 55) > 12), (np.hypot(y - 40, x - 60) // 7) % 2 == 0]
    corner = np.zeros((40, 50), bool)
    corner[-1, -1] = corner[0, 0] = True
    return [*made, corner, ~corner]


def test_stats() -> None:
    for mask in masks():
        both = np.stack([mask, mask[::-1, ::-1]])
        areas, boxes = _kernels.mask_stats(both)
        expected = reference.mask_stats(both)
        np.testing.assert_array_equal(areas, expected[0])
        np.testing.assert_array_equal(boxes, expected[1])
        assert areas.dtype == boxes.dtype == np.int64


def test_run_lengths_and_back() -> None:
    for mask in masks():
        counts = _kernels.rle_encode(mask)
        np.testing.assert_array_equal(counts, reference.rle_encode(mask))
        np.testing.assert_array_equal(_kernels.rle_decode(counts, mask.shape), mask)
        text = _kernels.rle_to_string(counts)
        assert text == reference.rle_to_string(counts)
        np.testing.assert_array_equal(_kernels.rle_from_string(text), counts)
        np.testing.assert_array_equal(reference.rle_from_string(text), counts)


def test_run_lengths_of_a_known_mask() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert _kernels.rle_encode(mask).tolist() == [2, 3, 1]
    assert _kernels.rle_encode(~mask).tolist() == [0, 2, 3, 1]
    assert _kernels.rle_encode(np.zeros((2, 3), bool)).tolist() == [6]
    assert _kernels.rle_to_string(np.array([2, 3, 1], np.uint32)) == b"231"


def test_decoding_ignores_empty_runs() -> None:
    counts = np.array([1, 0, 2, 1, 0, 2, 0, 0], np.uint32)
    np.testing.assert_array_equal(
        _kernels.rle_decode(counts, (2, 3)), reference.rle_decode(counts, (2, 3))
    )


def test_compressed_form_holds_large_and_falling_counts() -> None:
    rng = np.random.default_rng(22)
    for top in (1, 31, 32, 1023, 1024, 2**31, 2**32 - 1):
        counts = rng.integers(0, top, 50, dtype=np.uint32, endpoint=True)
        text = _kernels.rle_to_string(counts)
        assert text == reference.rle_to_string(counts)
        np.testing.assert_array_equal(_kernels.rle_from_string(text), counts)


def test_damaged_compressed_form() -> None:
    rng = np.random.default_rng(23)
    for text in (b"\xff", b"0 1", b"P", b"11P", b"oooooooooo0", b"/"):
        with pytest.raises(ValueError, match="compressed run length"):
            _kernels.rle_from_string(text)
    for _ in range(2000):  # any bytes give counts or a ValueError
        text = rng.integers(40, 115, rng.integers(0, 12), dtype=np.uint8).tobytes()
        try:
            counts = _kernels.rle_from_string(text)
        except ValueError:
            continue
        np.testing.assert_array_equal(reference.rle_from_string(text), counts)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components(connectivity: int) -> None:
    for mask in masks():
        labels, n = _kernels.connected_components(mask, connectivity)
        expected, count = reference.connected_components(mask, connectivity)
        assert n == count
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_of_a_large_mask_equal_those_of_opencv(connectivity: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(24)
    for density in (0.02, 0.4, 0.55, 0.6, 0.95):
        mask = rng.random((700, 523)) < density
        n, theirs = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
        labels, count = _kernels.connected_components(mask, connectivity)
        assert count == n - 1
        pairs = np.unique(np.stack([labels.ravel(), theirs.ravel()]), axis=1)
        assert pairs.shape[1] == n  # one to one
        first = np.unique(labels, return_index=True)[1]
        assert (np.diff(first[labels.ravel()[first] > 0]) > 0).all()  # in scan order


@pytest.mark.parametrize("mode", ["holes", "islands"])
@pytest.mark.parametrize("min_area", [0, 1, 2.5, 9, 100, 1e9])
def test_small_regions(mode: str, min_area: float) -> None:
    for mask in masks():
        got, changed = _kernels.remove_small_regions(mask, min_area, mode)
        expected, would_change = reference.remove_small_regions(mask, min_area, mode)
        np.testing.assert_array_equal(got, expected)
        assert changed == would_change


def test_small_regions_keep_the_first_of_equal_islands() -> None:
    mask = np.zeros((5, 9), bool)
    mask[1, 6:8] = mask[3, 1:3] = True
    mask[4, 8] = True
    got, changed = _kernels.remove_small_regions(mask, 10, "islands")
    assert changed
    assert got.sum() == 2
    assert got[1, 6:8].all()


def fill_even_odd(polygons: list[list[NDArray[np.float64]]], shape: tuple[int, ...]) -> Mask:
    """A pixel is inside if a ray to the left of its centre crosses an odd number of edges."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for rings in polygons:
        for ring in rings:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                assert (x0 == x1) != (y0 == y1)  # along one axis, never of no length
                if x0 == x1:
                    crossings[int(min(y0, y1)) : int(max(y0, y1)), int(x0)] += 1
    return np.asarray(np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def signed_area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_outlines() -> None:
    for mask in masks():
        polygons = _kernels.mask_polygons(mask)
        expected = reference.mask_polygons(mask)
        assert [len(p) for p in polygons] == [len(p) for p in expected]
        for rings, expected_rings in zip(polygons, expected, strict=True):
            for ring, expected_ring in zip(rings, expected_rings, strict=True):
                np.testing.assert_array_equal(ring, expected_ring)
        np.testing.assert_array_equal(fill_even_odd(polygons, mask.shape), mask)
        labels, n = _kernels.connected_components(mask, 4)
        assert len(polygons) == n
        for label, rings in enumerate(polygons, start=1):
            areas = [signed_area(ring) for ring in rings]
            assert areas[0] > 0  # clockwise with y down
            assert all(area < 0 for area in areas[1:])
            assert sum(areas) == (labels == label).sum()
            for ring in rings:
                turned = np.roll(ring, -1, axis=0) - ring
                assert (turned[:, 0] * np.roll(turned[:, 0], 1) == 0).all()  # no straight corner


def test_outline_of_a_known_mask() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    ((outline, hole),) = _kernels.mask_polygons(mask)
    assert outline.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert sorted(hole.tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    touching = _kernels.mask_polygons(np.eye(2, dtype=bool))
    assert [[len(ring) for ring in rings] for rings in touching] == [[4], [4]]


def test_any_byte_but_zero_is_inside() -> None:
    """A uint8 mask of 0 and 255 that is viewed as bool counts like one of 0 and 1."""
    for mask in masks():
        odd = (mask * np.random.default_rng(25).integers(1, 256, mask.shape)).astype(np.uint8)
        other = odd.view(bool)
        assert _kernels.mask_stats(other[None])[0][0] == mask.sum()
        np.testing.assert_array_equal(_kernels.rle_encode(other), _kernels.rle_encode(mask))
        for a, b in (
            (_kernels.connected_components(other), _kernels.connected_components(mask)),
            (
                _kernels.remove_small_regions(other, 5, "islands"),
                _kernels.remove_small_regions(mask, 5, "islands"),
            ),
        ):
            np.testing.assert_array_equal(a[0], b[0])
            assert a[1] == b[1]
        assert len(_kernels.mask_polygons(other)) == len(_kernels.mask_polygons(mask))
