"""Hiera of SAM 2.1: keys, golden embeddings, and the graph against the torch module."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.hiera import emit_hiera
from samrt_export.nets.hiera import HIERA_TINY, Attention, HieraConfig, HieraEncoder

SMALL = HieraConfig(
    image_size=(96, 160),
    dim=8,
    heads=1,
    stages=(1, 2, 4, 2),
    windows=(8, 2, 4, 3),
    global_blocks=(4, 5),
    background=(5, 3),
    out_chans=16,
)
CASES = {
    "padded and global": SMALL,
    "one window": replace(SMALL, image_size=(32, 32), windows=(8, 4, 2, 1)),
    "several heads": replace(SMALL, dim=12, heads=3, stages=(2, 1, 1, 1), global_blocks=(1, 2)),
    "window larger than the grid": replace(SMALL, image_size=(64, 32), windows=(8, 8, 8, 5)),
}


def whole(cfg: HieraConfig, tools: Any) -> nn.Module:
    """The encoder, `no_mem_embed` and the decoder's projections of the fine maps."""
    parts = nn.Module()
    parts.encoder = HieraEncoder(cfg)
    parts.no_mem_embed = nn.Parameter(torch.zeros(1, 1, cfg.out_chans))
    parts.conv_s0 = nn.Conv2d(cfg.out_chans, 4, 1)
    parts.conv_s1 = nn.Conv2d(cfg.out_chans, 6, 1)
    random: nn.Module = tools.randomise(parts)
    return random


def reference(parts: Any, image: torch.Tensor) -> dict[str, Any]:
    """What the decoder gets, from the modules one by one."""
    with torch.no_grad():
        embedding, fine, coarse = parts.encoder(image)
        return {
            "image_embeddings": (embedding + parts.no_mem_embed.reshape(1, -1, 1, 1)).numpy(),
            "dec_high_res_0": parts.conv_s0(fine).numpy(),
            "dec_high_res_1": parts.conv_s1(coarse).numpy(),
        }


def emit(g: GraphBuilder, parts: Any, image: str, **options: Any) -> dict[str, str]:
    projections = parts.conv_s0, parts.conv_s1
    return emit_hiera(g, parts.encoder, image, parts.no_mem_embed, projections, **options)


@pytest.mark.parametrize("cfg", CASES.values(), ids=CASES.keys())
def test_the_graph_computes_what_the_modules_do(tools: Any, cfg: HieraConfig) -> None:
    parts = whole(cfg, tools)
    image = tools.picture(cfg.image_size)
    expected = reference(parts, image)
    got = tools.session(tools.build(emit, parts, cfg.image_size))(image.numpy())
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert tools.deviation(got[name], value) < 1e-5, name
    assert expected["image_embeddings"].shape == (1, 16, *cfg.grid(2))


def test_the_embedding_comes_first_and_alone_if_asked(tools: Any) -> None:
    """Without projections the fine maps keep their width; without no_mem_embed nothing is added."""
    parts = whole(SMALL, tools)
    image = tools.picture(SMALL.image_size)
    model = tools.build(emit_hiera, parts.encoder, SMALL.image_size)
    got = list(tools.session(model)(image.numpy()).values())
    with torch.no_grad():
        for value, expected in zip(got, parts.encoder(image), strict=True):
            assert tools.deviation(value, expected.numpy()) < 1e-5


def test_tiles_change_nothing(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With limits so small that the small network is cut, too."""
    monkeypatch.setattr("samrt_export.graphs.windows.SCORE_TILE_BYTES", 1 << 18)
    monkeypatch.setattr("samrt_export.graphs.blocks.HIDDEN_TILE_BYTES", 1 << 16)
    cfg = CASES["several heads"]
    parts = whole(cfg, tools)
    image = tools.picture(cfg.image_size)
    models = [
        tools.build(lambda *args: emit(*args, tiled=tiled), parts, cfg.image_size)  # noqa: B023
        for tiled in (False, True)
    ]
    softmaxes = [Counter(n.op_type for n in model.graph.node)["Softmax"] for model in models]
    assert softmaxes[0] == sum(cfg.stages) < softmaxes[1]
    expected = reference(parts, image)
    got = tools.session(models[1])(image.numpy())
    for name, value in expected.items():
        assert tools.deviation(got[name], value) < 1e-5, name


def test_the_graph_is_clean(tools: Any) -> None:
    model = tools.build(emit, whole(SMALL, tools), SMALL.image_size)
    kinds = Counter(node.op_type for node in model.graph.node)
    allowed = {
        "Add", "Concat", "Conv", "Div", "Erf", "LayerNormalization", "MatMul", "Max", "Mul", "Pad",
        "Reshape", "Slice", "Softmax", "Split", "Transpose",
    }  # fmt: skip
    assert set(kinds) <= allowed
    assert kinds["LayerNormalization"] == 2 * sum(SMALL.stages)
    assert kinds["Conv"] == 1
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def test_the_position_embedding_is_not_stored_whole(tools: Any) -> None:
    cfg = replace(SMALL, image_size=(256, 256))
    model = tools.build(emit, whole(cfg, tools), cfg.image_size)
    tokens = cfg.grid(0)[0] * cfg.grid(0)[1]
    assert max(np.prod(t.dims) for t in model.graph.initializer) < tokens * cfg.dim


def test_nodes_carry_the_names_of_the_modules(tools: Any) -> None:
    model = tools.build(emit, whole(SMALL, tools), SMALL.image_size)
    scopes = {node.name.rsplit("/", 1)[0] for node in model.graph.node}
    assert {
        "trunk/patch_embed.proj", "trunk/blocks.0/attn/qkv", "trunk/blocks.1/proj",
        "trunk/blocks.3/mlp/layers.0", "trunk/blocks.8/attn/proj", "neck.convs.3",
    } <= scopes  # fmt: skip


def test_windows_of_the_blocks() -> None:
    """As in SAM 2.1's tiny model: a block that pools still has the window of the stage before."""
    windows = [HIERA_TINY.window(block) for block in range(12)]
    assert windows == [8, 8, 4, 4, 14, 0, 14, 0, 14, 0, 14, 7]
    assert [block for block in range(12) if HIERA_TINY.pools(block)] == [1, 3, 10]
    assert HIERA_TINY.ends == (0, 2, 9, 11)


def test_attention_is_torch_s() -> None:
    """Scaled dot-product attention over all tokens, heads side by side in q, in k and in v."""
    torch.manual_seed(0)
    module = Attention(6, 6, 3, pooled=False).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    qkv = module.qkv(x).reshape(2, 12, 3, 3, 2).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(2, 3, 4, 6)
    torch.testing.assert_close(module(x), module.proj(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (1024, 1000)}, r"\(1024, 1000\).*multiples of 32"),
        ({"stages": (1, 2, 7)}, "3 stages and 4 windows; expected 4"),
        ({"windows": (8, 4, 7, 7)}, "all but the last must be even"),
    ],
)
def test_wrong_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(HIERA_TINY, **change)


def test_wrong_arguments_are_refused(tools: Any) -> None:
    parts: Any = whole(SMALL, tools)
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        Attention(8, 8, 3, pooled=False)
    with pytest.raises(ValueError, match=r"\(96, 96\); this encoder takes \(96, 160\)"):
        parts.encoder(tools.picture((96, 96)))
    parts.conv_s0 = nn.Conv2d(16, 4, 3)
    with pytest.raises(TypeError, match="expected a 1x1 convolution with a bias"):
        tools.build(emit, parts, SMALL.image_size)


@pytest.mark.shared
def test_the_keys_are_the_checkpoint_s(golden_encoder: Any) -> None:
    with torch.device("meta"):
        state = HieraEncoder(HIERA_TINY).state_dict()
    keys = golden_encoder("sam2.1_hiera_t").keys()
    assert [(k, tuple(v.shape)) for k, v in state.items()] == keys


@pytest.mark.shared
@pytest.mark.slow
def test_embeddings_are_the_original_s(golden_encoder: Any, tools: Any) -> None:
    """Input: 0..1, antialiased bilinear resize of both axes on its own, ImageNet mean and std."""
    vectors = golden_encoder("sam2.1_hiera_t")
    encoder = HieraEncoder(HIERA_TINY)
    encoder.load_state_dict(vectors.weights())
    no_mem = vectors.weights("no_mem_embed")[""]

    def emit(g: GraphBuilder, encoder: HieraEncoder, image: str) -> dict[str, str]:
        return emit_hiera(g, encoder, image, no_mem)

    run = tools.session(tools.build(emit, encoder, HIERA_TINY.image_size))
    mean, std = (torch.tensor(v)[:, None, None] for v in (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ))  # fmt: skip
    assert len(vectors.images) == 3
    for name in vectors.images:
        rgb = torch.from_numpy(vectors.rgb(name)).permute(2, 0, 1).float() / 255
        image = F.interpolate(rgb[None], size=(1024, 1024), mode="bilinear", antialias=True)
        image = ((image - mean) / std).numpy()
        vectors.require_input(name, image)
        embedding = run(image)["image_embeddings"]
        assert vectors.embedding_deviation(name, embedding) < 1e-5
