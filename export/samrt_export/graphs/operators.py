"""Nodes of samrt's own operators for ONNX Runtime (domain `samrt`, version 1), all float32.

What each computes is written down in `samrt.reference_operators`.  Tokens lie in memory as
(1, ..., C), channels last; the writers take the sizes before C as `lead`, because shape inference
does not know these operators and the graph says what they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array
from samrt_export.graphs.fold import fold_batch_norm
from samrt_export.graphs.vit_attention import Windows
from samrt_export.nets.common import LayerNorm2d, Neck
from samrt_export.nets.conv_bn import ConvBn

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Lead = Sequence[int]


class NoCpuFormError(ValueError):
    """A network that samrt's operators cannot express; the message says why."""


@dataclass(frozen=True)
class Norm:
    """A LayerNormalization over the last axis: gamma (C), beta (C) or none, epsilon."""

    gamma: Floats
    beta: Floats | None
    epsilon: float

    @classmethod
    def of(cls, layer: nn.LayerNorm) -> Norm:
        """That of a module."""
        return cls(array(layer.weight), array(layer.bias), float(layer.eps))


def linear(
    g: GraphBuilder, x: str, lead: Lead, weight: Floats, bias: Floats | None = None, *,
    norm: Norm | None = None, gelu: bool = False, residual: str = "",
) -> str:  # fmt: skip
    """gelu?(norm?(x) W^T + b) + residual; weight (out, in) as torch has it, bias (out).

    x (*lead, in); the result and `residual` are (*lead, out).
    """
    gamma = beta = ""
    if norm is not None:
        gamma = g.weight(norm.gamma)
        beta = "" if norm.beta is None else g.weight(norm.beta)
    return g.custom(
        "Linear", (*lead, len(weight)),
        x, g.weight(weight.T), "" if bias is None else g.weight(bias), gamma, beta, residual,
        norm=int(norm is not None), gelu=int(gelu),
        epsilon=0.0 if norm is None else norm.epsilon,
    )  # fmt: skip


def layer(
    g: GraphBuilder, x: str, lead: Lead, module: nn.Linear, *, norm: Norm | None = None,
    gelu: bool = False, residual: str = "",
) -> str:  # fmt: skip
    """`linear` with the weights of a module."""
    bias = None if module.bias is None else array(module.bias)
    return linear(g, x, lead, array(module.weight), bias, norm=norm, gelu=gelu, residual=residual)


def mlp(
    g: GraphBuilder, x: str, lead: Lead, norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear
) -> str:
    """x + second(gelu(first(norm(x)))); x (*lead, C)."""
    weights = [
        g.weight(value)
        for module in (first, second)
        for value in (array(module.weight).T, array(module.bias))
    ]
    facts = Norm.of(norm)
    beta = np.zeros_like(facts.gamma) if facts.beta is None else facts.beta
    return g.custom(
        "Mlp", (*lead, second.out_features), x, g.weight(facts.gamma), g.weight(beta), *weights,
        epsilon=facts.epsilon,
    )  # fmt: skip


def attention(
    g: GraphBuilder, qkv: str, lead: Lead, width: int, heads: int, cut: Windows, *,
    query_bias: Floats | None = None, tables: tuple[Floats, Floats] | None = None,
    position_bias: Floats | None = None,
) -> str:  # fmt: skip
    """Attention within each window; qkv (*lead, 3 width), q scaled, to (*lead, width).

    query_bias (width).  tables: relative positions of the window's rows (h, d, h) and of its
    columns (w, d, w), as `relative_table` makes them.  position_bias (heads, N, N).  Tokens past
    the edge of the grid are keys that are zero.

    Raises NoCpuFormError for a window larger than the grid, which only tiny frames have.
    """
    if cut.window[0] > cut.grid[0] or cut.window[1] > cut.grid[1]:
        raise NoCpuFormError(
            f"a window of {cut.window[0]}x{cut.window[1]} tokens is larger than the grid of "
            f"{cut.grid[0]}x{cut.grid[1]}"
        )
    optional = [query_bias, *(tables or (None, None)), position_bias]
    return g.custom(
        "Attention", (*lead, width),
        qkv, *("" if value is None else g.weight(value) for value in optional),
        heads=heads, grid_h=cut.grid[0], grid_w=cut.grid[1],
        window_h=cut.window[0], window_w=cut.window[1],
    )  # fmt: skip


def depthwise(g: GraphBuilder, x: str, grid: tuple[int, int], module: nn.Module) -> str:
    """A depthwise 3 x 3 ConvBn of stride 1, (1, H, W, C) to the same shape."""
    weight, bias = _folded(module, stride=1)
    return g.custom(
        "DepthwiseConv", (1, *grid, len(bias)), x, g.weight(_taps(weight)), g.weight(bias)
    )


def pointwise(
    g: GraphBuilder, x: str, grid: tuple[int, int], module: nn.Module, *, gelu: bool = False
) -> str:
    """A 1 x 1 ConvBn of stride 1, perhaps with a GELU; (1, H, W, C_in) to (1, H, W, C_out)."""
    weight, bias = _folded(module, stride=1)
    return linear(g, x, (1, *grid), _matrix(weight).T, bias, gelu=gelu)


def mb_conv(
    g: GraphBuilder, x: str, grid: tuple[int, int],
    modules: tuple[nn.Module, nn.Module, nn.Module], *, stride: int = 1, residual: bool,
) -> str:  # fmt: skip
    """Widen, depthwise 3 x 3, narrow: three ConvBn with a GELU after the first two.

    x (1, H, W, C_in) of `grid` to (1, H', W', C_out), sizes divided by `stride` and rounded up.
    With `residual` gelu(x + result).
    """
    first, middle, last = modules
    inputs: list[str] = []
    for module in (first, middle, last):
        weight, bias = _folded(module, stride=stride if module is middle else 1)
        taps = _taps(weight) if module is middle else _matrix(weight)
        inputs += [g.weight(taps), g.weight(bias)]
    out = tuple(-(-side // stride) for side in grid)
    return g.custom(
        "MbConv", (1, *out, len(bias)), x, *inputs, stride=stride, residual=int(residual)
    )


def stem(
    g: GraphBuilder, image: str, size: tuple[int, int], first: nn.Module, second: nn.Module
) -> str:
    """Two 3 x 3 ConvBn of stride 2 with a GELU between; (1, C, H, W) to (1, H / 4, W / 4, N)."""
    inputs = []
    for module in (first, second):
        weight, bias = _folded(module, stride=2)
        if weight.shape[2:] != (3, 3):
            raise ValueError(f"got a kernel of shape {weight.shape}; expected (out, in, 3, 3)")
        taps = weight.transpose(2, 3, 1, 0).reshape(9, weight.shape[1], -1)
        inputs += [g.weight(taps), g.weight(bias)]
    out = tuple(-(-side // 4) for side in size)
    return g.custom("Stem", (1, *out, len(bias)), image, *inputs)


def neck(g: GraphBuilder, tokens: str, module: Neck, grid: tuple[int, int]) -> str:
    """As `blocks.neck`, channels last up to its end; tokens (1, h * w, dim) or (1, h, w, dim)."""
    first, second = (cast(nn.Conv2d, module[k]) for k in (0, 2))
    first_norm, second_norm = (cast(LayerNorm2d, module[k]) for k in (1, 3))
    weight = array(first.weight)[:, :, 0, 0]
    x = g.shape(tokens, [1, *grid, weight.shape[1]])
    with g.scope("neck.0"):
        x = linear(g, x, (1, *grid), weight)
    with g.scope("neck.1"):
        x = g.layer_norm(x, array(first_norm.weight), array(first_norm.bias), first_norm.eps)
    with g.scope("neck.2"):
        kernel = array(second.weight)
        x = g.custom("Conv3x3", (1, *grid, len(kernel)), x, g.weight(kernel))
    with g.scope("neck.3"):
        x = g.layer_norm(x, array(second_norm.weight), array(second_norm.bias), second_norm.eps)
        return g.op("Transpose", x, perm=[0, 3, 1, 2])


def upscaled_masks(
    g: GraphBuilder, image: str, hyper: str, upscaling: nn.Sequential, grid: tuple[int, int],
    num_masks: int,
) -> str:  # fmt: skip
    """As `decoder_masks.upscaled_masks` without high-resolution features, in one operator."""
    first, norm, _, second, _ = upscaling
    if not (
        isinstance(first, nn.ConvTranspose2d)
        and isinstance(norm, LayerNorm2d)
        and isinstance(second, nn.ConvTranspose2d)
    ):
        raise TypeError(f"unexpected layers in output_upscaling: {upscaling}")
    middle = [g.weight(array(norm.weight)), g.weight(array(norm.bias))]
    height, width = grid
    return g.custom(
        "UpscaleMasks", ("N", num_masks, 4 * height, 4 * width),
        image, hyper, *_blocks(g, first), *middle, *_blocks(g, second),
        height=height, width=width, epsilon=float(norm.eps),
    )  # fmt: skip


def _blocks(g: GraphBuilder, layer: nn.ConvTranspose2d) -> list[str]:
    """A transposed convolution by two as matrix (in, 4 out) and bias (4 out).

    Columns: row of the 2 x 2 block, column of the block, channel.
    """
    if layer.bias is None:
        raise TypeError("this transposed convolution should have a bias")
    weight = array(layer.weight).transpose(0, 2, 3, 1).reshape(len(layer.weight), -1)
    return [g.weight(weight), g.weight(np.tile(array(layer.bias), 4))]


def _folded(module: nn.Module, stride: int) -> tuple[Floats, Floats]:
    if not isinstance(module, ConvBn):
        raise TypeError(f"got a {type(module).__name__}; expected a ConvBn")
    if module.c.stride != (stride, stride):
        raise ValueError(f"a convolution has stride {module.c.stride}; expected {stride}")
    return fold_batch_norm(module)


def _matrix(weight: Floats) -> Floats:
    """(out, in, 1, 1) of a 1 x 1 convolution to (in, out)."""
    if weight.shape[2:] != (1, 1):
        raise ValueError(f"got a kernel of shape {weight.shape}; expected (out, in, 1, 1)")
    return np.asarray(weight[:, :, 0, 0].T)


def _taps(weight: Floats) -> Floats:
    """(C, 1, 3, 3) of a depthwise convolution to (9, C), taps row by row."""
    if weight.shape[1:] != (1, 3, 3):
        raise ValueError(f"got a kernel of shape {weight.shape}; expected (C, 1, 3, 3)")
    return np.asarray(weight.reshape(len(weight), 9).T)
