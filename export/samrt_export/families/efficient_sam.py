"""EfficientSAM: a plain ViT, six prompt rows, no mask prompts."""

from __future__ import annotations

from dataclasses import replace

from samrt_export.families.base import EMBEDDING, EmitEncoder, Frame, Network, Shapes
from samrt_export.families.networks import Emit, on_meta, prompt_config, shapes_of
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.cpu_vit import emit_cpu_efficient_vit
from samrt_export.graphs.efficient_decoder import emit_decoder, hoist
from samrt_export.graphs.efficient_vit import emit_efficient_vit
from samrt_export.nets.efficient_decoder import (
    EfficientDecoderConfig,
    EfficientMaskDecoder,
    EfficientPromptEncoder,
    decode,
)
from samrt_export.nets.efficient_vit import EFFICIENT_VIT_PRESETS, EfficientSamEncoder

VARIANTS = {"vit_ti": "efficient_sam_ti", "vit_s": "efficient_sam_s"}


def build(variant: str, frame: Frame) -> Network:
    """EfficientSAM of one size."""
    cfg = replace(EFFICIENT_VIT_PRESETS[VARIANTS[variant]], image_size=frame.size)
    return Network(
        EfficientSamEncoder(cfg),
        EfficientPromptEncoder(prompt_config(frame, 16)),
        EfficientMaskDecoder(EfficientDecoderConfig()),
        decode,
    )


def shapes(variant: str, frame: Frame) -> Shapes:
    """Keys and shapes of the checkpoint."""
    return shapes_of(on_meta(lambda: build(variant, frame)))


def _emit_with_hoist(emit: Emit) -> EmitEncoder:
    """The encoder, followed by what the decoder needs and no prompt changes."""

    def run(g: GraphBuilder, network: Network, image: str) -> dict[str, str]:
        with g.scope("image_encoder"):
            embedding = emit(g, network.image_encoder, image)
        with g.scope("mask_decoder"):
            extra = hoist(g, network.prompt_encoder, network.mask_decoder, embedding)
        return {EMBEDDING: embedding, **{k: v for k, v in extra.items() if k != EMBEDDING}}

    return run


emit_encoder = _emit_with_hoist(emit_efficient_vit)
emit_cpu_encoder = _emit_with_hoist(emit_cpu_efficient_vit)


def emit_mask_decoder(g: GraphBuilder, network: Network, shapes: Shapes) -> None:
    """EfficientSAM's mask decoder."""
    emit_decoder(g, network.prompt_encoder, network.mask_decoder, shapes)
