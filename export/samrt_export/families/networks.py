"""Networks of the families, and how they are written as graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from samrt_export.families.base import EMBEDDING, EmitDecoder, EmitEncoder, Frame, Network, Shapes
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.cpu_decoder import OwnImage, mask_rows
from samrt_export.graphs.cpu_tiny_vit import emit_cpu_tiny_vit
from samrt_export.graphs.cpu_vit import emit_cpu_vit
from samrt_export.graphs.decoder import emit_decoder, hoist
from samrt_export.graphs.operators import upscaled_masks
from samrt_export.graphs.repvit import emit_repvit
from samrt_export.graphs.tiny_vit import emit_tiny_vit
from samrt_export.graphs.vit import emit_vit
from samrt_export.nets.decoder import (
    DecoderConfig,
    MaskDecoder,
    PromptConfig,
    PromptEncoder,
    decode,
)
from samrt_export.nets.repvit import EDGE_SAM, RepViT
from samrt_export.nets.tiny_vit import LITE_MED_SAM, MOBILE_SAM, TinyViT
from samrt_export.nets.vit import VIT_PRESETS, ImageEncoderViT, VitConfig, adapt_state
from samrt_export.nets.vit import checkpoint_shapes as vit_shapes

ENCODER = "image_encoder."


def prompt_config(frame: Frame, stride: int) -> PromptConfig:
    """Sizes of the prompt encoder for a frame."""
    return PromptConfig(
        grid=frame.grid(stride),
        frame=frame.coordinates,
        frame_grid=frame.whole_grid(stride) if frame.mode == "crop" else None,
    )


def with_sam_decoder(
    encoder: nn.Module, frame: Frame, stride: int, cfg: DecoderConfig | None = None
) -> Network:
    """An encoder with SAM's prompt encoder and mask decoder."""
    prompts = PromptEncoder(prompt_config(frame, stride))
    return Network(encoder, prompts, MaskDecoder(cfg or DecoderConfig()), decode)


def vit_config(preset: str, frame: Frame) -> VitConfig:
    """The preset at a frame, for a checkpoint whose tables fit `frame.whole`."""
    found = VIT_PRESETS[preset]
    whole = (frame.whole[0] // found.patch, frame.whole[1] // found.patch)
    return replace(found, image_size=frame.size, pretrain_grid=whole)


def build_vit(preset: str, frame: Frame, cfg: DecoderConfig | None = None) -> Network:
    """SAM's ViT with its decoder."""
    return with_sam_decoder(ImageEncoderViT(vit_config(preset, frame)), frame, 16, cfg)


def vit_checkpoint(preset: str, frame: Frame, cfg: DecoderConfig | None = None) -> Shapes:
    """Keys and shapes of a whole checkpoint whose encoder is a ViT, at its own frame."""
    network = on_meta(lambda: build_vit(preset, frame, cfg))
    shapes = {ENCODER + k: v for k, v in vit_shapes(vit_config(preset, frame)).items()}
    return {**shapes, **{k: v for k, v in shapes_of(network).items() if not k.startswith(ENCODER)}}


def shapes_of(network: nn.Module) -> Shapes:
    """Keys and shapes of a network."""
    return {k: tuple(v.shape) for k, v in network.state_dict().items()}


def adapt_vit(state: Mapping[str, Tensor], preset: str, frame: Frame) -> dict[str, Tensor]:
    """Fit the position tables to the frame."""
    mode: Literal["interpolate", "crop"] = "crop" if frame.mode == "crop" else "interpolate"
    encoder = {k.removeprefix(ENCODER): v for k, v in state.items() if k.startswith(ENCODER)}
    fitted = adapt_state(encoder, vit_config(preset, frame), mode)
    rest = {k: v for k, v in state.items() if not k.startswith(ENCODER)}
    return {**{ENCODER + k: v for k, v in fitted.items()}, **rest}


def keep(state: Mapping[str, Tensor], variant: str, frame: Frame) -> dict[str, Tensor]:
    """The state as it is."""
    return dict(state)


def build_mobile_sam(variant: str, frame: Frame) -> Network:
    """MobileSAM."""
    encoder = TinyViT(replace(MOBILE_SAM, image_size=frame.size))
    return with_sam_decoder(encoder, frame, 16)


def build_lite_medsam(variant: str, frame: Frame) -> Network:
    """LiteMedSAM; its embedding has a stride of 4."""
    encoder = TinyViT(replace(LITE_MED_SAM, image_size=frame.size))
    return with_sam_decoder(encoder, frame, 4)


def build_edge_sam(variant: str, frame: Frame) -> Network:
    """EdgeSAM."""
    return with_sam_decoder(RepViT(replace(EDGE_SAM, image_size=frame.size)), frame, 16)


Emit = Callable[[GraphBuilder, Any, str], str]


def emit_with_hoist(emit: Emit, hoist: Callable[..., dict[str, str]] = hoist) -> EmitEncoder:
    """The encoder, followed by what the decoder needs and no prompt changes (`hoist`)."""

    def run(g: GraphBuilder, network: Network, image: str) -> dict[str, str]:
        with g.scope("image_encoder"):
            embedding = emit(g, network.image_encoder, image)
        with g.scope("mask_decoder"):
            extra = hoist(g, network.prompt_encoder, network.mask_decoder, embedding)
        return {EMBEDDING: embedding, **{k: v for k, v in extra.items() if k != EMBEDDING}}

    return run


def sam_decoder(**options: Any) -> EmitDecoder:
    """SAM's decoder with options of `emit_decoder`."""

    def run(g: GraphBuilder, network: Network, shapes: Shapes) -> None:
        emit_decoder(g, network.prompt_encoder, network.mask_decoder, shapes, **options)

    return run


emit_sam_decoder = sam_decoder()
emit_box_decoder = sam_decoder(mask_prompts=False)
emit_prompt_free_decoder = sam_decoder(prompt_free=True)
OWN_OPERATORS = {"upscale": upscaled_masks, "mask_of": mask_rows, "image_of": OwnImage}
emit_cpu_sam_decoder = sam_decoder(**OWN_OPERATORS)
emit_cpu_box_decoder = sam_decoder(mask_prompts=False, **OWN_OPERATORS)
emit_cpu_prompt_free_decoder = sam_decoder(prompt_free=True, **OWN_OPERATORS)


def on_meta(build: Callable[[], Network]) -> Network:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build()


emit_vit_encoder = emit_with_hoist(emit_vit)
emit_tiny_vit_encoder = emit_with_hoist(emit_tiny_vit)
emit_cpu_vit_encoder = emit_with_hoist(emit_cpu_vit)
emit_cpu_tiny_vit_encoder = emit_with_hoist(emit_cpu_tiny_vit)
emit_repvit_encoder = emit_with_hoist(emit_repvit)
