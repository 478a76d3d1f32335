"""Mask prompts in, masks out: the ends of the mask decoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array, channel_norm
from samrt_export.graphs.decoder_cross import F64, MaskPrompt, double
from samrt_export.nets.common import LayerNorm2d
from samrt_export.nets.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class Extra:
    """High-resolution features in the order in which `upscaled_masks` computes.

    Attributes:
        coarse: for dy of the first convolution, (1, h w, 2 * C1).
        fine: for dy of the first and dy of the second, (1, 2 h w, 2 * C).
    """

    coarse: tuple[str, str]
    fine: tuple[tuple[str, str], tuple[str, str]]


def mask_prompt(g: GraphBuilder, encoder: PromptEncoder, mask: str, has_mask: str) -> MaskPrompt:
    """A mask (N, 1, 4 h, 4 w) and whether it counts (N) as what they add to the image.

    The last projection of `mask_downscaling` is linear: its input is the mask prompt's `rows`, with
    a row of ones for the bias, and minus the embedding that stands for "no mask" and is already in
    the image.
    """
    first, first_norm, _, second, second_norm, *_ = encoder.mask_downscaling
    x = mask
    with g.scope("mask_downscaling"):
        for conv, norm in ((first, first_norm), (second, second_norm)):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, LayerNorm2d):
                raise TypeError(f"expected convolution and norm, got {type(conv)}, {type(norm)}")
            bias = None if conv.bias is None else array(conv.bias)
            x = g.conv(x, array(conv.weight), bias, stride=2, pads=[0] * 4)
            x = g.gelu(channel_norm(g, x, norm))
        height, width = encoder.cfg.grid
        channels, pixels = encoder.cfg.mask_in_chans, height * width
        counts = g.op("Cast", g.shape(has_mask, [-1, 1, 1]), to=9)
        none = g.constant(0.0)
        rows = g.op("Where", counts, g.shape(x, [0, channels, pixels]), none)
        ones = g.op("Where", counts, g.constant(np.ones((1, 1, pixels))), none)
        rows = g.op("Concat", rows, ones, axis=1)
    return MaskPrompt(rows, mask_weight(encoder), has_mask)


def mask_weight(encoder: PromptEncoder) -> F64:
    """What each row of a mask prompt adds to the image, (C + 1, dim); the last one is constant."""
    last = encoder.mask_downscaling[-1]
    weight = double(last.weight)[:, :, 0, 0].T  # type: ignore[arg-type]
    shift = double(last.bias) - double(encoder.no_mask_embed.weight)[0]  # type: ignore[arg-type]
    return np.concatenate([weight, shift[None]])


def transposed_row(g: GraphBuilder, rows: str, layer: nn.ConvTranspose2d, dy: int) -> str:
    """Row `dy` of each 2 x 2 block that a stride-2 transposed convolution makes of a position.

    `rows` (R, in) to (R, 2 * out), the column of the block slower than the channel.
    """
    if layer.bias is None:
        raise TypeError("this transposed convolution should have a bias")
    weight = array(layer.weight)[:, :, dy].transpose(0, 2, 1).reshape(len(layer.weight), -1)
    return g.op("Gemm", rows, g.weight(weight), g.weight(np.tile(array(layer.bias), 2)))


def mask_rows(
    g: GraphBuilder, x: str, hyper: str, layer: nn.ConvTranspose2d, dy: int, positions: int,
    extra: str | None = None,
) -> str:  # fmt: skip
    """Logits of row `dy` of each block of the last transposed convolution.

    Args:
        g: the decoder graph.
        x: (N * positions, C1).
        hyper: (N, M, C), weights of the masks for the C channels.
        layer: C1 to C channels.
        dy: 0 or 1.
        positions: rows of `x` for each prompt.
        extra: (1, positions, 2 * C), added before the activation.

    Returns:
        (N, M, positions * 2).
    """
    channels = int(layer.weight.shape[1])
    y = transposed_row(g, x, layer, dy)
    if extra is not None:
        y = g.op("Add", g.shape(y, [-1, positions, 2 * channels]), extra)
    y = g.shape(g.gelu(y), [-1, positions * 2, channels])
    return g.op("MatMul", hyper, g.op("Transpose", y, perm=[0, 2, 1]))


def upscaled_masks(
    g: GraphBuilder, image: str, hyper: str, upscaling: nn.Sequential, grid: tuple[int, int],
    num_masks: int, extra: Extra | None = None,
) -> str:  # fmt: skip
    """SAM's `output_upscaling` and the product with each mask's weights.

    With stride = kernel = 2 a transposed convolution is one product per output position (dy, dx).
    The output comes in four parts (dy of the first, dy of the second), each with its columns in
    their final order, so that joining the parts of the small result is all the reordering.

    Args:
        g: the decoder graph.
        image: (N, h w, dim).
        hyper: (N, M, C) weights of the masks for the C channels of the last layer.
        upscaling: transposed convolution, LayerNorm2d, GELU, transposed convolution, GELU.
        grid: (h, w).
        num_masks: M.
        extra: high-resolution features, added to the results of the two convolutions.

    Returns:
        (N, M, 4 h, 4 w) logits.
    """
    first, norm, _, second, _ = upscaling
    if not (
        isinstance(first, nn.ConvTranspose2d)
        and isinstance(norm, LayerNorm2d)
        and isinstance(second, nn.ConvTranspose2d)
    ):
        raise TypeError(f"unexpected layers in output_upscaling: {upscaling}")
    height, width = grid
    dim, middle = (int(size) for size in first.weight.shape[:2])
    rows = g.shape(image, [-1, dim])
    parts = []
    for a in range(2):
        with g.scope(f"output_upscaling.0.{a}"):
            x = transposed_row(g, rows, first, a)
            if extra is not None:
                x = g.op("Add", g.shape(x, [-1, height * width, 2 * middle]), extra.coarse[a])
        with g.scope(f"output_upscaling.1.{a}"):
            x = g.shape(x, [-1, middle])
            x = g.gelu(g.layer_norm(x, array(norm.weight), array(norm.bias), norm.eps))
        for b in range(2):
            with g.scope(f"output_upscaling.3.{a}{b}"):
                fine = None if extra is None else extra.fine[a][b]
                found = mask_rows(g, x, hyper, second, b, height * width * 2, fine)
                parts.append(g.shape(found, [0, num_masks, height, 1, width * 4]))
    joined = g.op("Concat", *parts, axis=3)
    return g.shape(joined, [0, num_masks, height * 4, width * 4])
