"""EfficientSAM's prompt encoder and mask decoder as graphs; see `decoder` for the form."""

from __future__ import annotations

import numpy as np
from torch import nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import F32, array
from samrt_export.graphs.decoder_masks import mask_rows
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
from samrt_export.nets.efficient_decoder import (
    PADDING_COORDINATE,
    SLOTS,
    EfficientMaskDecoder,
    EfficientPromptEncoder,
)
from samrt_export.nets.prompt_encoder import PADDING
from samrt_export.nets.two_way import GELU


def hoist(
    g: GraphBuilder,
    prompt_encoder: EfficientPromptEncoder,
    mask_decoder: EfficientMaskDecoder,
    embedding: str,
) -> dict[str, str]:
    """Emit what no prompt changes, from the embedding (1, dim, h, w), into the encoder graph.

    Returns public output names and tensors, see `hoisted_shapes`.
    """
    code = prompt_encoder.dense_code()
    return hoist_first_block(g, mask_decoder.transformer, embedding, None, code)


def hoisted_shapes(
    prompt_encoder: EfficientPromptEncoder, mask_decoder: EfficientMaskDecoder
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the decoder graph takes from the encoder graph."""
    return first_block_shapes(mask_decoder.transformer, prompt_encoder.cfg.grid)


def emit_decoder(
    g: GraphBuilder,
    prompt_encoder: EfficientPromptEncoder,
    mask_decoder: EfficientMaskDecoder,
    shapes: Shapes,
) -> None:
    """Write the decoder graph, inputs and outputs included; see `decoder.emit_decoder`.

    Labels: 1 object, 2 and 3 box corners, -1 padding; 0 has a position but no meaning.  The graph
    fills every prompt up to the six points that the network was trained with and ignores more,
    so padding is inert.

    Raises ValueError where `shapes` are not those of `hoisted_shapes`.
    """
    cfg, count = prompt_encoder.cfg, mask_decoder.cfg.num_mask_tokens
    embedding = image_inputs(g, hoisted_shapes(prompt_encoder, mask_decoder), shapes)
    coords, labels = point_inputs(g)
    with g.scope("prompt_encoder"):
        fixed = per_prompt(g, labels, mask_decoder.fixed_tokens())
        coords, labels = filled(g, coords, labels)
        own = position_codes(g, coords, prompt_encoder.pe_layer, cfg.frame)
        own = typed_codes(g, own, labels, array(prompt_encoder.types()), erase=False)
    code = g.op("Concat", fixed, own, axis=1)
    with g.scope("mask_decoder"):
        with g.scope("transformer"):
            tokens, image = two_way(
                g, mask_decoder.transformer, code, embedding, None, prompt_encoder.dense_code(),
                None, keep=1 + count,
            )  # fmt: skip
        with g.scope("output_hypernetworks_mlps"):
            networks = [net.linears() for net in mask_decoder.hypernetworks()]
            hyper = hyper_weights(g, tokens, 1, networks, GELU)
        layers = mask_decoder.final_output_upscaling_layers
        masks = upscaled_masks(g, image, hyper, layers, cfg.grid, count)
        with g.scope("iou_prediction_head"):
            iou = token_head(g, tokens, 0, mask_decoder.iou_prediction_head.linears(), GELU)
    g.output(masks, "low_res_masks", ["N", count, *cfg.mask_size])
    g.output(iou, "iou_predictions", ["N", count])


def filled(g: GraphBuilder, coords: str, labels: str) -> tuple[str, str]:
    """`EfficientPromptEncoder.fill`: coords (N, SLOTS, 2) and labels (N, SLOTS)."""
    column = g.op("Unsqueeze", labels, g.constant([2], "int64"))
    total = g.op("ReduceSum", column, g.constant([1], "int64"), keepdims=1)
    zero = g.op("Mul", total, g.constant(0.0))
    spare = g.op("Add", zero, g.constant(np.full((1, SLOTS, 1), PADDING)))
    column = cut(g, g.op("Concat", column, spare, axis=1), 0, SLOTS)
    nowhere = g.op("Add", zero, g.constant(np.zeros((1, SLOTS, 2))))
    coords = cut(g, g.op("Concat", coords, nowhere, axis=1), 0, SLOTS)
    padding = g.op("Equal", column, g.constant(float(PADDING)))
    coords = g.op("Where", padding, g.constant(PADDING_COORDINATE), coords)
    return coords, g.shape(column, [0, SLOTS])


def upscaled_masks(
    g: GraphBuilder, image: str, hyper: str, layers: nn.ModuleList, grid: tuple[int, int],
    num_masks: int,
) -> str:  # fmt: skip
    """`final_output_upscaling_layers` and the product with each mask's weights.

    As `decoder_masks.upscaled_masks`, but the norm is over all positions and channels of a prompt,
    so the first convolution is not cut into rows.

    Args:
        g: the decoder graph.
        image: (N, h w, dim).
        hyper: (N, M, C).
        layers: the two upscaling layers.
        grid: (h, w).
        num_masks: M.

    Returns:
        (N, M, 4 h, 4 w) logits.
    """
    stages = [list(layer.children()) for layer in layers]
    first, norm, second = stages[0][0], stages[0][1], stages[1][0]
    if not (
        isinstance(first, nn.ConvTranspose2d)
        and isinstance(norm, nn.GroupNorm)
        and isinstance(second, nn.ConvTranspose2d)
    ):
        raise TypeError(f"unexpected layers in final_output_upscaling_layers: {layers}")
    height, width = grid
    dim, middle = (int(size) for size in first.weight.shape[:2])
    with g.scope("final_output_upscaling_layers.0"):
        weight: F32 = array(first.weight).transpose(0, 2, 3, 1).reshape(dim, -1)
        bias = np.tile(array(first.bias), 4)  # type: ignore[arg-type]
        x = g.op("Gemm", g.shape(image, [-1, dim]), g.weight(weight), g.weight(bias))
        x = whole_norm(g, g.shape(x, [-1, height * width, 4 * middle]), norm)
        x = g.gelu(g.shape(x, [-1, middle]))
    parts = []
    for b in range(2):
        with g.scope(f"final_output_upscaling_layers.1.{b}"):
            found = mask_rows(g, x, hyper, second, b, height * width * 4)
            found = g.shape(found, [0, num_masks, height, width, 2, 4])
            found = g.op("Transpose", found, perm=[0, 1, 2, 4, 3, 5])
            parts.append(g.shape(found, [0, num_masks, height * 2, 1, width * 4]))
    joined = g.op("Concat", *parts, axis=3)
    return g.shape(joined, [0, num_masks, height * 4, width * 4])


def whole_norm(g: GraphBuilder, x: str, norm: nn.GroupNorm) -> str:
    """GroupNorm of one group: x (N, h w, 4 * C), normalised over all but N, scaled by channel.

    Means are taken over the last axis, then over the other: a single sum of a million terms, as in
    ONNX Runtime's InstanceNormalization, is 30 times less exact.
    """

    def mean(y: str) -> str:
        for axis in (2, 1):
            y = g.op("ReduceMean", y, axes=[axis], keepdims=1)
        return y

    centred = g.op("Sub", x, mean(x))
    variance = g.op("Add", mean(g.op("Mul", centred, centred)), g.constant(float(norm.eps)))
    scale = g.op("Div", g.weight(np.tile(array(norm.weight), 4)), g.op("Sqrt", variance))
    return g.op("Add", g.op("Mul", centred, scale), g.weight(np.tile(array(norm.bias), 4)))
