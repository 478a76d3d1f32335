"""Checkpoints that samrt knows by their names of tensors but does not export, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Marker", "recognise"]


@dataclass(frozen=True)
class Marker:
    """A tensor name (regular expression, matched from the start) and what it gives away."""

    pattern: str
    name: str
    advice: str = "this family is not supported"


_ORIGINAL = "use the checkpoint in the original layout (segment_anything's .pth file)"
_WHOLE = "save the whole model's state dict"

_ENCODERS = "samrt knows SAM's ViT, TinyViT, RepViT, EfficientSAM's ViT and Hiera"
_PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")

_MARKERS = (
    Marker(
        r"(vision_encoder|shared_image_embedding)\.",
        "a SAM-type model in the layout of Hugging Face transformers",
        f"{_ORIGINAL}; fine-tunes keep their weights but every tensor has another name there",
    ),
    Marker(r"image_encoder\.cnn_embed\.", "SAMUS"),
    Marker(r"image_encoder\.(post_pos_embed|input_Adapter)\.", "SAMUS"),
    Marker(r"mask_decoder\.(hf_token|hf_mlp|compress_vit_feat)\b", "HQ-SAM"),
    Marker(r"(image_encoder\.)?backbone\.(input_stem|stages)\.", "EfficientViT-SAM"),
    Marker(r"image_encoder\.patch_embedding\.", "SegVol or another 3-D SAM"),
    Marker(r"(model\.)?\d+\.(conv|cv1)\.", "FastSAM or another YOLO model"),
    Marker(r"(detector|tracker)\.", "SAM 3"),
    Marker(
        r"(memory_attention|memory_encoder|maskmem_tpos_enc|obj_ptr_proj)\b",
        "the video memory of SAM 2 or MedSAM2 without an image encoder",
        _WHOLE,
    ),
    Marker(
        r"(decoder\.(samplers|base)|deconv\d|out_conv)\.",
        "micro-sam's instance decoder",
        "use the SAM weights of the same file (model_state)",
    ),
    Marker(
        r"(cls_token|blocks\.\d+\.attn\.qkv\.|patch_embed\.proj\.)",
        "a plain ViT image encoder",
        f"{_WHOLE} with prompt_encoder and mask_decoder",
    ),
)


def recognise(names: Iterable[str]) -> Marker | None:
    """The first known layout of which any name is there; None if nothing is known."""
    known = list(names)
    for marker in _MARKERS:
        if any(re.match(marker.pattern, name) for name in known):
            return marker
    parts = {name.split(".")[0] for name in known}
    there = [part for part in _PARTS if part in parts]
    lacking = [part for part in _PARTS if part not in parts]
    if there and lacking:
        return Marker("", f"SAM's {' and '.join(there)} without {' and '.join(lacking)}", _WHOLE)
    if there:
        return Marker("", "a SAM with an image encoder of another type", _ENCODERS)
    return None
