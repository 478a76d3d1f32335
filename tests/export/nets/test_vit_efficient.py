"""EfficientSAM's image encoder: graph against torch, torch against its formulas."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F

from samrt_export.graphs import blocks, vit_attention
from samrt_export.graphs.efficient_vit import emit_efficient_vit
from samrt_export.nets.efficient_vit import Attention, EfficientSamEncoder, EfficientVitConfig

from .conftest import build, run

SMALL = EfficientVitConfig(
    dim=24, heads=3, depth=2, image_size=(96, 160), out_chans=16, pretrain_tokens=25
)


def make(cfg: EfficientVitConfig) -> EfficientSamEncoder:
    encoder = EfficientSamEncoder(cfg).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, value in encoder.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            gain = value.shape[1:].numel() ** -0.5 if value.ndim > 1 else 0.4
            value.copy_(noise * (0.5 if "pos_embed" in key else gain))
            if value.ndim == 1 and key.endswith("weight"):
                value.add_(1.0)
    return encoder


def graph_of(encoder: EfficientSamEncoder, **options: Any) -> onnx.ModelProto:
    return build(partial(emit_efficient_vit, **options), encoder, encoder.cfg.image_size)


@torch.no_grad()
@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiled"])
@pytest.mark.parametrize("size", [(96, 160), (80, 80), (32, 48)])
def test_graph_equals_torch(
    size: tuple[int, int], tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit_attention, "SCORE_TILE_BYTES", 2000)
    monkeypatch.setattr(blocks, "HIDDEN_TILE_BYTES", 4000)
    encoder = make(replace(SMALL, image_size=size))
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = encoder(image)
    error = (run(graph_of(encoder, tiled=tiled), image) - expected).square().mean().sqrt()
    assert error / expected.std() < 1e-5


@torch.no_grad()
def test_attention_is_the_textbook_formula() -> None:
    attention = Attention(SMALL)
    x = torch.randn(1, 11, 24, generator=torch.Generator().manual_seed(2))
    q, k, v = attention.qkv(x).view(1, 11, 3, 3, 8).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 11, 24)
    torch.testing.assert_close(attention(x), attention.proj(mixed))


@torch.no_grad()
def test_positions_drop_the_class_token_and_are_stretched_bicubically() -> None:
    encoder = make(SMALL)
    table = encoder.pos_embed[:, 1:].reshape(1, 5, 5, 24)
    expected = F.interpolate(table.permute(0, 3, 1, 2), (6, 10), mode="bicubic")
    torch.testing.assert_close(encoder.positions(), expected.permute(0, 2, 3, 1))
    same = make(replace(SMALL, image_size=(80, 80)))
    assert torch.equal(same.positions(), same.pos_embed[:, 1:].reshape(1, 5, 5, 24))


def test_graph_has_layer_norms_and_no_shape_arithmetic() -> None:
    ops = Counter(node.op_type for node in graph_of(make(SMALL)).graph.node)
    assert not {"Shape", "Gather", "Expand", "Tile", "OneHot", "Resize"} & set(ops)
    assert ops["LayerNormalization"] == 2 * SMALL.depth + 2
    assert ops["Softmax"] == SMALL.depth


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (96, 100)}, "not a multiple of the patch size 16"),
        ({"heads": 5}, "not a multiple of 5 heads"),
        ({"pretrain_tokens": 24}, "do not make a square"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_wrong_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(1, 3, 96, 160\)"):
        make(SMALL)(torch.zeros(1, 3, 160, 96))
