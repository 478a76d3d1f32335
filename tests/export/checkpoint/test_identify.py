from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from samrt_export.checkpoint import CheckpointError, identify

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden" / "manifests"

WANTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sam_vit_b": ("sam", "vit_b", {"dim": 768, "depth": 12, "heads": 12, "grid": (64, 64),
                                   "global_blocks": (2, 5, 8, 11), "window": 14}),
    "sam_vit_l": ("sam", "vit_l", {"dim": 1024, "depth": 24, "heads": 16,
                                   "global_blocks": (5, 11, 17, 23)}),
    "sam_vit_h": ("sam", "vit_h", {"dim": 1280, "depth": 32, "heads": 16, "mlp_dim": 5120,
                                   "global_blocks": (7, 15, 23, 31)}),
    "medsam": ("sam", "vit_b", {"image_size": (1024, 1024)}),
    "mobile_sam": ("mobile_sam", "vit_t", {"image_size": (1024, 1024), "head": True,
                                           "dims": (64, 128, 160, 320), "depths": (2, 2, 6, 2),
                                           "windows": (0, 7, 14, 7)}),
    "lite_medsam": ("lite_medsam", "vit_t", {"image_size": (256, 256), "head": False}),
    "sam_med2d": ("sam_med2d", "vit_b", {"image_size": (256, 256), "grid": (16, 16),
                                         "adapters": ("Adapter",)}),
    "efficient_sam_ti": ("efficient_sam_ti", "vit_ti", {"dim": 192, "heads": 3, "depth": 12,
                                                        "pos_grid": (14, 14)}),
    "efficient_sam_s": ("efficient_sam_s", "vit_s", {"dim": 384, "heads": 6}),
    "edge_sam": ("edge_sam", "repvit_m1", {"dim": 48, "fuse": True}),
    "medical_sam_adapter": ("medical_sam_adapter", "vit_b",
                            {"image_size": (1024, 1024), "rel_h": True, "heads": 12}),
    "sam_lora_vitb": ("sam_lora", "qv", {"rank": 8, "dim": 768, "depth": 12,
                                         "needs_base": True}),
    "samed": ("sam_lora", "samed", {"rank": 4, "num_mask_tokens": 9, "needs_base": True}),
    "sam2.1_hiera_t": ("sam2", "sam2.1_hiera_t", {"dim": 96, "depth": 12, "memory": True}),
}  # fmt: skip
ALSO = {"sam_vit_b": ("medsam",), "medsam": ("medsam",), "sam2.1_hiera_t": ("medsam2",)}


@pytest.mark.parametrize("name", sorted(WANTED))
def test_golden_manifests(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    if not path.is_file():
        pytest.skip("no golden vectors beside the repository (../shared/golden)")
    keys = json.loads(path.read_text("utf-8"))["keys"]
    found = identify({key: tuple(shape) for key, (_, shape) in keys.items()})
    family, variant, facts = WANTED[name]
    assert (found.family, found.variant) == (family, variant)
    assert {key: found.facts[key] for key in facts} == facts
    assert found.also_fits == ALSO.get(name, ())


def test_every_golden_family_is_tried() -> None:
    if not GOLDEN.is_dir():
        pytest.skip("no golden vectors beside the repository (../shared/golden)")
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(WANTED)


def decoder(tokens: int = 4) -> Shapes:
    return {
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "prompt_encoder.mask_downscaling.0.weight": (4, 1, 2, 2),
        "mask_decoder.iou_token.weight": (1, 256),
        "mask_decoder.mask_tokens.weight": (tokens, 256),
    }


def vit(
    dim: int = 768, depth: int = 12, grid: int = 64, rel: str = "rel_pos", **more: Any
) -> Shapes:
    heads = {768: 64, 1024: 64, 1280: 80}.get(dim, 32)
    shapes: Shapes = {
        "image_encoder.pos_embed": (1, more.get("table", grid), more.get("table", grid), dim),
        "image_encoder.patch_embed.proj.weight": (dim, 3, 16, 16),
        "image_encoder.neck.0.weight": (256, dim, 1, 1),
    }
    for k in range(depth):
        at = f"image_encoder.blocks.{k}."
        length = 2 * grid - 1 if (k + 1) % max(depth // 4, 1) == 0 else 27
        shapes[f"{at}attn.qkv.weight"] = (3 * dim, dim)
        shapes[f"{at}attn.{rel}_h"] = shapes[f"{at}attn.{rel}_w"] = (length, heads)
        shapes[f"{at}mlp.lin1.weight"] = (4 * dim, dim)
    return {**shapes, **decoder()}


def test_sizes_of_sam() -> None:
    for (dim, depth), variant in {
        (768, 12): "vit_b",
        (1024, 24): "vit_l",
        (1280, 32): "vit_h",
    }.items():
        found = identify(vit(dim, depth))
        assert (found.family, found.variant) == ("sam", variant)
        assert found.also_fits == (("medsam",) if variant == "vit_b" else ())
        assert not found.needs_base


def test_other_input_sizes_and_widths_show() -> None:
    found = identify(vit(grid=32))
    assert found.facts["image_size"] == (512, 512)
    assert found.facts["global_blocks"] == (2, 5, 8, 11)
    assert found.also_fits == ()
    small = identify(vit(dim=64, depth=4, grid=8))
    assert small.variant == "vit_64x4"
    assert small.facts["heads"] == 2
    assert str(small) == "sam vit_64x4"


def test_an_input_of_one_window_does_not_show_its_global_blocks() -> None:
    found = identify(vit(grid=14))
    assert found.facts["image_size"] == (224, 224)
    assert found.facts["global_blocks"] == ()


def test_more_mask_tokens_show() -> None:
    found = identify({**vit(), **decoder(tokens=9)})
    assert found.family == "sam"
    assert found.facts["num_mask_tokens"] == 9


def test_sam_med2d() -> None:
    shapes = vit(grid=16)
    for k in range(12):
        shapes[f"image_encoder.blocks.{k}.Adapter.channel.0.weight"] = (192, 768)
    found = identify(shapes)
    assert (found.family, found.facts["image_size"]) == ("sam_med2d", (256, 256))


def medical_adapter(grid: int) -> Shapes:
    shapes = vit(grid=grid, rel="rel", table=64)
    for k in range(12):
        for kind in ("MLP", "Space", "Depth"):
            shapes[f"image_encoder.blocks.{k}.{kind}_Adapter.D_fc1.weight"] = (192, 768)
    return shapes


@pytest.mark.parametrize(("grid", "size"), [(64, 1024), (16, 256)])
def test_medical_sam_adapter_shows_its_size_in_the_relative_tables(grid: int, size: int) -> None:
    found = identify(medical_adapter(grid))
    assert found.family == "medical_sam_adapter"
    assert found.facts["image_size"] == (size, size)
    assert found.facts["pos_grid"] == (64, 64)


def test_adapters_of_others_are_named() -> None:
    with pytest.raises(CheckpointError, match="Medical SAM Adapter's network without adapters"):
        identify(vit(rel="rel"))
    shapes = {**vit(), "image_encoder.blocks.0.Task_Adapter.D_fc1.weight": (1, 1)}
    with pytest.raises(CheckpointError, match=r"SAM with adapters Task_Adapter"):
        identify(shapes)


def tiny_vit(kernel: int) -> Shapes:
    at = "image_encoder.layers."
    return {
        "image_encoder.patch_embed.seq.0.c.weight": (32, 3, kernel, kernel),
        f"{at}0.blocks.0.conv3.c.weight": (64, 256, 1, 1),
        f"{at}1.blocks.0.attn.attention_biases": (4, 49),
        f"{at}1.blocks.0.attn.proj.weight": (128, 128),
        **decoder(),
    }


def test_tiny_vit() -> None:
    mobile, lite = identify(tiny_vit(3)), identify(tiny_vit(1))
    assert (mobile.family, mobile.facts["image_size"]) == ("mobile_sam", (1024, 1024))
    assert (lite.family, lite.facts["image_size"]) == ("lite_medsam", (256, 256))
    assert lite.facts["windows"] == (0, 7)
    adapted = {**tiny_vit(3), "image_encoder.layers.1.blocks.0.Depth_Adapter.D_fc1.weight": (1, 1)}
    with pytest.raises(CheckpointError, match="Medical SAM Adapter on TinyViT"):
        identify(adapted)


def efficient(dim: int) -> Shapes:
    return {
        "image_encoder.pos_embed": (1, 197, dim),
        "image_encoder.patch_embed.proj.weight": (dim, 3, 16, 16),
        "image_encoder.blocks.0.mlp.fc1.weight": (4 * dim, dim),
        "prompt_encoder.bbox_top_left_embeddings.weight": (1, 256),
        "mask_decoder.mask_tokens.weight": (4, 256),
    }


def test_efficient_sam() -> None:
    assert identify(efficient(192)).family == "efficient_sam_ti"
    assert identify(efficient(384)).family == "efficient_sam_s"
    assert identify(efficient(192)).facts["mask_prompts"] is False
    with pytest.raises(CheckpointError, match="EfficientSAM of width 256, expected 192 or 384"):
        identify(efficient(256))


def repvit(fuse: bool) -> Shapes:
    shapes: Shapes = {
        "image_encoder.features.0.0.c.weight": (24, 3, 3, 3),
        "image_encoder.features.0.2.c.weight": (48, 24, 3, 3),
        "image_encoder.features.1.token_mixer.0.conv.c.weight": (48, 1, 3, 3),
        **decoder(),
    }
    return {**shapes, "image_encoder.fuse_stage2.weight": (256, 192, 1, 1)} if fuse else shapes


def test_edge_sam() -> None:
    assert identify(repvit(True)).family == "edge_sam"
    with pytest.raises(CheckpointError, match="RepViT-SAM"):
        identify(repvit(False))


def hiera(dim: int, depth: int, edition: str) -> Shapes:
    at = "image_encoder.trunk."
    shapes: Shapes = {
        f"{at}pos_embed": (1, dim, 7, 7),
        f"{at}patch_embed.proj.weight": (dim, 3, 7, 7),
        "sam_mask_decoder.mask_tokens.weight": (4, 256),
        "memory_attention.norm.weight": (256,),
    }
    for k in range(depth):
        shapes[f"{at}blocks.{k}.attn.qkv.weight"] = (3 * dim, dim)
        shapes[f"{at}blocks.{k}.attn.proj.weight"] = (dim, dim)
    return {**shapes, "no_obj_embed_spatial": (1, 64)} if edition == "2.1" else shapes


@pytest.mark.parametrize(
    ("dim", "depth", "edition", "variant"),
    [
        (96, 12, "2.1", "sam2.1_hiera_t"),
        (96, 12, "2.0", "sam2_hiera_t"),
        (96, 16, "2.1", "sam2.1_hiera_s"),
        (112, 24, "2.1", "sam2.1_hiera_b+"),
        (144, 48, "2.1", "sam2.1_hiera_l"),
        (64, 3, "2.1", "sam2.1_hiera_custom"),
    ],
)
def test_sam2(dim: int, depth: int, edition: str, variant: str) -> None:
    found = identify(hiera(dim, depth, edition))
    assert (found.family, found.variant) == ("sam2", variant)
    assert found.also_fits == (("medsam2",) if variant == "sam2.1_hiera_t" else ())


def flat_lora(count: int = 24) -> Shapes:
    shapes: Shapes = {}
    for k in range(count):
        shapes[f"w_a_{k:03d}"], shapes[f"w_b_{k:03d}"] = (4, 768), (768, 4)
    return shapes


def test_adapters_need_a_base() -> None:
    plain = identify(flat_lora())
    assert (plain.family, plain.variant, plain.needs_base) == ("sam_lora", "qv", True)
    samed = identify({**flat_lora(), **decoder(9)})
    assert (samed.variant, samed.facts["num_mask_tokens"]) == ("samed", 9)


@pytest.mark.parametrize("leaf", ["lora_{}.weight", "lora_{}.default.weight"])
def test_peft_adapters(leaf: str) -> None:
    at = "base_model.model.image_encoder.blocks.{}.attn.qkv."
    shapes: Shapes = {}
    for k in range(12):
        shapes[at.format(k) + leaf.format("A")] = (16, 768)
        shapes[at.format(k) + leaf.format("B")] = (2304, 16)
    found = identify(shapes)
    assert (found.variant, found.facts["rank"], found.facts["depth"]) == ("peft", 16, 12)
    assert found.needs_base
    whole = identify({**shapes, at.format(0) + "base_layer.weight": (2304, 768)})
    assert (whole.variant, whole.needs_base) == ("wrapped", False)


@pytest.mark.parametrize(
    ("inner", "linear"), [("qkv", "linear_{}_{}"), ("qkv_proj", "w_{}_linear_{}")]
)
def test_adapters_inside_a_whole_model(inner: str, linear: str) -> None:
    shapes = vit()
    for k in range(12):
        at = f"image_encoder.blocks.{k}.attn.qkv"
        shapes[f"{at}.{inner}.weight"] = shapes.pop(f"{at}.weight")
        for part in "qv":
            shapes[f"{at}.{linear.format('a', part)}.weight"] = (4, 768)
            shapes[f"{at}.{linear.format('b', part)}.weight"] = (768, 4)
    found = identify(shapes)
    assert (found.variant, found.facts["depth"], found.needs_base) == ("wrapped", 12, False)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["vision_encoder.layers.0.attn.qkv.weight", "mask_decoder.iou_token.weight"],
         "Hugging Face transformers: use the checkpoint in the original layout"),
        (["shared_image_embedding.positional_embedding"], "Hugging Face transformers"),
        (["memory_attention.layers.0.norm1.weight", "maskmem_tpos_enc"],
         "video memory of SAM 2 or MedSAM2 without an image encoder"),
        (["image_encoder.backbone.stages.0.op_list.0.main.conv.weight"], "EfficientViT-SAM"),
        (["model.0.conv.weight", "model.1.cv1.conv.weight"], "FastSAM"),
        (["22.cv1.conv.weight", "0.conv.weight"], "FastSAM"),
        (["detector.backbone.x"], "SAM 3"),
        (["image_encoder.patch_embedding.position_embeddings"], "SegVol"),
        (["blocks.0.attn.qkv.weight", "cls_token"], "a plain ViT image encoder"),
        (["deconv1.block.0.weight", "decoder.samplers.0.conv.weight"], "micro-sam's instance"),
        (["image_encoder.pos_embed", "image_encoder.blocks.0.attn.qkv.weight"],
         "SAM's image_encoder without prompt_encoder and mask_decoder: save the whole model"),
        (["mask_decoder.iou_token.weight", "prompt_encoder.no_mask_embed.weight"],
         "prompt_encoder and mask_decoder without image_encoder"),
        (["image_encoder.stem.weight", "mask_decoder.x", "prompt_encoder.y"],
         "a SAM with an image encoder of another type: samrt knows SAM's ViT"),
        (["features.0.weight", "classifier.weight"],
         r"of no known family: it has 2 tensors such as features\.0\.weight, classifier\.weight"),
        ([], "of no known family: it has 0 tensors such as none"),
    ],
)  # fmt: skip
def test_the_unknown_is_described(names: list[str], text: str) -> None:
    with pytest.raises(CheckpointError, match=text) as caught:
        identify({name: (1, 2) for name in names})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ("image_encoder.cnn_embed.inc.weight", "SAMUS: this family is not supported"),
        ("image_encoder.input_Adapter.D_fc1.weight", "SAMUS"),
        ("mask_decoder.hf_token.weight", "HQ-SAM"),
    ],
)
def test_relatives_of_sam_are_not_taken_for_it(extra: str, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        identify({**vit(), extra: (1, 1)})


def test_volumes_are_refused() -> None:
    shapes = {**vit(), "image_encoder.pos_embed": (1, 8, 8, 8, 768)}
    with pytest.raises(CheckpointError, match="3-D SAM"):
        identify(shapes)


@pytest.mark.parametrize(
    "name", ["image_encoder.neck.0.weight", "mask_decoder.mask_tokens.weight",
             "image_encoder.patch_embed.proj.weight"]
)  # fmt: skip
def test_half_a_model_is_an_error_not_a_crash(name: str) -> None:
    shapes = vit()
    del shapes[name]
    with pytest.raises(CheckpointError, match=rf"lacks {name} of \d axes: it is missing"):
        identify(shapes)
    shapes[name] = (7,)
    with pytest.raises(CheckpointError, match=r"lacks .*its shape is \(7,\)"):
        identify(shapes)


def test_absurd_names_and_sizes_do_no_harm() -> None:
    shapes = {**vit(), f"image_encoder.blocks.{'9' * 5000}.attn.qkv.weight": (3, 1)}
    assert identify(shapes).variant == "vit_b"
    for name in shapes:
        if name.endswith(("rel_pos_h", "rel_pos_w")):
            shapes[name] = (0, 0)
    assert identify(shapes).family == "sam"
    assert identify({f"w_a_{'9' * 5000}": (1, 1), **flat_lora()}).facts["depth"] == 12
