"""TinyViT: keys, golden embeddings, and the graph against the torch module."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from samrt_export.graphs.tiny_vit import emit_tiny_vit
from samrt_export.nets.tiny_vit import (
    LITE_MED_SAM,
    MOBILE_SAM,
    Attention,
    TinyViT,
    TinyVitConfig,
    offset_index,
)

SMALL = TinyVitConfig(
    image_size=(96, 160),
    embed_dims=(8, 12, 16, 24),
    depths=(1, 2, 2, 1),
    num_heads=(1, 3, 4, 2),
    window_sizes=(7, 7, 4, 5),
    out_chans=16,
    num_classes=11,
)
CASES = {
    "padded both ways": SMALL,
    "whole windows": replace(SMALL, image_size=(64, 64), window_sizes=(1, 4, 4, 2)),
    "one window": replace(SMALL, image_size=(32, 32), window_sizes=(7, 4, 2, 2)),
    "window larger than the grid": replace(SMALL, image_size=(32, 48), window_sizes=(7, 7, 7, 7)),
    "full-resolution stem": replace(
        SMALL, image_size=(36, 28), stem_kernel=1, stem_stride=1, num_classes=0
    ),
    "strides 1, 2, 2": replace(SMALL, image_size=(64, 48), merge_strides=(1, 2, 2)),
}
FORBIDDEN = {
    "BatchNormalization", "Shape", "Gather", "Expand", "Tile", "OneHot", "Range", "Where",
}  # fmt: skip


@pytest.mark.parametrize("cfg", CASES.values(), ids=CASES.keys())
def test_the_graph_computes_what_the_module_does(tools: Any, cfg: TinyVitConfig) -> None:
    encoder = tools.randomise(TinyViT(cfg))
    image = tools.picture(cfg.image_size)
    with torch.no_grad():
        expected = encoder(image).numpy()
        exact = encoder.double()(image.double()).numpy()
        encoder.float()
    got = tools.session(tools.build(emit_tiny_vit, encoder, cfg.image_size))(image.numpy())
    assert expected.shape == (1, 16, *cfg.grid(3))
    assert tools.deviation(got["image_embeddings"], expected) < 1e-5
    assert tools.deviation(got["image_embeddings"], exact) < 1e-5


def test_the_graph_is_clean(tools: Any) -> None:
    model = tools.build(emit_tiny_vit, tools.randomise(TinyViT(SMALL)), SMALL.image_size)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not FORBIDDEN & set(kinds)
    assert {node.domain for node in model.graph.node} == {""}
    blocks = sum(SMALL.depths[1:])
    assert kinds["LayerNormalization"] == 2 * blocks + 2
    assert kinds["Softmax"] == blocks
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    sizes = [axis.dim_value for axis in inferred.graph.output[0].type.tensor_type.shape.dim]
    assert len(sizes) == 4


def test_nodes_carry_the_names_of_the_modules(tools: Any) -> None:
    encoder = tools.randomise(TinyViT(SMALL))
    model = tools.build(emit_tiny_vit, encoder, SMALL.image_size)
    scopes = {node.name.rsplit("/", 1)[0] for node in model.graph.node}
    layers = [f"layers/{i}/blocks/0/{part}" for i in (1, 2, 3) for part in ("attn/qkv", "mlp/fc1")]
    assert {*layers, "patch_embed/seq/0"} <= {scope.replace(".", "/") for scope in scopes}
    weighted = {
        name.replace(".c.weight", "").removesuffix(".weight").replace(".", "/")
        for name, tensor in encoder.state_dict().items()
        if name.endswith("weight") and tensor.ndim > 1 and not name.startswith("head")
    }
    assert weighted <= {scope.replace(".", "/") for scope in scopes}


def test_the_unused_head_is_not_written(tools: Any) -> None:
    encoder = tools.randomise(TinyViT(SMALL))
    assert "head.weight" in encoder.state_dict()
    model = tools.build(emit_tiny_vit, encoder, SMALL.image_size)
    shapes = [set(tensor.dims) for tensor in model.graph.initializer]
    assert not any(SMALL.num_classes in shape for shape in shapes)


def test_training_mode_changes_nothing(tools: Any) -> None:
    encoder = tools.randomise(TinyViT(replace(SMALL, image_size=(32, 32))))
    image = tools.picture((32, 32))
    with torch.no_grad():
        assert torch.equal(encoder(image), encoder.train()(image))


def test_biases_follow_the_order_in_which_offsets_appear() -> None:
    """The checkpoints number offsets by their first appearance among all pairs of tokens."""
    window = 5
    tokens = list(itertools.product(range(window), repeat=2))
    seen: dict[tuple[int, int], int] = {}
    expected = [
        seen.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(seen))
        for a in tokens
        for b in tokens
    ]
    assert offset_index(window).reshape(-1).tolist() == expected


def test_a_module_without_memory_knows_its_keys() -> None:
    with torch.device("meta"):
        encoder = TinyViT(MOBILE_SAM)
    assert all(tensor.is_meta for tensor in encoder.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (1000, 1024)}, r"\(1000, 1024\).*multiples of 16"),
        ({"image_size": (0, 1024)}, "positive multiples of 16"),
        ({"depths": (2, 2, 6)}, r"depths is \(2, 2, 6\); expected 4"),
    ],
)
def test_wrong_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MOBILE_SAM, **change)


def test_wrong_sizes_are_refused(tools: Any) -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        Attention(16, 3, 7)
    encoder = tools.randomise(TinyViT(replace(SMALL, image_size=(32, 32))))
    with pytest.raises(ValueError, match=r"\(32, 48\); this encoder takes \(32, 32\)"):
        encoder(tools.picture((32, 48)))


FAMILIES = {"mobile_sam": MOBILE_SAM, "lite_medsam": LITE_MED_SAM}


@pytest.mark.shared
@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_are_the_checkpoint_s(golden_encoder: Any, family: str) -> None:
    with torch.device("meta"):
        state = TinyViT(FAMILIES[family]).state_dict()
    assert [(k, tuple(v.shape)) for k, v in state.items()] == golden_encoder(family).keys()


@pytest.fixture(scope="module", params=FAMILIES)
def original(
    request: pytest.FixtureRequest, golden_encoder: Any, tools: Any
) -> tuple[Any, Callable[[Any], Any]]:
    family: str = request.param
    vectors = golden_encoder(family)
    encoder = TinyViT(FAMILIES[family])
    encoder.load_state_dict(vectors.weights())
    return vectors, tools.session(tools.build(emit_tiny_vit, encoder, FAMILIES[family].image_size))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["colour_700x523", "ct_512", "grey_96x130", "large_1440x1080"])
def test_embeddings_are_the_original_s(original: Any, name: str) -> None:
    vectors, run = original
    image = lite_input(vectors, name) if vectors.family == "lite_medsam" else None
    embedding = run(vectors.sam_input(name) if image is None else image)["image_embeddings"]
    assert vectors.embedding_deviation(name, embedding) < 1e-5


def lite_input(vectors: Any, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """LiteMedSAM's input: longest side by area means, min-max, zeros right and below."""
    cv2 = pytest.importorskip("cv2")
    array = vectors.rgb(name)
    scale = 256 / max(array.shape[:2])
    height, width = (int(side * scale + 0.5) for side in array.shape[:2])
    small = cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)
    values = (small - small.min()) / max(float(small.max() - small.min()), 1e-8)
    image = np.zeros((1, 3, 256, 256), np.float32)
    image[0, :, :height, :width] = values.transpose(2, 0, 1)
    vectors.require_input(name, image)
    return image
