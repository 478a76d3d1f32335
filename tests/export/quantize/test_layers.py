"""Which layers are candidates, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from samrt.bundle import Bundle, available_models
from samrt.errors import OptionError
from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph
from samrt_export.quantize import find_layers

from .conftest import normal, stored


def names(graph: FloatGraph, **options: object) -> list[str]:
    return [layer.name.rsplit("_", 1)[0] for layer in find_layers(graph, **options)[0]]  # type: ignore[arg-type]


def test_linear_layers_and_plain_convolutions(mixed: FloatGraph) -> None:
    layers, left = find_layers(mixed)
    assert [layer.kind for layer in layers] == ["conv", "conv", "linear", "linear"]
    first, second, wide, narrow = layers
    assert first.relu is not None
    assert first.bias is not None
    assert second.relu is None
    assert second.bias is None
    assert first.quantise_output
    assert second.quantise_output
    assert wide.norm == wide.source
    assert narrow.norm is None
    assert wide.bias is not None
    assert wide.bias_key is not None
    reasons = {name.split("/")[0]: reason for name, reason in left.items()}
    assert "little work" in reasons["stem"]
    assert "neck" in reasons["neck"]


def test_choices_of_convolutions(mixed: FloatGraph) -> None:
    assert names(mixed, convs="none") == ["block/mlp/matmul"] * 2
    assert "stem/conv" in names(mixed, convs="all")
    assert names(mixed, exclude=["mlp", "stage"]) == []
    _, left = find_layers(mixed, exclude=["mlp"])
    assert "excluded on request" in left.values()
    with pytest.raises(OptionError, match="regular expression"):
        find_layers(mixed, exclude=["("])


def test_beside_a_gelu(tmp_path: Path) -> None:
    """Only where asked for, and then without a pair behind it."""
    g = GraphBuilder("g")
    x = g.input("image", (1, 32, 32, 32))
    y = g.gelu(g.conv(x, normal(0, 64, 32, 3, 3), normal(1, 64)))
    graph = stored(g, tmp_path, {y: (1, 64, 32, 32)})
    layers, left = find_layers(graph)
    assert not layers
    assert "GELU" in next(iter(left.values()))
    (layer,) = find_layers(graph, convs="all")[0]
    assert not layer.quantise_output


def test_patch_embeddings_groups_and_small_ones(tmp_path: Path) -> None:
    g = GraphBuilder("g")
    x = g.input("image", (1, 3, 64, 64))
    patch = g.conv(x, normal(0, 32, 3, 8, 8), normal(1, 32), stride=8, pads=[0] * 4)
    grouped = g.conv(patch, normal(2, 32, 1, 3, 3), None, group=32)
    gate = g.op("MatMul", g.input("gate", (1, 32)), g.weight(normal(3, 32, 32)))
    graph = stored(g, tmp_path, {grouped: (1, 32, 8, 8), gate: (1, 32)})
    (layer,), left = find_layers(graph)
    assert layer.conv is not None
    assert layer.conv.is_patch
    assert layer.quantise_output
    assert set(left.values()) == {"convolution in groups", "small"}


def test_a_pyramid_is_a_neck_without_a_name(tmp_path: Path) -> None:
    g = GraphBuilder("g")
    x = g.input("image", (1, 64, 16, 16))
    deep = g.op("Relu", g.conv(x, normal(0, 64, 64, 3, 3), None, stride=2))
    deeper = g.op("Relu", g.conv(deep, normal(1, 64, 64, 3, 3), None))
    side = g.conv(x, normal(2, 64, 64, 3, 3), None)
    joined = g.op("Add", g.double(g.conv(deeper, normal(3, 64, 64, 3, 3), None)), side)
    out = g.conv(joined, normal(4, 64, 64, 3, 3), None)
    graph = stored(g, tmp_path, {out: (1, 64, 16, 16)})
    layers, left = find_layers(graph)
    assert len(layers) == 2
    assert list(left.values()) == ["neck"] * 3


def test_tiny_has_its_backbone_quantised() -> None:
    bundle = Bundle.open(available_models()["tiny"])
    graph = FloatGraph(bundle.file_of(bundle.artifact("encoder")))
    layers, left = find_layers(graph)
    assert len(layers) >= 18
    assert all(layer.quantise_output for layer in layers)
    assert "neck" in left.values()
