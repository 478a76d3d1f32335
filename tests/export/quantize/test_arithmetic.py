"""The NumPy twin of a quantised layer."""

from __future__ import annotations

import numpy as np
import pytest

from samrt_export.quantize.arithmetic import (
    as_matrix,
    quantise_rows,
    quantise_weight,
    sample_rows,
)
from samrt_export.quantize.layers import ConvShape, Layer

from .conftest import normal

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 1), ((4, 3, 2, 2), 0)])
def test_weights_have_a_scale_per_output(shape: tuple[int, ...], axis: int) -> None:
    weight = normal(0, *shape)
    np.moveaxis(weight, axis, 0)[1] *= 100
    values, scales = quantise_weight(weight, axis)
    assert values.dtype == np.int8
    assert values.min() >= -127
    assert scales.shape == (shape[axis],)
    wide = scales.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    assert (np.abs(values * wide - weight) <= wide * 0.5001).all()
    assert (
        np.abs(np.moveaxis(values, axis, 0).reshape(shape[axis], -1)).max(1).tolist()
        == [127] * shape[axis]
    )


def test_a_row_of_zeros_stays_zero() -> None:
    values, scales = quantise_weight(np.zeros((3, 2), np.float32), 1)
    assert not values.any()
    assert (scales > 0).all()


def test_rows_are_rounded_and_clipped() -> None:
    found = quantise_rows(np.array([0.4, 0.6, 200.0, -200.0], np.float32), 127.0)
    assert found.tolist() == [0.0, 1.0, 127.0, -128.0]


@pytest.mark.parametrize(("stride", "pad"), [(1, 1), (2, 1), (2, 0), (1, 2)])
def test_sampled_patches_give_values_of_the_convolution(stride: int, pad: int) -> None:
    weight, image = normal(0, 5, 3, 3, 3), normal(1, 1, 3, 9, 11)
    geometry = ConvShape((3, 3), (stride, stride), (pad, pad, pad, pad))
    layer = Layer("y", "y", "conv", "x", "w", conv=geometry)
    rows = sample_rows(layer, image, 400, np.random.default_rng(0))
    found = rows @ as_matrix(layer, weight)
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(image), torch.from_numpy(weight), stride=stride, padding=pad
    ).numpy()[0]
    places = wanted.reshape(5, -1).T
    gaps = np.abs(found[:, None] - places[None]).max(axis=2)
    assert gaps.min(axis=1).max() < 1e-4
    assert len(set(gaps.argmin(axis=1).tolist())) > 0.6 * len(places)


def test_sampled_rows_of_a_linear_layer_are_copies() -> None:
    layer, tensor = Layer("y", "y", "linear", "x", "w"), normal(2, 1, 4, 4, 8)
    rows = sample_rows(layer, tensor, 20, np.random.default_rng(0))
    flat = tensor.reshape(-1, 8)
    assert all((row == flat).all(axis=1).any() for row in rows)
    assert not np.shares_memory(rows, tensor)
