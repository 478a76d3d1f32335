"""SAM's decoder: the graphs against the torch modules, over all its variants."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import decoder as emission
from samrt_export.nets.decoder import (
    DecoderConfig,
    MaskDecoder,
    PromptConfig,
    PromptEncoder,
    decode,
)
from samrt_export.nets.two_way import GELU, TwoWayConfig

DIM = 32
GRID, FRAME = (3, 5), (48, 80)
SMALL_PROMPTS = PromptConfig(embed_dim=DIM, grid=GRID, frame=FRAME)
SMALL = DecoderConfig(TwoWayConfig(dim=DIM, heads=4, mlp_dim=48), iou_head_hidden=24)
ADAPTER = DecoderConfig.medical_sam_adapter().transformer
VARIANTS: dict[str, tuple[PromptConfig, DecoderConfig]] = {
    "sam": (SMALL_PROMPTS, SMALL),
    "padding cropped away": (replace(SMALL_PROMPTS, frame=(80, 80), frame_grid=(5, 5)), SMALL),
    "stride 4": (replace(SMALL_PROMPTS, frame=(12, 20)), SMALL),
    "nine masks": (SMALL_PROMPTS, replace(SMALL, num_mask_tokens=9)),
    "medical sam adapter": (
        SMALL_PROMPTS,
        replace(SMALL, transformer=replace(ADAPTER, dim=DIM, heads=4, mlp_dim=48)),
    ),
    "deeper, wide attention": (
        replace(SMALL_PROMPTS, mask_in_chans=8),
        DecoderConfig(
            TwoWayConfig(DIM, 3, 2, 40, downsample=1, activation=GELU, mlp_keys="layers"),
            iou_head_depth=2,
        ),
    ),
}
FORBIDDEN = {
    "BatchNormalization", "ConvTranspose", "Expand", "Gather", "GatherND", "If", "Loop", "OneHot",
    "Range", "ScatterND", "Shape", "Tile",
}  # fmt: skip
PROMPT_INPUTS = ["point_coords", "point_labels", "mask_input", "has_mask_input"]


def networks(tools: Any, variant: str = "sam") -> tuple[PromptEncoder, MaskDecoder]:
    prompts, decoder = VARIANTS[variant]
    return (
        tools.randomise(PromptEncoder(prompts), seed=1),
        tools.randomise(MaskDecoder(decoder), seed=2),
    )


def embedding(seed: int = 3) -> torch.Tensor:
    return torch.randn(1, DIM, *GRID, generator=torch.Generator().manual_seed(seed))


def given(tools: Any, encoder: PromptEncoder, count: int, points: int, seed: int = 0) -> Any:
    return tools.prompts(count, points, encoder.cfg.frame, encoder.cfg.mask_size, seed)


def graphs(tools: Any, parts: Any, **options: Any) -> Any:
    return tools.Graphs(emission, *parts, [(1, DIM, *GRID)], **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graphs_compute_what_the_modules_do(decoders: Any, variant: str) -> None:
    parts = networks(decoders, variant)
    run, image = graphs(decoders, parts), embedding()
    count = parts[1].cfg.num_mask_tokens
    for prompts, points in ((1, 1), (1, 2), (4, 3), (2, 9)):
        asked = given(decoders, parts[0], prompts, points, seed=points)
        expected = decoders.reference(decode, *parts, image, *asked.values())
        exact = decoders.reference(decode, *parts, image, *asked.values(), exact=True)
        got = run([image], asked)
        assert got[0].shape == (prompts, count, 12, 20)
        assert got[1].shape == (prompts, count)
        decoders.require_close(got, expected, exact)


def test_half_weights_change_little(decoders: Any) -> None:
    """The float16 storage of weights reaches every weight of the decoder graph."""
    parts = networks(decoders)
    full, half = GraphBuilder("full"), GraphBuilder("half", half_weights=True)
    for g in (full, half):
        emission.emit_decoder(g, *parts, emission.hoisted_shapes(*parts))
    assert half.nbytes() < 0.6 * full.nbytes()


def test_every_prompt_is_answered_as_if_alone(decoders: Any) -> None:
    parts = networks(decoders)
    run, image = graphs(decoders, parts), embedding()
    asked = given(decoders, parts[0], 5, 3)
    together = run([image], asked)
    for k in range(5):
        alone = run([image], {name: value[k : k + 1] for name, value in asked.items()})
        for one, many in zip(alone, together, strict=True):
            assert decoders.deviation(one[0], many[k]) < 1e-5


def test_masks_count_only_where_they_are_said_to(decoders: Any) -> None:
    """An ignored mask may hold anything, also NaN; one that counts changes the answer."""
    parts = networks(decoders)
    run, image = graphs(decoders, parts), embedding()
    asked = given(decoders, parts[0], 2, 2)
    asked["has_mask_input"] = torch.zeros(2)
    without = run([image], asked)
    noise = {**asked, "mask_input": torch.full_like(asked["mask_input"], float("nan"))}
    for got, expected in zip(run([image], noise), without, strict=True):
        np.testing.assert_array_equal(got, expected)
    with_mask = run([image], {**asked, "has_mask_input": torch.ones(2)})
    assert decoders.deviation(with_mask[0], without[0]) > 0.1
    expected = decoders.reference(
        decode, *parts, image, asked["point_coords"], asked["point_labels"]
    )
    for got, module in zip(without, expected, strict=True):
        assert decoders.deviation(got, module) < 2e-5


def test_the_order_of_points_is_without_meaning(decoders: Any) -> None:
    parts = networks(decoders)
    asked = given(decoders, parts[0], 2, 5)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = {**asked, **{k: asked[k][:, order] for k in ("point_coords", "point_labels")}}
    for run in (
        lambda a: decoders.reference(decode, *parts, embedding(), *a.values()),
        lambda a: graphs(decoders, parts)([embedding()], a),
    ):
        for first, second in zip(run(asked), run(turned), strict=True):
            assert decoders.deviation(first, second) < 1e-5


def test_every_label_counts(decoders: Any) -> None:
    """Each of the five labels gives another answer at the same place."""
    parts = networks(decoders)
    run = graphs(decoders, parts)
    asked = given(decoders, parts[0], 5, 1)
    asked["point_coords"] = torch.tensor([[[30.0, 20.0]]]).expand(5, 1, 2).contiguous()
    asked["point_labels"] = torch.arange(-1.0, 4.0)[:, None]
    asked["has_mask_input"] = torch.zeros(5)
    masks = run([embedding()], asked)[0]
    for first in range(5):
        for second in range(first):
            assert decoders.deviation(masks[first], masks[second]) > 1e-2


def test_padding_has_no_place(decoders: Any) -> None:
    parts = networks(decoders)
    run = graphs(decoders, parts)
    asked = given(decoders, parts[0], 2, 1)
    asked["point_coords"] = torch.tensor([[[0.0, 0.0]], [[70.0, 40.0]]])
    asked["point_labels"] = torch.full((2, 1), -1.0)
    asked["has_mask_input"] = torch.zeros(2)
    masks = run([embedding()], asked)[0]
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_graph_without_mask_prompts(decoders: Any) -> None:
    parts = networks(decoders)
    run = graphs(decoders, parts, mask_prompts=False)
    assert list(run.inputs)[-2:] == ["point_coords", "point_labels"]
    assert not any("mask_downscaling" in node.name for node in run.decoder.graph.node)
    asked = given(decoders, parts[0], 3, 2)
    expected = decoders.reference(
        decode, *parts, embedding(), asked["point_coords"], asked["point_labels"]
    )
    for got, module in zip(run([embedding()], asked), expected, strict=True):
        assert decoders.deviation(got, module) < 2e-5


def test_a_graph_without_prompts(decoders: Any) -> None:
    """SAMed: no points at all, one answer of nine masks."""
    parts = networks(decoders, "nine masks")
    run = graphs(decoders, parts, prompt_free=True)
    assert list(run.inputs) == list(run.shapes)
    expected = decoders.reference(
        decode, *parts, embedding(), torch.zeros(1, 0, 2), torch.zeros(1, 0)
    )
    for got, module in zip(run([embedding()], {}), expected, strict=True):
        assert got.shape[:2] == (1, 9)
        assert decoders.deviation(got, module) < 2e-5


def test_the_form_of_the_graphs(decoders: Any) -> None:
    run = graphs(decoders, networks(decoders))
    assert run.hoisted == ["dec_keys", "dec_values", "dec_queries"]
    assert run.inputs == {
        "image_embeddings": [1, DIM, *GRID],
        "dec_keys": [1, 4, 4, 15],
        "dec_values": [1, 4, 15, 4],
        "dec_queries": [1, 4, 4, 15],
        "point_coords": ["N", "P", 2],
        "point_labels": ["N", "P"],
        "mask_input": ["N", 1, 12, 20],
        "has_mask_input": ["N"],
    }
    for model in (run.encoder, run.decoder):
        kinds = Counter(node.op_type for node in model.graph.node)
        assert not FORBIDDEN & kinds.keys()
        assert {node.domain for node in model.graph.node} == {""}
        assert [opset.version for opset in model.opset_import] == [17]
    kinds = Counter(node.op_type for node in run.decoder.graph.node)
    assert kinds["LayerNormalization"] == 4 * 2 + 1 + 2 + 2  # blocks, last, mask in, masks out
    assert kinds["Erf"] == 2 + 2 + 4
    scopes = {node.name.rsplit("/", 1)[0] for node in run.decoder.graph.node}
    assert "mask_decoder/transformer/layers.1/mlp" in scopes
    assert "mask_decoder/transformer/final_attn_token_to_image/out_proj" in scopes


def test_no_product_of_the_image_with_the_attention_weights(decoders: Any) -> None:
    """The image meets the tokens' columns only, never a (dim, dim / 2) projection."""
    parts = networks(decoders)
    run = graphs(decoders, parts)
    sizes = {array.name: tuple(array.dims) for array in run.decoder.graph.initializer}
    projections = {(DIM, DIM // 2), (DIM // 2, DIM)}
    made = {out: node for node in run.decoder.graph.node for out in node.output}

    def over_image(name: str) -> bool:
        while name in made and made[name].op_type in ("Reshape", "Transpose", "Add", "Sub"):
            name = made[name].input[0]
        return name == "image_embeddings" or "norm4" in name

    for node in run.decoder.graph.node:
        if node.op_type == "MatMul" and sizes.get(node.input[1]) in projections:
            assert not over_image(node.input[0]), node.name


def test_shapes_of_another_network_are_refused(decoders: Any) -> None:
    parts = networks(decoders)
    shapes = {**emission.hoisted_shapes(*parts), "dec_keys": (1, 4, 4, 16)}
    with pytest.raises(ValueError, match=r"dec_keys.*same prompt encoder and mask decoder"):
        emission.emit_decoder(GraphBuilder("decoder"), *parts, shapes)


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="does not lie in"):
        PromptConfig(grid=(6, 5), frame_grid=(5, 5))
    with pytest.raises(ValueError, match="does not divide"):
        TwoWayConfig(dim=30, heads=4)
    with pytest.raises(ValueError, match="mlp_keys 'other'"):
        TwoWayConfig(mlp_keys="other")
