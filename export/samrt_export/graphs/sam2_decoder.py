"""SAM 2's mask decoder for single images as graphs; see `decoder` for the form."""

from __future__ import annotations

import numpy as np
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array
from samrt_export.graphs.decoder_masks import Extra, mask_prompt, upscaled_masks
from samrt_export.graphs.decoder_tokens import per_prompt, position_codes, typed_codes
from samrt_export.graphs.decoder_two_way import (
    Shapes,
    cut,
    first_block_shapes,
    hoist_first_block,
    hyper_weights,
    image_inputs,
    point_inputs,
    token_head,
    two_way,
)
from samrt_export.nets.prompt_encoder import PromptEncoder
from samrt_export.nets.sam2_decoder import Sam2MaskDecoder
from samrt_export.nets.two_way import RELU

ROWS = range(2)


def coarse_name(a: int) -> str:
    """Public name of the stride-8 features for row `a` of each block of 2 x 2."""
    return f"dec_high_res_1_{a}"


def fine_name(a: int, b: int) -> str:
    """Public name of the stride-4 features for row b of the blocks in row a of the coarser ones."""
    return f"dec_high_res_0_{a}{b}"


def hoist(
    g: GraphBuilder,
    prompt_encoder: PromptEncoder,
    mask_decoder: Sam2MaskDecoder,
    embedding: str,
    fine: str,
    coarse: str,
    *,
    projected: bool = False,
) -> dict[str, str]:
    """Emit what no prompt changes into the encoder graph.

    Args:
        g: the encoder graph.
        prompt_encoder: as for the decoder graph.
        mask_decoder: as for the decoder graph.
        embedding: (1, dim, h, w), with `no_mem_embed` added.
        fine: (1, dim, 4 h, 4 w), the features of stride 4.
        coarse: (1, dim, 2 h, 2 w), the features of stride 8.
        projected: `fine` and `coarse` are the results of `conv_s0` and `conv_s1` already,
            (1, dim / 8, 4 h, 4 w) and (1, dim / 4, 2 h, 2 w).

    Returns:
        Public output names and tensors, see `hoisted_shapes`.  The features are projected and
        stored in the order in which the decoder computes.
    """
    base = prompt_encoder.no_mask_embed.weight[0]
    code = prompt_encoder.dense_code()
    named = hoist_first_block(g, mask_decoder.transformer, embedding, base, code)
    height, width = prompt_encoder.cfg.grid
    with g.scope("conv_s1"):
        channels = int(mask_decoder.conv_s1.weight.shape[0])
        x = coarse if projected else pointwise(g, coarse, mask_decoder.conv_s1)
        x = g.op("Transpose", g.shape(x, [channels, height, 2, width, 2]), perm=[2, 1, 3, 4, 0])
        x = g.shape(x, [2, height * width, 2 * channels])
        for a, part in enumerate(g.split_op("Split", 2, x, g.constant([1, 1], "int64"), axis=0)):
            named[coarse_name(a)] = part
    with g.scope("conv_s0"):
        channels = int(mask_decoder.conv_s0.weight.shape[0])
        x = fine if projected else pointwise(g, fine, mask_decoder.conv_s0)
        x = g.shape(x, [channels, height, 2, 2, width * 2, 2])
        x = g.op("Transpose", x, perm=[2, 3, 1, 4, 5, 0])
        x = g.shape(x, [4, height * width * 2, 2 * channels])
        for k, part in enumerate(g.split_op("Split", 4, x, g.constant([1] * 4, "int64"), axis=0)):
            named[fine_name(k // 2, k % 2)] = part
    return named


def pointwise(g: GraphBuilder, x: str, layer: nn.Conv2d) -> str:
    """A convolution of kernel 1."""
    if layer.bias is None:
        raise TypeError("this convolution should have a bias")
    return g.conv(x, array(layer.weight), array(layer.bias))


def hoisted_shapes(
    prompt_encoder: PromptEncoder, mask_decoder: Sam2MaskDecoder
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the decoder graph takes from the encoder graph."""
    grid = prompt_encoder.cfg.grid
    pixels = grid[0] * grid[1]
    middle, channels = (
        int(layer.weight.shape[0]) for layer in (mask_decoder.conv_s1, mask_decoder.conv_s0)
    )
    shapes = first_block_shapes(mask_decoder.transformer, grid)
    shapes.update({coarse_name(a): (1, pixels, 2 * middle) for a in ROWS})
    shapes.update({fine_name(a, b): (1, 2 * pixels, 2 * channels) for a in ROWS for b in ROWS})
    return shapes


def emit_decoder(
    g: GraphBuilder, prompt_encoder: PromptEncoder, mask_decoder: Sam2MaskDecoder, shapes: Shapes
) -> None:
    """Write the decoder graph, inputs and outputs included; see `decoder.emit_decoder`.

    The graph adds the padding point that SAM 2 gives to every prompt.  Mask 0 of the outputs is
    the answer where one mask is asked for, after the rule of stability.  Logits are not clamped.

    Raises ValueError where `shapes` are not those of `hoisted_shapes`.
    """
    cfg, count = prompt_encoder.cfg, mask_decoder.cfg.num_mask_tokens
    embedding = image_inputs(g, hoisted_shapes(prompt_encoder, mask_decoder), shapes)
    coords, labels = point_inputs(g)
    with g.scope("prompt_encoder"):
        own = position_codes(g, coords, prompt_encoder.pe_layer, cfg.frame)
        own = typed_codes(g, own, labels, array(prompt_encoder.types()), erase=True)
        padding = per_prompt(g, labels, prompt_encoder.not_a_point_embed.weight)
        given = g.input("mask_input", ["N", 1, *cfg.mask_size])
        mask = mask_prompt(g, prompt_encoder, given, g.input("has_mask_input", ["N"]))
    fixed = per_prompt(g, labels, mask_decoder.fixed_tokens())
    code = g.op("Concat", fixed, own, padding, axis=1)
    extra = Extra(
        coarse=(coarse_name(0), coarse_name(1)),
        fine=((fine_name(0, 0), fine_name(0, 1)), (fine_name(1, 0), fine_name(1, 1))),
    )
    with g.scope("mask_decoder"):
        with g.scope("transformer"):
            tokens, image = two_way(
                g, mask_decoder.transformer, code, embedding,
                prompt_encoder.no_mask_embed.weight[0], prompt_encoder.dense_code(), mask,
                keep=2 + count,
            )  # fmt: skip
        with g.scope("output_hypernetworks_mlps"):
            networks = [net.linears() for net in mask_decoder.hypernetworks()]
            hyper = hyper_weights(g, tokens, 2, networks, RELU)
        masks = upscaled_masks(
            g, image, hyper, mask_decoder.output_upscaling, cfg.grid, count, extra
        )
        with g.scope("iou_prediction_head"):
            iou = token_head(g, tokens, 1, mask_decoder.iou_prediction_head.linears(), RELU)
            iou = g.op("Sigmoid", iou)
    with g.scope("settle"):
        masks, iou = settled(g, masks, iou, mask_decoder, cfg.mask_size)
    g.output(masks, "low_res_masks", ["N", count, *cfg.mask_size])
    g.output(iou, "iou_predictions", ["N", count])


def settled(
    g: GraphBuilder, masks: str, iou: str, decoder: Sam2MaskDecoder, size: tuple[int, int]
) -> tuple[str, str]:
    """`Sam2MaskDecoder.settle` as one product with a matrix of zeros and ones per prompt.

    Its first row picks mask 0 or the best other one, the rest is the identity.
    """
    count, delta = decoder.cfg.num_mask_tokens, decoder.cfg.stability_delta
    pixels, last = size[0] * size[1], g.constant([1], "int64")
    flat = g.shape(masks, [0, count, pixels])
    single = g.shape(cut(g, flat, 0, 1), [0, pixels])

    def area(level: float) -> str:
        above = g.op("Cast", g.op("Greater", single, g.constant(level)), to=1)
        return g.op("ReduceSum", above, last, keepdims=1)

    inner, outer = area(delta), area(-delta)
    share = g.op("Div", inner, g.op("Max", outer, g.constant(1.0)))
    kept = g.op("GreaterOrEqual", share, g.constant(decoder.cfg.stability_threshold))
    stable = g.op("Or", kept, g.op("Equal", outer, g.constant(0.0)))
    best = g.op("ArgMax", cut(g, iou, 1, count), axis=1, keepdims=1)
    picked = g.op("Equal", best, g.constant(np.arange(-1, count - 1), "int64"))
    alone = g.constant(np.eye(1, count))
    row = g.op("Where", stable, alone, g.op("Cast", picked, to=1))
    rest = np.eye(count)
    rest[0] = 0.0
    row = g.op("Mul", g.op("Unsqueeze", row, last), g.constant(np.eye(count, 1)))
    matrix = g.op("Add", row, g.constant(rest))
    chosen = g.shape(g.op("MatMul", matrix, flat), [0, count, *size])
    scores = g.op("MatMul", matrix, g.op("Unsqueeze", iou, g.constant([2], "int64")))
    return chosen, g.shape(scores, [0, count])
