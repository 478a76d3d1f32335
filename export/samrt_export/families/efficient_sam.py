"""EfficientSAM: a plain ViT, six prompt rows, no mask prompts."""

from __future__ import annotations

from dataclasses import replace

from samrt_export.families.base import Frame, Network, Shapes
from samrt_export.families.networks import emit_with_hoist, on_meta, prompt_config, shapes_of
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


emit_encoder = emit_with_hoist(emit_efficient_vit, hoist)
emit_cpu_encoder = emit_with_hoist(emit_cpu_efficient_vit, hoist)


def emit_mask_decoder(g: GraphBuilder, network: Network, shapes: Shapes) -> None:
    """EfficientSAM's mask decoder."""
    emit_decoder(g, network.prompt_encoder, network.mask_decoder, shapes)
