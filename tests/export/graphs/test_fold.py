"""Folding of linear steps, in float64, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.bicubic import bicubic_matrix, keys_kernel
from samrt_export.graphs.fold import add_depthwise_branches, emit_conv_bn, fold_batch_norm
from samrt_export.nets.conv_bn import ConvBn


def conv_bn(*args: int, **options: int) -> ConvBn:
    """With statistics far from the neutral ones, in float64."""
    module = ConvBn(*args, **options).double()
    random = np.random.default_rng(3)
    bn = module.bn
    for tensor, low, high in (
        (bn.running_mean, -1.0, 1.0), (bn.running_var, 1e-4, 3.0),
        (bn.weight, -2.0, 2.0), (bn.bias, -1.0, 1.0),
    ):  # fmt: skip
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(random.uniform(low, high, len(tensor))))
    return module


def noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).standard_normal(shape))


@pytest.mark.parametrize(
    ("args", "groups"), [((6, 10, 3, 2), 1), ((8, 8, 3, 1), 8), ((5, 7, 1, 1), 1)]
)
def test_one_convolution_replaces_two_steps(args: tuple[int, ...], groups: int) -> None:
    module = conv_bn(*args, groups=groups)
    x = noise(1, args[0], 9, 12)
    weight, bias = map(torch.from_numpy, fold_batch_norm(module))
    got = F.conv2d(x, weight, bias, args[3], args[2] // 2, groups=groups)
    with torch.no_grad():
        torch.testing.assert_close(got, module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("identity", [True, False])
def test_parallel_branches_become_one_kernel(identity: bool) -> None:
    wide, point = conv_bn(6, 6, 5, groups=6), conv_bn(6, 6, 1, groups=6)
    x = noise(1, 6, 8, 11)
    weight, bias = map(torch.from_numpy, add_depthwise_branches(wide, point, identity=identity))
    got = F.conv2d(x, weight, bias, padding=2, groups=6)
    with torch.no_grad():
        expected = wide(x) + point(x) + (x if identity else 0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_branches_that_are_not_depthwise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, 6, 3, 3\).*expected depthwise kernels"):
        add_depthwise_branches(conv_bn(6, 6, 3), conv_bn(6, 6, 1, groups=6), identity=True)


def test_impossible_statistics_are_refused() -> None:
    module = conv_bn(4, 4)
    assert module.bn.running_var is not None
    module.bn.running_var[2] = -0.5
    with pytest.raises(ValueError, match=r"running_var .* -0.5; expected no negative"):
        fold_batch_norm(module)
    module.bn = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="no running statistics"):
        fold_batch_norm(module)


def test_only_a_conv_bn_is_emitted_as_one() -> None:
    with pytest.raises(TypeError, match="got a Conv2d; expected a ConvBn"):
        emit_conv_bn(GraphBuilder("g"), "x", nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    ("source", "target"),
    [((1, 1), (2, 2)), ((3, 7), (6, 14)), ((7, 7), (256, 40)), ((5, 9), (7, 9)), ((9, 4), (5, 4))],
)
def test_bicubic_resizing_is_torch_s_borders_included(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    x = noise(1, 2, *source)
    expected = F.interpolate(x, size=target, mode="bicubic", align_corners=False)
    rows, columns = (
        torch.from_numpy(bicubic_matrix(*pair)) for pair in zip(source, target, strict=True)
    )
    torch.testing.assert_close(rows @ x @ columns.T, expected, rtol=1e-12, atol=1e-12)


def test_the_cubic_kernel_interpolates() -> None:
    """One at the centre, zero at the other pixels, weights of any phase sum to one."""
    assert keys_kernel(np.array([0.0, 1.0, -1.0, 2.0, 2.5])).tolist() == [1, 0, 0, 0, 0]
    phases = np.linspace(0, 1, 7)[:, None] + np.arange(-1, 3)
    np.testing.assert_allclose(keys_kernel(phases - 1).sum(1), 1, atol=1e-12)
