"""Masks of planes with uneven pixels lie on the grid that they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import samrt
from samrt.imaging.volumes.segment import Stretch, segment_plane, stretch_of
from samrt.imaging.volumes.volume import Volume, plane_of
from samrt.propagation import SliceMask, propagate


def volume_of(values: Any, spacing: tuple[float, float, float]) -> Volume:
    affine = np.diag([*spacing[::-1], 1.0])
    return Volume(values, affine, (-160.0, 240.0), "v", "", "NIFTI", "int16", 16, {})


def item_of(mask: Any) -> SliceMask:
    return SliceMask(0, 0.9, 0.9, None, int(mask.sum()), (0, 0, 1, 1), (2.0, 4.0, 6.0, 8.0),
                     np.packbits(mask), mask.shape)  # fmt: skip


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 1), (1, 3)])
def test_there_and_back(rows: int, columns: int) -> None:
    stretch = Stretch(rows, columns)
    small = np.random.default_rng(0).random((7, 9)) > 0.5
    large = small.repeat(rows, axis=0).repeat(columns, axis=1)
    back = stretch.restore(item_of(large))
    np.testing.assert_array_equal(back.mask, small)
    assert back.area_px == small.sum()
    ys, xs = np.nonzero(small)
    assert back.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert stretch.box(back.prompt_box) == (2.0, 4.0, 6.0, 8.0)
    ramp = np.arange(63, dtype=np.int16).reshape(7, 9)
    picture = stretch.picture(ramp)
    assert picture.shape == (7 * rows, 9 * columns)
    means = picture.reshape(7, rows, 9, columns).mean(axis=(1, 3))
    np.testing.assert_allclose(means[1:-1, 1:-1], ramp[1:-1, 1:-1], atol=1e-4)
    assert stretch.restore(item_of(np.zeros_like(large))).box == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("spacing", "plane", "expected"),
    [
        ((3.0, 0.8, 0.7), "axial", Stretch()),
        ((3.0, 0.8, 0.7), "coronal", Stretch(rows=4)),
        ((3.0, 0.8, 0.7), "sagittal", Stretch(rows=4)),
        ((0.5, 1.6, 1.5), "coronal", Stretch(columns=3)),
        ((50.0, 1.0, 1.0), "coronal", Stretch(rows=8)),
    ],
)
def test_factors(spacing: Any, plane: str, expected: Stretch) -> None:
    volume = volume_of(np.zeros((4, 5, 6), np.int16), spacing)
    assert stretch_of(plane_of(volume, plane)) == expected


def test_thick_slices_from_the_side(scanner: Any) -> None:
    values, truth = scanner.body((24, 96, 112))
    volume = volume_of(values, (3.0, 0.8, 0.7))
    plane = plane_of(volume, "coronal")
    target = plane.view(truth)
    inside = np.flatnonzero(target.any(axis=(1, 2)))
    start = int(inside[len(inside) // 2])
    ys, xs = np.nonzero(target[start])
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    dice = {}
    with samrt.load("tiny", threads=1) as engine:
        view = plane.view(values)
        options: Any = {"start": start, "box": box, "first": start - 6, "last": start + 6}
        for name, found in (
            ("square", segment_plane(engine, volume, plane, **options)),
            ("squashed", propagate(engine, lambda k: view[k], count=plane.shape[0],
                                   window=volume.window, **options)),
        ):  # fmt: skip
            mask = np.zeros(values.shape, bool)
            found.fill(plane.view(mask))
            part = plane.view(mask)[start - 6 : start + 7]
            wanted = target[start - 6 : start + 7]
            dice[name] = 2 * np.count_nonzero(part & wanted) / (part.sum() + wanted.sum())
    assert dice["square"] > 0.97
    assert dice["square"] > dice["squashed"]
