"""Prompts follow the protocol's rules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samrt.errors import OptionError
from samrt.evaluation.dataset import tight_box
from samrt.evaluation.strategies import (
    Jitter,
    build_prompt,
    check_strategies,
    jitter_box,
    negative_points,
    parse_jitter,
    positive_points,
    usable_strategies,
)


def square() -> np.ndarray[Any, Any]:
    mask = np.zeros((50, 70), np.bool_)
    mask[10:31, 20:41] = True
    return mask


def ring() -> np.ndarray[Any, Any]:
    mask = square()
    mask[14:27, 24:37] = False
    return mask


def test_the_centre_of_mass_comes_first_if_it_is_inside() -> None:
    assert positive_points(square(), 1).tolist() == [[30.0, 20.0]]
    points = positive_points(square(), 5)
    assert points[0].tolist() == [30.0, 20.0]
    assert len(points) == 5


def test_a_centre_outside_is_not_used() -> None:
    mask = ring()
    for count in (1, 5):
        points = positive_points(mask, count)
        assert len(points) == count
        assert [30.0, 20.0] not in points.tolist()
        assert all(mask[int(y), int(x)] for x, y in points)


def test_samples_are_the_middles_of_equal_parts_in_row_major_order() -> None:
    mask = ring()
    flat = np.flatnonzero(mask)
    wanted = [flat[int((i + 0.5) * len(flat) / 5)] for i in range(5)]
    found = [int(y) * 70 + int(x) for x, y in positive_points(mask, 5)]
    assert found == wanted
    assert flat[0] not in found


def test_negative_points_lie_outside_in_the_doubled_box() -> None:
    points = negative_points(square(), 5)
    assert len(points) == 5
    for x, y in points:
        assert not square()[int(y), int(x)]
        assert 20 - 11 <= x <= 40 + 11
        assert 0 <= y <= 30 + 11


def test_a_mask_that_fills_the_image_has_no_negative_points() -> None:
    full = np.ones((9, 9), np.bool_)
    assert negative_points(full, 5).shape == (0, 2)
    prompt = build_prompt("S4", full, (0, 0, 8, 8))
    assert prompt.point_labels is not None
    assert prompt.point_labels.tolist() == [1] * 5


def test_few_pixels_give_few_points() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 3:6] = True
    assert len(positive_points(mask, 5)) == 4  # the centre and all three


@pytest.mark.parametrize(
    ("name", "box", "labels"),
    [
        ("S2", False, [1]),
        ("S3", False, [1] * 5),
        ("S4", False, [1] * 5 + [0] * 5),
        ("S5", True, None),
        ("S6", True, [1]),
    ],
)
def test_each_strategy_asks_what_it_says(name: str, box: bool, labels: list[int] | None) -> None:
    prompt = build_prompt(name, square(), tight_box(square()))
    assert prompt.box == ((20.0, 10.0, 40.0, 30.0) if box else None)
    found = prompt.point_labels
    assert (None if found is None else found.tolist()) == labels


def test_a_line_gets_a_box_with_some_area() -> None:
    mask = np.zeros((20, 70), np.bool_)
    mask[19, 5:65] = True
    assert build_prompt("S5", mask, tight_box(mask)).box == (5.0, 19.0, 64.0, 20.0)


def spec(**kinds: bool) -> Any:
    every = {"box": True, "points": True, "negative_points": True, "box_and_points": True}
    return SimpleNamespace(**{**every, **kinds})


def test_what_a_model_can_do() -> None:
    assert usable_strategies(spec()) == ("S2", "S3", "S4", "S5", "S6")
    assert usable_strategies(spec(points=False, box_and_points=False)) == ("S5",)
    assert usable_strategies(spec(negative_points=False)) == ("S2", "S3", "S5", "S6")
    assert check_strategies(["S5", "S2", "S5"], spec()) == ("S2", "S5")
    with pytest.raises(OptionError, match=r"S4 .* needs a model that takes negative points"):
        check_strategies(["S4"], spec(negative_points=False))
    with pytest.raises(OptionError, match=r"S6 .* takes a box together with points"):
        check_strategies(["S6"], spec(box_and_points=False))
    with pytest.raises(OptionError, match="unknown strategy 'S7'"):
        check_strategies(["S7"], spec())
    with pytest.raises(OptionError, match="no strategy is left"):
        check_strategies([], spec())


def test_jitter_moves_every_edge_within_its_level() -> None:
    rng = np.random.default_rng(1)
    moves = []
    for _ in range(400):
        box = jitter_box(rng, (200, 220, 400, 440), Jitter(10, 20), (1000, 1000))
        moves.append(np.array(box) - (200, 220, 400, 440))
    size = np.abs(moves)
    assert size.min() >= 10.0
    assert size.max() <= 20.0
    assert 0.4 < np.mean(np.array(moves) > 0) < 0.6
    assert len({tuple(np.sign(m)) for m in moves}) == 16


def test_jitter_keeps_a_box_valid() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        x0, y0, x1, y1 = jitter_box(rng, (0, 4, 6, 9), Jitter(0, 30), (12, 10))
        assert 0 <= x0 < x1 <= 10
        assert 0 <= y0 < y1 <= 12
        assert min(x1 - x0, y1 - y0) >= 1.0 - 1e-9


def test_levels_are_read_and_checked() -> None:
    assert [j.name for j in parse_jitter("0-10, 20,10-20")] == ["0-10", "20", "10-20"]
    assert parse_jitter("none") == ()
    for bad in ("x", "20-10", "-5", "5,5", "", "1-2-3", "nan", "1e9"):
        with pytest.raises(OptionError, match="jitter"):
            parse_jitter(bad)
