"""SAM 2.1 on single images: Hiera, and a decoder that takes features of three scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from samrt_export.families.base import EMBEDDING, Frame, Network, Shapes
from samrt_export.families.networks import prompt_config, shapes_of
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.cpu_hiera import emit_cpu_hiera
from samrt_export.graphs.hiera import COARSE, FINE, emit_hiera
from samrt_export.graphs.sam2_decoder import emit_decoder, hoist
from samrt_export.nets.decoder import PromptEncoder
from samrt_export.nets.hiera import HieraConfig, HieraEncoder
from samrt_export.nets.sam2_decoder import Sam2MaskDecoder, decode

NAMES = (
    ("sam_prompt_encoder.", "prompt_encoder."),
    ("sam_mask_decoder.", "mask_decoder."),
    ("no_mem_embed", "image_encoder.no_mem_embed"),
)
VIDEO_ONLY = (
    "memory_attention.*",
    "memory_encoder.*",
    "maskmem_*",
    "mask_downsample.*",
    "no_mem_pos_enc",
    "no_obj_*",
    "obj_ptr_*",
)
"""Keys of the video memory, which single images do not use."""


class SingleImageEncoder(HieraEncoder):
    """Hiera with what SAM 2 adds to the embedding of an image that has no past."""

    def __init__(self, cfg: HieraConfig) -> None:
        super().__init__(cfg)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, cfg.out_chans))

    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """(1, 3, S_h, S_w) to the embedding, the stride-4 and the stride-8 features, by name."""
        embedding, fine, coarse = super().forward(image)
        return {
            EMBEDDING: embedding + self.no_mem_embed.view(1, -1, 1, 1),
            FINE: fine,
            COARSE: coarse,
        }


def decode_named(
    prompt_encoder: PromptEncoder,
    mask_decoder: Sam2MaskDecoder,
    features: Mapping[str, Tensor],
    *prompts: Any,
) -> tuple[Tensor, Tensor]:
    """`decode` with features by name."""
    three = features[EMBEDDING], features[FINE], features[COARSE]
    return decode(prompt_encoder, mask_decoder, three, *prompts)


def build(variant: str, frame: Frame) -> Network:
    """SAM 2.1 with Hiera-T."""
    encoder = SingleImageEncoder(HieraConfig(image_size=frame.size))
    prompts = PromptEncoder(prompt_config(frame, 16))
    return Network(encoder, prompts, Sam2MaskDecoder(), decode_named)


def shapes(variant: str, frame: Frame) -> Shapes:
    """Keys and shapes of the checkpoint, without the video memory."""
    with torch.device("meta"):
        network = build(variant, frame)
    return {published(k): v for k, v in shapes_of(network).items()}


def published(name: str) -> str:
    """The checkpoint's name of a tensor of the network."""
    for theirs, ours in NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def adapt(state: Mapping[str, Tensor], variant: str, frame: Frame) -> dict[str, Tensor]:
    """The network's names."""

    def own(name: str) -> str:
        for theirs, ours in NAMES:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name

    return {own(name): tensor for name, tensor in state.items()}


def emit_encoder(g: GraphBuilder, network: Network, image: str) -> dict[str, str]:
    """Hiera, followed by what the decoder needs and no prompt changes."""
    return _emit(g, network, image, emit_hiera)


def emit_cpu_encoder(g: GraphBuilder, network: Network, image: str) -> dict[str, str]:
    """The same in its CPU form."""
    return _emit(g, network, image, emit_cpu_hiera)


def _emit(
    g: GraphBuilder, network: Network, image: str, emit: Callable[..., dict[str, str]]
) -> dict[str, str]:
    encoder, decoder = network.image_encoder, network.mask_decoder
    if not isinstance(encoder, SingleImageEncoder) or not isinstance(decoder, Sam2MaskDecoder):
        raise TypeError("expected a network made by samrt_export.families.sam2.build")
    with g.scope("image_encoder"):
        maps = emit(g, encoder, image, encoder.no_mem_embed)
    with g.scope("mask_decoder"):
        extra = hoist(g, network.prompt_encoder, decoder, maps[EMBEDDING], maps[FINE], maps[COARSE])
    return {EMBEDDING: maps[EMBEDDING], **{k: v for k, v in extra.items() if k != EMBEDDING}}


def emit_image_decoder(g: GraphBuilder, network: Network, shapes: Shapes) -> None:
    """SAM 2's mask decoder."""
    emit_decoder(g, network.prompt_encoder, network.mask_decoder, shapes)
