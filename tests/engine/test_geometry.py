from __future__ import annotations

import numpy as np
import pytest

from samrt.errors import OptionError
from samrt.geometry import Placement, box_to_frame, place, points_to_frame


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((1024, 1024), (1024, 1024)),
        ((512, 512), (1024, 1024)),
        ((1080, 1440), (768, 1024)),
        ((523, 700), (765, 1024)),
        ((96, 130), (756, 1024)),
        ((130, 96), (1024, 756)),
        ((1, 1), (1024, 1024)),
        ((3, 2048), (2, 1024)),
        ((1, 100_000), (1, 1024)),
        ((5, 2048), (3, 1024)),
        ((2048, 5), (1024, 3)),
    ],
)
def test_longest_side_rounds_as_sam_does(size: tuple[int, int], resized: tuple[int, int]) -> None:
    placement = place(size, (1024, 1024), "longest_side")
    assert placement.input_size == resized
    assert placement.original_size == size
    assert placement.scale == (resized[0] / size[0], resized[1] / size[1])


def test_every_size_matches_the_published_formula_and_fits() -> None:
    for height in range(1, 300, 7):
        for width in range(1, 300, 11):
            scale = 512 * 1.0 / max(height, width)
            formula = (int(height * scale + 0.5), int(width * scale + 0.5))
            got = place((height, width), (512, 512), "longest_side").input_size
            assert got == (max(formula[0], 1), max(formula[1], 1))
            assert max(got) == 512


def test_frames_need_not_be_square() -> None:
    assert place((100, 100), (64, 128), "longest_side").input_size == (64, 64)
    assert place((50, 400), (64, 128), "longest_side").input_size == (16, 128)


def test_stretch_fills_the_frame() -> None:
    placement = place((100, 50), (64, 128), "stretch")
    assert placement.input_size == (64, 128)
    assert placement.scale == (0.64, 2.56)


def test_x_uses_the_horizontal_factor() -> None:
    points = np.array([[10.0, 100.0], [0.0, 0.0]])
    scaled = points_to_frame(points, (0.5, 3.0))
    assert scaled.tolist() == [[30.0, 50.0], [0.0, 0.0]]
    assert points.tolist() == [[10.0, 100.0], [0.0, 0.0]]


def test_boxes_become_two_corners() -> None:
    box = (1.0, 2.0, 3.0, 5.0)
    placement = Placement((10, 20), (5, 30), (8, 30), (0.5, 1.5))
    assert box_to_frame(box, placement, "scale").tolist() == [[1.5, 1.0], [4.5, 2.5]]
    assert box_to_frame(box, placement, "truncate").tolist() == [[1.0, 1.0], [4.0, 2.0]]
    # min(8 / 10, 30 / 20) = 0.8 on both axes
    assert box_to_frame(box, placement, "truncate_longest").tolist() == [[0.0, 1.0], [2.0, 4.0]]


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(OptionError, match="'squeeze'"):
        place((1, 1), (2, 2), "squeeze")
    with pytest.raises(OptionError, match="'round'"):
        box_to_frame((0, 0, 1, 1), place((1, 1), (1, 1), "stretch"), "round")
