"""Figures against independent implementations: all pairs by hand, surface-distance, MedPy."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.evaluation.metrics import Truth, dice, ellipse_in, iou, measure, overlap
from samrt.evaluation.surfaces import border_pixels, elements

pytest.importorskip("scipy")

Mask = NDArray[np.bool_]
SPACINGS = [None, (1.0, 1.0), (0.7, 0.7), (0.5, 1.25)]


def blob(seed: int, size: tuple[int, int] = (40, 52)) -> Mask:
    """A random shape: a union of a few boxes with salt, with holes, sometimes at the edge."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.bool_)
    for _ in range(4):
        y, x = rng.integers(0, size[0] - 5), rng.integers(0, size[1] - 5)
        mask[y : y + rng.integers(2, 18), x : x + rng.integers(2, 22)] ^= True
    return mask ^ (rng.random(size) < 0.01)


PAIRS = [(blob(seed), blob(seed + 100)) for seed in range(8)]


def all_pairs(a: Mask, b: Mask, spacing: tuple[float, float]) -> tuple[Any, Any]:
    """Distances of each border pixel to the other border, by trying all of them."""

    def border(mask: Mask) -> NDArray[np.float64]:
        found = []
        for y, x in itertools.product(*(range(n) for n in mask.shape)):
            if mask[y, x]:
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = all(
                    0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c]
                    for r, c in around
                )
                if not inside:
                    found.append((y * spacing[0], x * spacing[1]))
        return np.array(found)

    one, two = border(a), border(b)
    table = np.hypot(*(one[:, None, :] - two[None, :, :]).transpose(2, 0, 1))
    return table.min(axis=1), table.min(axis=0)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("number", range(4))
def test_distances_equal_those_of_all_pairs(
    number: int, spacing: tuple[float, float] | None
) -> None:
    a, b = PAIRS[number]
    found = measure(a, Truth(b, spacing))
    for unit, scale in (("", (1.0, 1.0)), ("_mm", spacing)):
        if scale is None:
            assert "hd_mm" not in found
            continue
        there, back = all_pairs(a, b, scale)
        both = np.concatenate([there, back])
        assert found[f"hd{unit}"] == pytest.approx(both.max(), abs=1e-9)
        assert found[f"hd95{unit}"] == pytest.approx(np.percentile(both, 95), abs=1e-9)
        assert found[f"asd{unit}"] == pytest.approx(both.mean(), abs=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tolerance", [0.4, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("pair", PAIRS)
def test_nsd_equals_the_package_surface_distance(
    pair: tuple[Mask, Mask], tolerance: float, spacing: tuple[float, float] | None
) -> None:
    package = pytest.importorskip("surface_distance")
    a, b = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        lines = package.compute_surface_distances(b, a, spacing or (1.0, 1.0))
    wanted = package.compute_surface_dice_at_tolerance(lines, tolerance)
    found = measure(a, Truth(b, spacing, tolerance))["nsd"]
    assert found == pytest.approx(wanted, abs=1e-9)
    assert found is not None
    assert 0.0 < found < 1.0


def test_distances_equal_medpy() -> None:
    """MedPy is no dependency of the tests (its licence is GPL); installed by hand it is used."""
    medpy = pytest.importorskip("medpy.metric.binary")
    for pair, spacing in itertools.product(PAIRS, (None, (0.5, 1.25))):
        found = measure(pair[0], Truth(pair[1], spacing))
        unit = "" if spacing is None else "_mm"
        assert found[f"hd{unit}"] == pytest.approx(medpy.hd(*pair, spacing), abs=1e-9)
        assert found[f"hd95{unit}"] == pytest.approx(medpy.hd95(*pair, spacing), abs=1e-9)
        assert found[f"asd{unit}"] == pytest.approx(medpy.assd(*pair, spacing), abs=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_hausdorff_equals_scipy(pair: tuple[Mask, Mask]) -> None:
    from scipy.spatial.distance import directed_hausdorff

    one, two = (border_pixels(mask).astype(np.float64) for mask in pair)
    wanted = max(directed_hausdorff(one, two)[0], directed_hausdorff(two, one)[0])
    assert measure(pair[0], Truth(pair[1]))["hd"] == pytest.approx(wanted, abs=1e-9)


def test_overlap_by_hand() -> None:
    a, b = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    a[0, :3], b[0, 1:] = True, True
    assert overlap(a, b) == (pytest.approx(4 / 6), pytest.approx(2 / 4))
    assert (dice(a, b), iou(a, b)) == overlap(a, b)
    empty = np.zeros_like(a)
    assert overlap(empty, empty) == (1.0, 1.0)
    assert overlap(a, empty) == (0.0, 0.0)


def test_one_empty_mask_has_no_distance() -> None:
    full, empty = np.ones((5, 6), np.bool_), np.zeros((5, 6), np.bool_)
    for answer, truth in ((empty, full), (full, empty)):
        found = measure(answer, Truth(truth, (1.0, 2.0)))
        assert [found[k] for k in ("hd", "hd95", "asd", "hd_mm", "hd95_mm", "asd_mm")] == [None] * 6
        assert (found["dice"], found["nsd"]) == (0.0, 0.0)
    assert measure(empty, Truth(empty))["nsd"] == 1.0


def test_equal_masks_are_perfect() -> None:
    mask = blob(3)
    found = measure(mask, Truth(mask, (0.5, 0.9)))
    assert (found["dice"], found["iou"], found["nsd"]) == (1.0, 1.0, 1.0)
    assert (found["hd"], found["asd_mm"]) == (0.0, 0.0)


def test_the_outline_of_a_square_has_cut_corners() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[2:6, 3:7] = True
    places, lengths = elements(mask, (1.0, 1.0))
    assert len(places) == 16
    assert lengths.sum() == pytest.approx(12 + 4 * math.sqrt(0.5))


@pytest.mark.parametrize(
    ("spacing", "tolerance", "word"),
    [((0.0, 1.0), 2.0, "spacing"), ((math.nan, 1.0), 2.0, "spacing"), (None, 0.0, "tolerance"),
     (None, math.inf, "tolerance")],
)  # fmt: skip
def test_nonsense_is_refused(
    spacing: tuple[float, float] | None, tolerance: float, word: str
) -> None:
    with pytest.raises(OptionError, match=word):
        Truth(np.ones((3, 3), np.bool_), spacing, tolerance)


def test_the_ellipse_fills_its_box() -> None:
    mask = ellipse_in((10, 5, 29, 14), (30, 40))
    assert mask.sum() == pytest.approx(math.pi * 10 * 5, rel=0.02)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (5, 14, 10, 29)
