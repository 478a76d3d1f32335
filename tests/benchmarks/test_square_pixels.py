"""`benchmarks/square_pixels.py`: pictures become flat, figures are those of the pairs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def tool(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("square_pixels")


@pytest.mark.parametrize(("axis", "shape"), [(0, (20, 60)), (1, (40, 30))])
def test_rows_or_columns_are_averaged(tool: ModuleType, axis: int, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.float32)
    found = tool.flattened(image, 2.0, axis)
    assert found.shape == shape
    pairs = image.reshape(20, 2, 60).mean(1) if axis == 0 else image.reshape(40, 30, 2).mean(2)
    np.testing.assert_allclose(found, pairs, atol=1e-3)


def test_a_row_counts_every_set_the_same(tool: ModuleType) -> None:
    found = tool.row({"a": [(0.5, 0.6), (0.7, 0.9)], "b": [(0.2, 0.2)]})
    assert found["sets"] == 2
    assert found["stored"][0] == pytest.approx((0.6 + 0.2) / 2)
    assert found["square"][0] == pytest.approx((0.75 + 0.2) / 2)
    assert found["gain"][0] == pytest.approx(0.075)
    assert found["gain"][3] == 3
