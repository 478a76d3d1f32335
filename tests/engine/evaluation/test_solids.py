"""3-D figures against independent implementations: distance maps, all pairs, MedPy, by hand."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import ExtraUnavailableError, OptionError
from samrt.evaluation.solids import measure_solid
from samrt.evaluation.surfaces import border_pixels

ndimage = pytest.importorskip("scipy.ndimage")
package = pytest.importorskip("surface_distance", reason="surface-distance is not installed")

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
SPACINGS: list[Spacing | None] = [None, (1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (2.5, 0.5, 1.25)]


def lump(seed: int, size: tuple[int, int, int] = (9, 22, 26)) -> Mask:
    """A random body: boxes that cancel each other, salt, holes, sometimes at the edge."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.bool_)
    for _ in range(4):
        z, y, x = (int(rng.integers(0, n - 3)) for n in size)
        mask[
            z : z + rng.integers(2, 6), y : y + rng.integers(3, 12), x : x + rng.integers(3, 14)
        ] ^= True
    return mask ^ (rng.random(size) < 0.003)


PAIRS = [(lump(seed), lump(seed + 50)) for seed in range(5)]


def by_distance_maps(a: Mask, b: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Both directions' surface distances as MedPy computes them: erosion and distance maps."""
    cross = ndimage.generate_binary_structure(3, 1)

    def one_way(mask: Mask, other: Mask) -> Any:
        line, aim = (m & ~ndimage.binary_erosion(m, cross) for m in (mask, other))
        return ndimage.distance_transform_edt(~aim, sampling=spacing)[line]

    return np.concatenate([one_way(a, b), one_way(b, a)])


def nsd_by_all_pairs(a: Mask, b: Mask, spacing: Spacing, tolerance: float) -> float:
    """Areas from the package's table, places and distances by trying all of them."""
    from surface_distance import lookup_tables

    areas = lookup_tables.create_table_neighbour_code_to_surface_area(np.array(spacing))
    found = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        places, sizes = [], []
        for place in itertools.product(*(range(n - 1) for n in padded.shape)):
            cube = padded[tuple(slice(k, k + 2) for k in place)]
            code = int((cube * lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL).sum())
            if code not in (0, 255):
                places.append(np.array(place) * spacing)
                sizes.append(areas[code])
        found.append((np.array(places), np.array(sizes)))
    (one, size_one), (two, size_two) = found
    table = np.linalg.norm(one[:, None] - two[None], axis=-1)
    near = size_one[table.min(1) <= tolerance].sum() + size_two[table.min(0) <= tolerance].sum()
    return float(near / (size_one.sum() + size_two.sum()))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("pair", PAIRS)
def test_distances_equal_those_of_distance_maps(pair: tuple[Mask, Mask], spacing: Spacing) -> None:
    found = measure_solid(*pair, spacing)
    both = by_distance_maps(*pair, spacing or (1.0, 1.0, 1.0))
    assert found["hd"] == pytest.approx(both.max(), abs=1e-9)
    assert found["hd95"] == pytest.approx(np.percentile(both, 95), abs=1e-9)
    assert found["asd"] == pytest.approx(both.mean(), abs=1e-9)
    assert 0.0 < found["asd"] < found["hd95"] <= found["hd"]


@pytest.mark.parametrize("tolerance", [0.8, 2.0])
@pytest.mark.parametrize("spacing", SPACINGS[1:])
def test_nsd_equals_all_pairs(spacing: Spacing, tolerance: float) -> None:
    """Spacing belongs to slices, rows and columns in this order; cropping changes nothing."""
    for a, b in PAIRS[:2]:
        wanted = nsd_by_all_pairs(a, b, spacing, tolerance)
        assert measure_solid(a, b, spacing, tolerance)["nsd"] == pytest.approx(wanted, abs=1e-6)
        assert 0.0 < wanted < 1.0


def test_distances_equal_medpy() -> None:
    """MedPy is no dependency of the tests (its licence is GPL); installed by hand it is used."""
    medpy = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    for pair, spacing in itertools.product(PAIRS, SPACINGS):
        found = measure_solid(*pair, spacing)
        assert found["hd"] == pytest.approx(medpy.hd(*pair, spacing), abs=1e-9)
        assert found["hd95"] == pytest.approx(medpy.hd95(*pair, spacing), abs=1e-9)
        assert found["asd"] == pytest.approx(medpy.assd(*pair, spacing), abs=1e-9)
        assert found["dice"] == pytest.approx(medpy.dc(*pair), abs=1e-12)
        assert found["iou"] == pytest.approx(medpy.jc(*pair), abs=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_along_one_axis_is_that_many_millimetres(axis: int) -> None:
    spacing = (3.0, 0.5, 1.25)
    a = np.zeros((14, 14, 14), np.bool_)
    a[4:9, 4:9, 4:9] = True
    b = np.roll(a, 2, axis)
    found = measure_solid(a, b, spacing)
    assert found["hd"] == pytest.approx(2 * spacing[axis])
    assert found["dice"] == pytest.approx(3 / 5)
    assert found["iou"] == pytest.approx(3 / 7)
    assert measure_solid(a, b, spacing, 2 * spacing[axis])["nsd"] == pytest.approx(1.0)
    assert measure_solid(a, b, spacing, 2 * spacing[axis] - 0.01)["nsd"] < 0.999


def test_places_far_apart_in_a_large_volume() -> None:
    """Only what holds something is looked at, so size and place do not matter."""
    small = lump(1)
    large = np.zeros((60, 80, 90), np.bool_)
    moved = large.copy()
    large[40:49, 50:72, 60:86] = small
    moved[40:49, 50:72, 60:86] = lump(2)
    spacing = (2.0, 0.8, 0.9)
    assert measure_solid(large, moved, spacing) == measure_solid(small, lump(2), spacing)


def test_empty_masks_and_equal_ones() -> None:
    full, empty = np.ones((3, 5, 6), np.bool_), np.zeros((3, 5, 6), np.bool_)
    for pair in ((empty, full), (full, empty)):
        found = measure_solid(*pair, (1.0, 2.0, 3.0))
        assert [found[k] for k in ("hd", "hd95", "asd")] == [None] * 3
        assert (found["dice"], found["iou"], found["nsd"]) == (0.0, 0.0, 0.0)
    assert measure_solid(empty, empty, None)["nsd"] == 1.0
    same = measure_solid(full, full, None)
    assert (same["dice"], same["nsd"], same["hd"]) == (1.0, 1.0, 0.0)


def test_border_voxels_have_a_neighbour_outside() -> None:
    mask = np.zeros((5, 6, 7), np.bool_)
    mask[1:4, 1:5, 1:6] = True
    border = border_pixels(mask)
    assert len(border) == 3 * 4 * 5 - 1 * 2 * 3
    assert not (border == [2, 2, 3]).all(axis=1).any()


@pytest.mark.parametrize(
    ("spacing", "tolerance", "word"),
    [
        ((1.0, 0.0, 1.0), 2.0, "spacing"),
        ((1.0, math.nan, 1.0), 2.0, "spacing"),
        ((1.0, 1.0), 2.0, "spacing"),
        (None, 0.0, "tolerance"),
        (None, math.inf, "tolerance"),
    ],
)
def test_numbers_that_mean_nothing(spacing: Any, tolerance: float, word: str) -> None:
    mask = np.ones((2, 3, 4), np.bool_)
    with pytest.raises(OptionError, match=word):
        measure_solid(mask, mask, spacing, tolerance)


def test_shapes_must_agree() -> None:
    mask = np.ones((2, 3, 4), np.bool_)
    with pytest.raises(OptionError, match="shapes"):
        measure_solid(mask, mask[:1], None)
    with pytest.raises(OptionError, match="shapes"):
        measure_solid(mask[0], mask[0], None)


def test_the_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "surface_distance", None)
    mask = np.ones((2, 3, 4), np.bool_)
    with pytest.raises(ExtraUnavailableError, match=r"samrt\[eval\]"):
        measure_solid(mask, mask, None)


def test_no_warning_of_the_package_comes_through() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_solid(*PAIRS[0], (1.0, 1.0, 1.0))
