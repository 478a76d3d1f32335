"""The ViT image encoders: torch against the original code, graph against torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import shape_inference
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import blocks, vit_attention
from samrt_export.graphs.vit import emit_vit
from samrt_export.nets.vit import (
    VIT_PRESETS,
    ImageEncoderViT,
    VitConfig,
    adapt_state,
    checkpoint_shapes,
    relative_table,
)

from .conftest import build, run

SMALL = VitConfig(
    dim=32, depth=3, heads=2, global_blocks=(1,), image_size=(128, 96), window=5, out_chans=16
)
SQUARE = replace(SMALL, image_size=(128, 128))
CONFIGS = {
    "grid 8x6, windows pad both axes": SMALL,
    "grid 10x5, windows fit": replace(SMALL, image_size=(160, 80)),
    "grid 2x4, smaller than a window": replace(SMALL, image_size=(32, 64)),
    "grid 5x12, windows pad one axis": replace(SMALL, image_size=(80, 192)),
    "SAM-Med2D": replace(SMALL, adapters="sam_med2d"),
    "Medical SAM Adapter": replace(SMALL, adapters="msa", rel_pos_keys=("rel_h", "rel_w")),
    "head of 20 channels": replace(SMALL, dim=40),
}
FORBIDDEN = {"Shape", "Gather", "Expand", "Tile", "OneHot", "Where", "Range", "Loop", "If"}


def randomise(module: nn.Module, seed: int = 3) -> None:
    """Weights that make every term matter: tables, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            gain = value.shape[1:].numel() ** -0.5 if value.ndim > 1 else 0.4
            value.copy_(noise * (0.5 if "rel_" in key or "pos_embed" in key else gain))
            if value.ndim == 1 and key.endswith("weight"):
                value.add_(1.0)


def make(cfg: VitConfig) -> ImageEncoderViT:
    encoder = ImageEncoderViT(cfg).eval()
    randomise(encoder)
    return encoder


def image_of(cfg: VitConfig) -> Tensor:
    return torch.randn(1, 3, *cfg.image_size, generator=torch.Generator().manual_seed(9))


def graph_of(encoder: ImageEncoderViT, **options: Any) -> onnx.ModelProto:
    return build(partial(emit_vit, **options), encoder, encoder.cfg.image_size)


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).square().mean().sqrt() / expected.std())


@torch.no_grad()
@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiled"])
@pytest.mark.parametrize("name", CONFIGS)
def test_graph_equals_torch(name: str, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit_attention, "SCORE_TILE_BYTES", 2000)
    monkeypatch.setattr(blocks, "HIDDEN_TILE_BYTES", 4000)
    encoder = make(CONFIGS[name])
    image = image_of(encoder.cfg)
    assert relative_error(run(graph_of(encoder, tiled=tiled), image), encoder(image)) < 1e-5


def original(segment_anything: ModuleType, cfg: VitConfig) -> Any:
    """`segment_anything`'s own encoder for a square configuration."""
    encoders = segment_anything.modeling.ImageEncoderViT
    return encoders(
        img_size=cfg.image_size[0], patch_size=cfg.patch, embed_dim=cfg.dim, depth=cfg.depth,
        num_heads=cfg.heads, mlp_ratio=cfg.mlp_ratio, out_chans=cfg.out_chans, use_rel_pos=True,
        window_size=cfg.window, global_attn_indexes=cfg.global_blocks,
        norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6),
    ).eval()  # fmt: skip


@torch.no_grad()
def test_torch_equals_the_original(segment_anything: ModuleType) -> None:
    encoder, image = make(SQUARE), image_of(SQUARE)
    oracle = original(segment_anything, SQUARE)
    oracle.load_state_dict(encoder.state_dict())
    assert relative_error(encoder(image), oracle(image)) < 1e-6


@torch.no_grad()
def test_interpolated_tables_equal_what_the_original_does_by_itself(
    segment_anything: ModuleType,
) -> None:
    """The original resizes relative positions when the grid differs, and not `pos_embed`."""
    oracle = original(segment_anything, SQUARE)
    randomise(oracle)
    cfg = replace(SQUARE, image_size=(64, 160), pretrain_grid=SQUARE.grid)
    state = adapt_state(oracle.state_dict(), cfg)
    encoder = ImageEncoderViT(cfg).eval()
    encoder.load_state_dict(state)
    oracle.pos_embed = nn.Parameter(state["pos_embed"])
    assert relative_error(encoder(image_of(cfg)), oracle(image_of(cfg))) < 1e-6


def test_state_dict_is_that_of_the_original_vit_b(segment_anything: ModuleType) -> None:
    with torch.device("meta"):
        sam = segment_anything.sam_model_registry["vit_b"]()
        encoder = ImageEncoderViT(VIT_PRESETS["sam_vit_b"])
    expected = {key: value.shape for key, value in sam.image_encoder.state_dict().items()}
    got = {key: value.shape for key, value in encoder.state_dict().items()}
    assert list(got.items()) == list(expected.items())


@torch.no_grad()
def test_cropping_keeps_the_meaning_of_positions() -> None:
    whole = make(SQUARE)
    cfg = replace(SQUARE, image_size=(96, 48), pretrain_grid=SQUARE.grid)
    state = adapt_state(whole.state_dict(), cfg, "crop")
    assert torch.equal(state["pos_embed"], whole.pos_embed[:, :6, :3])
    for axis, key in ((6, "rel_pos_h"), (3, "rel_pos_w")):
        cropped = relative_table(state[f"blocks.1.attn.{key}"], axis)
        full = relative_table(whole.state_dict()[f"blocks.1.attn.{key}"], 8)
        assert torch.equal(cropped, full[:axis, :axis])
        window = f"blocks.0.attn.{key}"
        assert torch.equal(state[window], whole.state_dict()[window])
    encoder = ImageEncoderViT(cfg).eval()
    encoder.load_state_dict(state)
    image = image_of(cfg)
    assert relative_error(run(graph_of(encoder), image), encoder(image)) < 1e-5


@torch.no_grad()
def test_cropping_to_windows_that_see_no_padding_is_exact() -> None:
    """Without global blocks, windows inside the cropped part cannot see what was cut off."""
    cfg = replace(SQUARE, global_blocks=(), window=4)
    whole = make(cfg)
    part = ImageEncoderViT(replace(cfg, image_size=(64, 128), pretrain_grid=cfg.grid)).eval()
    part.load_state_dict(adapt_state(whole.state_dict(), part.cfg, "crop"))
    image = image_of(cfg)
    got, expected = part(image[:, :, :64]), whole(image)
    torch.testing.assert_close(got[:, :, :3], expected[:, :, :3], rtol=1e-4, atol=1e-5)


def test_a_state_that_fits_is_passed_on_as_it_is() -> None:
    state = make(SMALL).state_dict()
    for mode in ("interpolate", "crop"):
        adapted = adapt_state(state, SMALL, mode)
        assert list(adapted) == list(state)
        assert all(torch.equal(adapted[key], state[key]) for key in state)


def test_pos_embed_is_resized_as_the_family_does() -> None:
    state = make(SQUARE).state_dict()
    results = {}
    for how in ("bilinear", "bicubic"):
        cfg = replace(SQUARE, image_size=(64, 64), pretrain_grid=(8, 8), pos_interpolation=how)
        results[how] = adapt_state(state, cfg)["pos_embed"]
        expected = nn.functional.interpolate(
            state["pos_embed"].permute(0, 3, 1, 2), (4, 4), mode=how, align_corners=False
        )
        torch.testing.assert_close(results[how], expected.permute(0, 2, 3, 1))
    assert not torch.allclose(results["bilinear"], results["bicubic"], atol=1e-3)


def test_checkpoint_shapes_are_those_of_the_checkpoint_not_of_the_frame() -> None:
    cfg = VIT_PRESETS["samed"]
    assert cfg.grid == (32, 32)
    shapes = checkpoint_shapes(cfg)
    assert shapes["pos_embed"] == (1, 64, 64, 768)
    assert shapes["blocks.2.attn.rel_pos_h"] == (127, 64)
    small = replace(
        VIT_PRESETS["medical_sam_adapter"], image_size=(256, 256), pretrain_grid=(16, 16)
    )
    shapes = checkpoint_shapes(small)
    assert shapes["pos_embed"] == (1, 64, 64, 768)
    assert shapes["blocks.2.attn.rel_w"] == (31, 64)


@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiled"])
def test_graph_has_no_shape_arithmetic_and_all_norms(tiled: bool) -> None:
    cfg = CONFIGS["SAM-Med2D"]
    model = graph_of(make(cfg), tiled=tiled)
    ops = Counter(node.op_type for node in model.graph.node)
    assert not FORBIDDEN & set(ops)
    assert ops["LayerNormalization"] == 3 * cfg.depth + 2
    assert ops["Softmax"] >= cfg.depth


def test_scores_get_no_bias_in_the_whole_form() -> None:
    """Relative positions are part of the product, so fused attention kernels apply."""
    model = shape_inference.infer_shapes(graph_of(make(SMALL)))
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    by_output = {node.output[0]: node for node in model.graph.node}
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert all(by_output[node.input[0]].op_type == "MatMul" for node in softmaxes)
    assert [1, 2, 48, 48] in [shapes[node.output[0]] for node in softmaxes]


def test_nodes_and_weights_carry_the_modules_names() -> None:
    model = graph_of(make(SMALL))
    names = [node.name for node in model.graph.node]
    for scope in ("blocks.0/norm1", "blocks.2/attn/qkv", "blocks.1/attn/proj", "blocks.0/mlp/lin1"):
        assert any(name.startswith(f"{scope}/") for name in names), scope
    assert any(item.name.startswith("blocks.2/attn/qkv/") for item in model.graph.initializer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (100, 96)}, "not a multiple of the patch size 16"),
        ({"heads": 3}, "not a multiple of 3 heads"),
        ({"global_blocks": (3,)}, "of 3 blocks"),
        ({"adapters": "lora"}, "expected none, sam_med2d or msa"),
        ({"adapters": "sam_med2d", "image_size": (128, 80)}, "multiple of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_wrong_images_and_states_are_refused() -> None:
    encoder = make(SMALL)
    with pytest.raises(ValueError, match=r"expected \(1, 3, 128, 96\)"):
        encoder(torch.zeros(1, 3, 96, 128))
    state = encoder.state_dict()
    larger = replace(SMALL, image_size=(160, 96), pretrain_grid=SMALL.grid)
    with pytest.raises(ValueError, match="cannot be cropped from a pos_embed of \\(8, 6\\)"):
        adapt_state(state, larger, "crop")
    with pytest.raises(ValueError, match="expected interpolate or crop"):
        adapt_state(state, larger, "nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no 'blocks\.1\.attn\.rel_pos_w'"):
        adapt_state({k: v for k, v in state.items() if k != "blocks.1.attn.rel_pos_w"}, SMALL)
    with pytest.raises(ValueError, match="expected 4 axes, the last of 32"):
        adapt_state({**state, "pos_embed": torch.zeros(1, 49, 32)}, SMALL)
    with pytest.raises(ValueError, match="needs 9: use adapt_state"):
        relative_table(torch.zeros(7, 4), 5)


def test_a_graph_needs_values() -> None:
    with torch.device("meta"):
        encoder = ImageEncoderViT(SMALL)
    g = GraphBuilder("encoder")
    with pytest.raises(ValueError, match="load the state dict first"):
        emit_vit(g, encoder, g.input("image", (1, 3, *SMALL.image_size)))


def test_medical_sam_adapter_pads_before_the_norm() -> None:
    """Padding tokens hold norm1's bias there; elsewhere they are zero."""
    plain, adapter = make(SMALL), make(CONFIGS["Medical SAM Adapter"])
    for encoder in (plain, adapter):
        block: Any = encoder.blocks[0]
        x = torch.randn(1, 8, 6, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            before = block(x)
            seen: list[Tensor] = []
            block.attn.register_forward_hook(lambda _m, args, _o, seen=seen: seen.append(args[0]))
            torch.testing.assert_close(block(x), before)
        padding = seen[0][1, 0, -1]  # the right end of the second window
        expected = block.norm1.bias if encoder is adapter else torch.zeros(32)
        np.testing.assert_allclose(padding, expected.detach(), atol=1e-6)
