"""Which family and variant a checkpoint is, from the names and shapes of its tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from samrt_export.checkpoint.errors import CheckpointError, listing
from samrt_export.checkpoint.facts import (
    Shape,
    decoder_facts,
    efficient_vit_facts,
    hiera_facts,
    lora_facts,
    repvit_facts,
    tiny_vit_facts,
    vit_facts,
)
from samrt_export.checkpoint.markers import recognise

__all__ = ["Identified", "identify"]

Shapes = Mapping[str, Shape]

_VIT = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
_EFFICIENT = {192: ("efficient_sam_ti", "vit_ti"), 384: ("efficient_sam_s", "vit_s")}
_HIERA = {(96, 12): "hiera_t", (96, 16): "hiera_s", (112, 24): "hiera_b+", (144, 48): "hiera_l"}


@dataclass(frozen=True)
class Identified:
    """What a checkpoint is.

    Attributes:
        family: such as ``sam`` or ``mobile_sam``.
        variant: network size within the family, such as ``vit_b``; for ``sam_lora`` the layout
            of the adapter: ``samed``, ``qv``, ``peft`` or ``wrapped``.
        facts: sizes read off the tensors: ``dim``, ``depth``, ``grid`` (h, w) in tokens,
            ``image_size`` (h, w) in pixels, ``num_mask_tokens`` and what else the family has.
            ``image_size`` of convolutional encoders shows in no tensor: it is the family's own.
        also_fits: other families with the same tensors, which only the user can tell apart.
    """

    family: str
    variant: str
    facts: Mapping[str, object] = field(default_factory=dict)
    also_fits: tuple[str, ...] = ()

    @property
    def needs_base(self) -> bool:
        """Whether the file holds adapters only, to be merged into the checkpoint they belong to."""
        return self.facts.get("needs_base") is True

    def __str__(self) -> str:
        others = f" (the same tensors as {', '.join(self.also_fits)})" if self.also_fits else ""
        return f"{self.family} {self.variant}{others}"


def identify(shapes: Mapping[str, tuple[int, ...]]) -> Identified:
    """Tell the family of a state dict without wrappers.

    Args:
        shapes: parameter name -> shape.

    Raises:
        CheckpointError: no known family; the message says what the names look like.
    """
    for rule in _RULES:
        found = rule(shapes)
        if found is not None:
            return found
    marker = recognise(shapes)
    if marker is not None:
        raise CheckpointError(f"checkpoint looks like {marker.name}: {marker.advice}")
    raise CheckpointError(
        f"checkpoint is of no known family: it has {len(shapes)} tensors such as "
        f"{listing(shapes, 4) or 'none'}; samrt reads Segment Anything models with "
        "image_encoder, prompt_encoder and mask_decoder"
    )


def _lora(shapes: Shapes) -> Identified | None:
    facts = lora_facts(shapes)
    return None if facts is None else Identified("sam_lora", str(facts["layout"]), facts)


def _sam2(shapes: Shapes) -> Identified | None:
    if not _complete(shapes, "image_encoder.trunk.blocks.0.attn.qkv.weight", "sam_mask_decoder."):
        return None
    facts = hiera_facts(shapes)
    size = _HIERA.get((_number(facts["dim"]), _number(facts["depth"])), "hiera_custom")
    edition = "sam2.1" if facts["edition"] == "2.1" else "sam2"
    same = ("medsam2",) if size == "hiera_t" and edition == "sam2.1" else ()
    return Identified("sam2", f"{edition}_{size}", facts, same)


def _efficient_sam(shapes: Shapes) -> Identified | None:
    table = shapes.get("image_encoder.pos_embed", ())
    if len(table) != 3 or not _complete(
        shapes, "image_encoder.blocks.0.mlp.fc1.weight", "prompt_encoder.bbox_top_left_embeddings."
    ):
        return None
    known = _EFFICIENT.get(table[2])
    if known is None:
        raise CheckpointError(
            f"checkpoint looks like EfficientSAM of width {table[2]}, expected "
            f"{' or '.join(str(width) for width in _EFFICIENT)}"
        )
    return Identified(*known, {**efficient_vit_facts(shapes), **decoder_facts(shapes)})


def _tiny_vit(shapes: Shapes) -> Identified | None:
    stem = shapes.get("image_encoder.patch_embed.seq.0.c.weight", ())
    if len(stem) != 4 or not _complete(shapes, "image_encoder.layers.", "mask_decoder."):
        return None
    facts = {**tiny_vit_facts(shapes), **decoder_facts(shapes)}
    if any(".Depth_Adapter." in name for name in shapes):
        raise CheckpointError(
            "checkpoint looks like the Medical SAM Adapter on TinyViT: only its ViT is supported"
        )
    if stem[2:] == (1, 1):
        return Identified("lite_medsam", "vit_t", {**facts, "image_size": (256, 256)})
    return Identified("mobile_sam", "vit_t", {**facts, "image_size": (1024, 1024)})


def _edge_sam(shapes: Shapes) -> Identified | None:
    if not _complete(shapes, "image_encoder.features.0.0.c.weight", "mask_decoder."):
        return None
    facts = {**repvit_facts(shapes), **decoder_facts(shapes)}
    if not facts["fuse"]:
        raise CheckpointError(
            "checkpoint looks like RepViT-SAM, a RepViT encoder without EdgeSAM's fuse_stage2: "
            "this family is not supported"
        )
    return Identified("edge_sam", "repvit_m1", {**facts, "image_size": (1024, 1024)})


def _vit(shapes: Shapes) -> Identified | None:
    table = shapes.get("image_encoder.pos_embed", ())
    if not _complete(
        shapes, "image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.", "prompt_encoder."
    ):
        return None
    if len(table) == 5:
        raise CheckpointError(
            "checkpoint looks like SAM-Med3D or another 3-D SAM (pos_embed of "
            f"{len(table)} axes): samrt segments images, not volumes"
        )
    marker = recognise(shapes)
    if len(table) != 4 or (marker is not None and marker.name in ("SAMUS", "HQ-SAM")):
        return None
    facts = {**vit_facts(shapes), **decoder_facts(shapes)}
    dim, depth = _number(facts["dim"]), _number(facts["depth"])
    variant = _VIT.get((dim, depth), f"vit_{dim}x{depth}")
    adapters = facts["adapters"]
    if adapters == ("Adapter",):
        return Identified("sam_med2d", variant, facts)
    if adapters:
        if not {"MLP_Adapter", "Space_Adapter"} <= set(_texts(adapters)) or not facts["rel_h"]:
            raise CheckpointError(
                f"checkpoint looks like SAM with adapters {listing(_texts(adapters))} in its "
                "blocks: samrt knows those of SAM-Med2D and of the Medical SAM Adapter"
            )
        return Identified("medical_sam_adapter", variant, facts)
    if facts["rel_h"]:
        raise CheckpointError(
            "checkpoint looks like the Medical SAM Adapter's network without adapters: rename "
            "attn.rel_h and attn.rel_w to attn.rel_pos_h and attn.rel_pos_w"
        )
    same = ("medsam",) if variant == "vit_b" and facts["image_size"] == (1024, 1024) else ()
    return Identified("sam", variant, facts, same)


def _complete(shapes: Shapes, *prefixes: str) -> bool:
    return all(any(name.startswith(prefix) for name in shapes) for prefix in prefixes)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


_RULES: tuple[Callable[[Shapes], Identified | None], ...] = (
    _lora, _sam2, _efficient_sam, _tiny_vit, _edge_sam, _vit,
)  # fmt: skip
