"""The simulated user clicks where the mask is most wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.evaluation.clicks import clicks_needed, next_click, run_clicks
from samrt.evaluation.formats import open_dataset

pytest.importorskip("scipy")


def test_the_first_click_is_deepest_inside() -> None:
    truth = np.zeros((40, 60), np.bool_)
    truth[5:26, 10:31] = True
    assert next_click(truth, np.zeros_like(truth), []) == (20, 15, 1)


def test_the_larger_depth_wins() -> None:
    truth, guess = np.zeros((40, 60), np.bool_), np.zeros((40, 60), np.bool_)
    truth[5:12, 5:12], guess[20:35, 40:55] = True, True
    assert next_click(truth, guess, []) == (47, 27, 0)
    guess[20:35, 40:55] = False
    guess[20:24, 40:44] = True
    assert next_click(truth, guess, []) == (8, 8, 1)


def test_a_pixel_is_never_clicked_twice() -> None:
    truth = np.zeros((30, 30), np.bool_)
    truth[10:13, 10:13] = True
    taken: list[tuple[int, int]] = []
    for _ in range(9):
        x, y, label = next_click(truth, np.zeros_like(truth), taken)
        assert label == 1
        assert truth[y, x]
        assert (x, y) not in taken
        taken.append((x, y))


def test_the_edge_of_the_image_counts_as_right() -> None:
    truth = np.zeros((21, 21), np.bool_)
    truth[:, :11] = True
    x, y, _ = next_click(truth, np.zeros_like(truth), [])
    assert (x, y) == (5, 5)


def test_a_curve_ends_when_all_is_right(folder_data: Path, fake_engine: Callable[..., Any]) -> None:
    dataset = open_dataset(folder_data)
    engine = fake_engine(dataset, exact_after=3)
    target = dataset.targets[0]
    truth = dataset.read_mask(target)
    embedding = engine.encode(dataset.read_image(target))
    curve = run_clicks(engine, embedding, truth, 6)
    assert curve.dice[2:] == [1.0] * 4
    assert curve.dice[0] < 1.0
    assert len(curve.points) == 3
    assert curve.points[0][2] == 1
    first, second, third = engine.prompts
    assert first.mask_input is None
    assert second.mask_input is not None
    assert len(third.point_coords) == 3


def test_clicks_needed() -> None:
    assert clicks_needed([0.5, 0.81, 0.95], 0.8) == 2
    assert clicks_needed([0.5, 0.6], 0.8) == 2
    assert clicks_needed([0.9], 0.9) == 1
