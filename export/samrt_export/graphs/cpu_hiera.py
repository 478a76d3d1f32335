"""The CPU form of Hiera: attention without pooling and all MLPs in samrt's own operators."""

from __future__ import annotations

from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import operators as op
from samrt_export.graphs.hiera import (
    attention_of,
    emit_hiera,
    mlp_layers,
    weights_of,
    windows_of,
)
from samrt_export.nets.hiera import Block, HieraEncoder

Size = tuple[int, int]


def emit_cpu_hiera(
    g: GraphBuilder, encoder: HieraEncoder, image: str, no_mem_embed: Tensor | None = None,
    projections: tuple[nn.Conv2d, nn.Conv2d] | None = None,
) -> dict[str, str]:  # fmt: skip
    """As `hiera.emit_hiera`, with the same outputs."""
    return emit_hiera(g, encoder, image, no_mem_embed, projections, write_block=_block)


def _block(g: GraphBuilder, x: str, block: Block, grid: Size) -> str:
    """Tokens (1, H, W, C) of `grid` to (1, H', W', C')."""
    if block.pooled:  # queries on half the rows and columns: the operator has none of these
        x, grid = attention_of(g, x, block, grid)
    else:
        with g.scope("attn"):
            x = _attend(g, x, block, grid)
    with g.scope("mlp"):
        return op.mlp(g, x, (1, *grid), block.norm2, *mlp_layers(block))


def _attend(g: GraphBuilder, x: str, block: Block, grid: Size) -> str:
    lead, weights = (1, *grid), weights_of(block.attn)
    with g.scope("qkv"):
        matrix = weights.qkv.reshape(3 * weights.width, -1)
        y = op.linear(g, x, lead, matrix, norm=op.Norm.of(block.norm1))
    y = op.attention(
        g, y, lead, weights.width, weights.heads, windows_of(block, grid),
        query_bias=weights.query_bias.reshape(-1),
    )  # fmt: skip
    with g.scope("proj"):
        return op.linear(g, y, lead, weights.proj_weight, weights.proj_bias, residual=x)
