"""The list of families."""

from __future__ import annotations

from typing import Any

from samrt.errors import OptionError
from samrt_export.families import efficient_sam, rules, sam2
from samrt_export.families import networks as n
from samrt_export.families.base import Family
from samrt_export.nets.decoder import DecoderConfig

USE = "Interactive segmentation for research and engineering. Not for clinical use."
UNKNOWN = "as stated by the origin of the checkpoint (not known to samrt)"
SQUARE = (1024, 1024)
NINE_MASKS = DecoderConfig(num_mask_tokens=9)
"""Eight organs and the background."""


def _vit(preset: str | None = None, decoder: DecoderConfig | None = None) -> dict[str, Any]:
    """What families with SAM's ViT share; without a preset SAM's own of the variant."""

    def name(variant: str) -> str:
        return preset or f"sam_{variant}"

    return {
        "build": lambda variant, frame: n.build_vit(name(variant), frame, decoder),
        "shapes": lambda variant, frame: n.vit_checkpoint(name(variant), frame, decoder),
        "emit_encoder": n.emit_vit_encoder,
        "emit_cpu_encoder": n.emit_cpu_vit_encoder,
        "adapt": lambda state, variant, frame: n.adapt_vit(state, name(variant), frame),
    }


SAM = Family(
    name="sam",
    title="Segment Anything (ViT)",
    variants=("vit_b", "vit_l", "vit_h"),
    whole=SQUARE,
    license="Apache-2.0 (weights of Meta AI; fine-tunes: as stated by their origin)",
    intended_use=USE,
    any_whole=True,
    rules=lambda variant, frame: rules.sam(frame),
    emit_decoder=n.emit_sam_decoder,
    emit_cpu_decoder=n.emit_cpu_sam_decoder,
    **_vit(),
    resizable=True,
    croppable=True,
)
MEDSAM = Family(
    name="medsam",
    title="MedSAM",
    variants=("vit_b",),
    whole=SQUARE,
    license="Apache-2.0 (weights of the MedSAM authors)",
    intended_use=USE,
    rules=lambda variant, frame: rules.medsam(frame),
    emit_decoder=n.emit_box_decoder,
    emit_cpu_decoder=n.emit_cpu_box_decoder,
    **_vit("medsam"),
    resizable=True,
)
SAM_MED2D = Family(
    name="sam_med2d",
    title="SAM-Med2D",
    variants=("vit_b",),
    whole=(256, 256),
    license="Apache-2.0 (weights of the SAM-Med2D authors)",
    intended_use=USE,
    rules=lambda variant, frame: rules.sam_med2d(frame),
    emit_decoder=n.emit_sam_decoder,
    emit_cpu_decoder=n.emit_cpu_sam_decoder,
    **_vit("sam_med2d"),
    resizable=True,
    multiple=32,
)
MEDICAL_SAM_ADAPTER = Family(
    name="medical_sam_adapter",
    title="Medical SAM Adapter (2-D)",
    variants=("vit_b",),
    whole=SQUARE,
    license=UNKNOWN,
    intended_use=USE,
    any_whole=True,
    rules=lambda variant, frame: rules.medical_sam_adapter(frame),
    emit_decoder=n.emit_sam_decoder,
    emit_cpu_decoder=n.emit_cpu_sam_decoder,
    **_vit("medical_sam_adapter", DecoderConfig.medical_sam_adapter()),
)
MOBILE_SAM = Family(
    name="mobile_sam",
    title="MobileSAM",
    variants=("vit_t",),
    whole=SQUARE,
    license="Apache-2.0 (weights of the MobileSAM authors)",
    intended_use=USE,
    build=n.build_mobile_sam,
    shapes=lambda variant, frame: n.shapes_of(
        n.on_meta(lambda: n.build_mobile_sam(variant, frame))
    ),
    rules=lambda variant, frame: rules.sam(frame),
    emit_encoder=n.emit_tiny_vit_encoder,
    emit_cpu_encoder=n.emit_cpu_tiny_vit_encoder,
    emit_decoder=n.emit_sam_decoder,
    emit_cpu_decoder=n.emit_cpu_sam_decoder,
    adapt=n.keep,
    resizable=True,
    croppable=True,
)
LITE_MEDSAM = Family(
    name="lite_medsam",
    title="LiteMedSAM",
    variants=("vit_t",),
    whole=(256, 256),
    license="Apache-2.0 (weights of the MedSAM authors)",
    intended_use=USE,
    build=n.build_lite_medsam,
    shapes=lambda variant, frame: n.shapes_of(
        n.on_meta(lambda: n.build_lite_medsam(variant, frame))
    ),
    rules=lambda variant, frame: rules.lite_medsam(frame),
    emit_encoder=n.emit_tiny_vit_encoder,
    emit_cpu_encoder=n.emit_cpu_tiny_vit_encoder,
    emit_decoder=n.emit_box_decoder,
    emit_cpu_decoder=n.emit_cpu_box_decoder,
    adapt=n.keep,
)
EDGE_SAM = Family(
    name="edge_sam",
    title="EdgeSAM",
    variants=("repvit_m1",),
    whole=SQUARE,
    license="NTU S-Lab License 1.0 (non-commercial; weights of the EdgeSAM authors)",
    intended_use=USE,
    build=n.build_edge_sam,
    shapes=lambda variant, frame: n.shapes_of(n.on_meta(lambda: n.build_edge_sam(variant, frame))),
    rules=lambda variant, frame: rules.sam(frame),
    emit_encoder=n.emit_repvit_encoder,
    emit_decoder=n.emit_sam_decoder,
    emit_cpu_decoder=n.emit_cpu_sam_decoder,
    adapt=n.keep,
    resizable=True,
    croppable=True,
    multiple=32,
)


def _efficient_sam(variant: str, name: str, title: str) -> Family:
    return Family(
        name=name,
        title=title,
        variants=(variant,),
        whole=SQUARE,
        license="Apache-2.0 (weights of the EfficientSAM authors)",
        intended_use=USE,
        build=efficient_sam.build,
        shapes=efficient_sam.shapes,
        rules=lambda variant, frame: rules.efficient_sam(frame),
        emit_encoder=efficient_sam.emit_encoder,
        emit_cpu_encoder=efficient_sam.emit_cpu_encoder,
        emit_decoder=efficient_sam.emit_mask_decoder,
        adapt=n.keep,
        resizable=True,
    )


EFFICIENT_SAM_TI = _efficient_sam("vit_ti", "efficient_sam_ti", "EfficientSAM-Ti")
EFFICIENT_SAM_S = _efficient_sam("vit_s", "efficient_sam_s", "EfficientSAM-S")
SAMED = Family(
    name="samed",
    title="SAMed",
    variants=("vit_b",),
    whole=SQUARE,
    default_size=(512, 512),
    license=UNKNOWN,
    intended_use="Segmentation of eight abdominal organs for research. Not for clinical use.",
    rules=lambda variant, frame: rules.samed(frame),
    emit_decoder=n.emit_prompt_free_decoder,
    emit_cpu_decoder=n.emit_cpu_prompt_free_decoder,
    **_vit("samed", NINE_MASKS),
    resizable=True,
)
SAM2 = Family(
    name="sam2",
    title="SAM 2.1 (single images)",
    variants=("sam2.1_hiera_t",),
    whole=SQUARE,
    license="Apache-2.0 (weights of Meta AI; fine-tunes: as stated by their origin)",
    intended_use=USE,
    build=sam2.build,
    shapes=sam2.shapes,
    rules=lambda variant, frame: rules.sam2(frame),
    emit_encoder=sam2.emit_encoder,
    emit_cpu_encoder=sam2.emit_cpu_encoder,
    emit_decoder=sam2.emit_image_decoder,
    adapt=sam2.adapt,
    ignorable=sam2.VIDEO_ONLY,
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        SAM,
        MEDSAM,
        SAM_MED2D,
        MEDICAL_SAM_ADAPTER,
        MOBILE_SAM,
        LITE_MEDSAM,
        EDGE_SAM,
        EFFICIENT_SAM_TI,
        EFFICIENT_SAM_S,
        SAMED,
        SAM2,
    )
}


def family_named(name: str) -> Family:
    """The family of that name.

    Raises OptionError for an unknown one; the known ones are listed.
    """
    if name not in FAMILIES:
        raise OptionError(f"unknown family {name!r}: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


__all__ = ["FAMILIES", "family_named"]
