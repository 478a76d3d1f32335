"""Points and crops."""

from __future__ import annotations

import numpy as np
import pytest

from samrt.errors import OptionError
from samrt.everything.grid import crops_of, layer_grids, point_grid


def test_points_are_the_centres_of_cells_row_by_row() -> None:
    points = point_grid(2)
    assert points.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert point_grid(1).tolist() == [[0.5, 0.5]]
    assert len(np.unique(point_grid(32), axis=0)) == 1024


def test_deeper_layers_have_fewer_points() -> None:
    assert [len(grid) for grid in layer_grids(9, 2, 2)] == [81, 16, 4]
    with pytest.raises(OptionError, match="crops of layer 2 would have no points"):
        layer_grids(3, 2, 2)


def test_crops_overlap_and_cover_the_image() -> None:
    height, width = 301, 500
    crops = crops_of((height, width), 2, 512 / 1500)
    assert [crop.layer for crop in crops] == [0] + [1] * 4 + [2] * 16
    assert crops[0].box == (0, 0, width, height)
    for layer in (1, 2):
        cover = np.zeros((height, width), int)
        for crop in crops:
            if crop.layer == layer:
                x0, y0, x1, y1 = crop.box
                assert crop.size == (y1 - y0, x1 - x0)
                cover[y0:y1, x0:x1] += 1
        assert cover.min() == 1
        assert cover.max() >= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 900), (2, 2)])
def test_crops_of_very_small_images_have_pixels(size: tuple[int, int]) -> None:
    for crop in crops_of(size, 4, 0.3):
        x0, y0, x1, y1 = crop.box
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
