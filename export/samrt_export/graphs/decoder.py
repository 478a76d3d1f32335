"""SAM's prompt encoder and mask decoder as graphs.

What no prompt changes is computed once per image, at the end of the encoder graph (`hoist`); the
decoder graph (`emit_decoder`) takes it beside the image embedding.  See `decoder_cross` for how
attention avoids projecting the image, and `decoder_masks` for the upscaling.
"""

from __future__ import annotations

from collections.abc import Callable

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import array
from samrt_export.graphs.decoder_cross import Image, MaskPrompt, PlainImage
from samrt_export.graphs.decoder_masks import mask_prompt, upscaled_masks
from samrt_export.graphs.decoder_tokens import per_prompt, position_codes, typed_codes
from samrt_export.graphs.decoder_two_way import (
    Shapes,
    first_block_shapes,
    hoist_first_block,
    hyper_weights,
    image_inputs,
    point_inputs,
    token_head,
    two_way,
)
from samrt_export.nets.decoder import MaskDecoder
from samrt_export.nets.prompt_encoder import PromptEncoder
from samrt_export.nets.two_way import RELU


def hoist(
    g: GraphBuilder, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder, embedding: str
) -> dict[str, str]:
    """Emit what no prompt changes, from the embedding (1, dim, h, w), into the encoder graph.

    Returns public output names and tensors, see `hoisted_shapes`.
    """
    base = prompt_encoder.no_mask_embed.weight[0]
    code = prompt_encoder.dense_code()
    return hoist_first_block(g, mask_decoder.transformer, embedding, base, code)


def hoisted_shapes(
    prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the decoder graph takes from the encoder graph."""
    return first_block_shapes(mask_decoder.transformer, prompt_encoder.cfg.grid)


def emit_decoder(
    g: GraphBuilder,
    prompt_encoder: PromptEncoder,
    mask_decoder: MaskDecoder,
    shapes: Shapes,
    *,
    mask_prompts: bool = True,
    prompt_free: bool = False,
    upscale: Callable[..., str] = upscaled_masks,
    mask_of: Callable[..., MaskPrompt] = mask_prompt,
    image_of: Callable[..., Image] = PlainImage,
) -> None:
    """Write the decoder graph, inputs and outputs included.

    Inputs: the tensors of `shapes`, which are the encoder graph's outputs, batch 1; `point_coords`
    (N, P, 2) in pixels of the model frame; `point_labels` (N, P), 1 object, 0 background, 2 and 3
    box corners, -1 padding; with `mask_prompts`, `mask_input` (N, 1, 4 h, 4 w) and
    `has_mask_input` (N).  A `prompt_free` graph takes the first alone and answers as one prompt
    without points.  `upscale` writes the end of the network, see `upscaled_masks`, `mask_of` the
    way of a mask prompt, see `mask_prompt`, and `image_of` the image's side of attention, see
    `two_way`; the CPU form has others.

    Outputs: `low_res_masks` (N, M, 4 h, 4 w) and `iou_predictions` (N, M), in the order of the
    mask tokens.  All float32.

    Raises ValueError where `shapes` are not those of `hoisted_shapes`.
    """
    cfg, count = prompt_encoder.cfg, mask_decoder.cfg.num_mask_tokens
    embedding = image_inputs(g, hoisted_shapes(prompt_encoder, mask_decoder), shapes)
    mask: MaskPrompt | None = None
    batch: int | str = 1 if prompt_free else "N"
    if prompt_free:
        code = g.weight(array(mask_decoder.fixed_tokens())[None])
    else:
        coords, labels = point_inputs(g)
        with g.scope("prompt_encoder"):
            own = position_codes(g, coords, prompt_encoder.pe_layer, cfg.frame)
            own = typed_codes(g, own, labels, array(prompt_encoder.types()), erase=True)
            if mask_prompts:
                given = g.input("mask_input", ["N", 1, *cfg.mask_size])
                mask = mask_of(g, prompt_encoder, given, g.input("has_mask_input", ["N"]))
        fixed = per_prompt(g, labels, mask_decoder.fixed_tokens())
        code = g.op("Concat", fixed, own, axis=1)
    with g.scope("mask_decoder"):
        with g.scope("transformer"):
            tokens, image = two_way(
                g, mask_decoder.transformer, code, embedding,
                prompt_encoder.no_mask_embed.weight[0], prompt_encoder.dense_code(), mask,
                keep=1 + count, image_of=image_of,
            )  # fmt: skip
        with g.scope("output_hypernetworks_mlps"):
            networks = [net.linears() for net in mask_decoder.hypernetworks()]
            hyper = hyper_weights(g, tokens, 1, networks, RELU)
        masks = upscale(g, image, hyper, mask_decoder.output_upscaling, cfg.grid, count)
        with g.scope("iou_prediction_head"):
            iou = token_head(g, tokens, 0, mask_decoder.iou_prediction_head.linears(), RELU)
    g.output(masks, "low_res_masks", [batch, count, *cfg.mask_size])
    g.output(iou, "iou_predictions", [batch, count])
