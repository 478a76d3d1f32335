"""Emission of layers that several networks share.

Weights are read as views of the module's tensors; only transposed ones are copied.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.nets.common import LayerNorm2d, Neck, PatchEmbed

F32 = npt.NDArray[np.float32]
HIDDEN_TILE_BYTES = 8 << 20


def array(tensor: Tensor) -> F32:
    """A float32 view of a tensor's memory; other dtypes are converted.

    Raises ValueError for a tensor without memory (device "meta").
    """
    if tensor.is_meta:
        raise ValueError("this tensor has no values (device meta): load the state dict first")
    out: F32 = tensor.detach().float().cpu().numpy()
    return out


def linear(g: GraphBuilder, x: str, layer: nn.Linear) -> str:
    """A Linear layer over the last axis."""
    bias: Tensor | None = layer.bias
    if bias is None:
        return g.op("MatMul", x, g.weight(array(layer.weight).T))
    return g.linear(x, array(layer.weight), array(bias))


def norm(g: GraphBuilder, x: str, layer: nn.LayerNorm) -> str:
    """LayerNormalization over the last axis."""
    return g.layer_norm(x, array(layer.weight), array(layer.bias), float(layer.eps))


def channel_norm(g: GraphBuilder, x: str, layer: LayerNorm2d) -> str:
    """LayerNorm2d of (N, C, H, W): LayerNormalization between two transpositions."""
    last = g.op("Transpose", x, perm=[0, 2, 3, 1])
    last = g.layer_norm(last, array(layer.weight), array(layer.bias), layer.eps)
    return g.op("Transpose", last, perm=[0, 3, 1, 2])


def gelu_mlp(
    g: GraphBuilder, x: str, first: nn.Linear, second: nn.Linear, names: tuple[str, str],
    tiles: int = 1,
) -> str:  # fmt: skip
    """second(gelu(first(x))) of tokens (1, n, dim), in `tiles` equal parts of the tokens.

    names: scopes of the two layers' nodes.
    """
    layers = []
    for name, layer in zip(names, (first, second), strict=True):
        with g.scope(name):
            layers.append((g.weight(array(layer.weight).T), g.weight(array(layer.bias))))
    done = []
    for part in split(g, x, tiles, axis=1):
        with g.scope(names[0]):
            weight, bias = layers[0]
            hidden = g.gelu(g.op("Add", g.op("MatMul", part, weight), bias))
        with g.scope(names[1]):
            weight, bias = layers[1]
            done.append(g.op("Add", g.op("MatMul", hidden, weight), bias))
    return concat(g, done, axis=1)


def mlp_tiles(grid: tuple[int, int], hidden: int) -> int:
    """Tiles of a grid's tokens whose `hidden` float32 values per token stay in the cache."""
    return grid[0] // tile_rows(grid[0], grid[1] * hidden * 4, HIDDEN_TILE_BYTES)


def tile_rows(rows: int, row_bytes: int, limit: int) -> int:
    """The largest divisor of `rows` whose rows take at most `limit` bytes; at least 1."""
    fitting = (n for n in range(1, rows + 1) if rows % n == 0 and n * row_bytes <= limit)
    return max(fitting, default=1)


def split(g: GraphBuilder, tensor: str, parts: int, axis: int) -> list[str]:
    """Equal parts along an axis."""
    return [tensor] if parts == 1 else g.split_op("Split", parts, tensor, axis=axis)


def concat(g: GraphBuilder, parts: list[str], axis: int) -> str:
    """The parts joined along an axis."""
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=axis)


def patch_tokens(g: GraphBuilder, image: str, layer: PatchEmbed, grid: tuple[int, int]) -> str:
    """Image (1, 3, S_h, S_w) to tokens (1, h * w, dim); `grid` is (h, w)."""
    proj = layer.proj
    bias = None if proj.bias is None else array(proj.bias)
    dim, _, patch, _ = proj.weight.shape
    with g.scope("patch_embed.proj"):
        x = g.conv(image, array(proj.weight), bias, stride=patch, pads=[0] * 4)
        return g.op("Transpose", g.shape(x, [1, dim, grid[0] * grid[1]]), perm=[0, 2, 1])


def neck(g: GraphBuilder, tokens: str, layer: Neck, grid: tuple[int, int]) -> str:
    """Tokens (1, h * w, dim) to the embedding (1, out, h, w); `grid` is (h, w)."""
    first, second = (cast(nn.Conv2d, layer[k]) for k in (0, 2))
    first_norm, second_norm = (cast(LayerNorm2d, layer[k]) for k in (1, 3))
    channels = int(first.weight.shape[0])
    with g.scope("neck.0"):
        x = g.op("MatMul", tokens, g.weight(array(first.weight)[:, :, 0, 0].T))
    with g.scope("neck.1"):
        x = g.layer_norm(x, array(first_norm.weight), array(first_norm.bias), first_norm.eps)
        x = g.shape(g.op("Transpose", x, perm=[0, 2, 1]), [1, channels, *grid])
    with g.scope("neck.2"):
        x = g.conv(x, array(second.weight), None)
    with g.scope("neck.3"):
        return channel_norm(g, x, second_norm)
