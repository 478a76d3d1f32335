"""SAM 2's decoder for images: the graphs against the torch modules, and its single-mask rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from samrt_export.graph import GraphBuilder
from samrt_export.graphs import sam2_decoder as emission
from samrt_export.nets.prompt_encoder import PromptConfig, PromptEncoder
from samrt_export.nets.sam2_decoder import Sam2DecoderConfig, Sam2MaskDecoder, decode
from samrt_export.nets.two_way import TwoWayConfig

DIM, GRID, FRAME = 32, (3, 5), (48, 80)
SHAPES = [(1, DIM, 3, 5), (1, DIM, 12, 20), (1, DIM, 6, 10)]
CONFIG = Sam2DecoderConfig(TwoWayConfig(DIM, 2, 4, 48, mlp_keys="layers"), iou_head_hidden=24)


@pytest.fixture(scope="module")
def parts(decoders: Any) -> tuple[PromptEncoder, Sam2MaskDecoder]:
    cfg = PromptConfig(embed_dim=DIM, grid=GRID, frame=FRAME)
    return (
        decoders.randomise(PromptEncoder(cfg), seed=1),
        decoders.randomise(Sam2MaskDecoder(CONFIG), seed=2),
    )


@pytest.fixture(scope="module")
def run(decoders: Any, parts: Any) -> Any:
    return decoders.Graphs(emission, *parts, SHAPES)


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(3)
    return tuple(torch.randn(shape, generator=random) for shape in SHAPES)


@pytest.mark.parametrize(("count", "points"), [(1, 1), (1, 2), (5, 3), (2, 9)])
def test_the_graphs_compute_what_the_modules_do(
    decoders: Any, parts: Any, run: Any, features: Any, count: int, points: int
) -> None:
    given = decoders.prompts(count, points, FRAME, (12, 20), seed=points)
    expected = decoders.reference(decode, *parts, features, *given.values())
    exact = decoders.reference(decode, *parts, features, *given.values(), exact=True)
    got = run(features, given)
    assert got[0].shape == (count, 4, 12, 20)
    assert ((got[1] > 0) & (got[1] < 1)).all()
    decoders.require_close(got, expected, exact)


def test_the_order_of_points_is_without_meaning(
    decoders: Any, parts: Any, run: Any, features: Any
) -> None:
    """SAM 2 puts a box before the points; any order gives the same answer."""
    given = decoders.prompts(2, 4, FRAME, (12, 20), seed=4)
    given["point_labels"] = torch.tensor([[1.0, 0.0, 2.0, 3.0]]).expand(2, 4).contiguous()
    order = torch.tensor([2, 3, 0, 1])
    turned = {**given, **{k: given[k][:, order] for k in ("point_coords", "point_labels")}}
    for first, second in zip(run(features, given), run(features, turned), strict=True):
        assert decoders.deviation(first, second) < 1e-5


def test_every_prompt_gets_a_padding_point(parts: Any, features: Any) -> None:
    """With a box too: the answer is that of SAM's tokens and one more for padding."""
    encoder, decoder = parts
    coords, labels = torch.tensor([[[5.0, 6.0], [50.0, 40.0]]]), torch.tensor([[2.0, 3.0]])
    with torch.no_grad():
        rows = (
            torch.cat([coords, torch.zeros(1, 1, 2)], 1),
            torch.cat([labels, -torch.ones(1, 1)], 1),
        )
        sparse, dense = encoder.sparse(*rows), encoder.dense(None, None, 1)
        expected = decoder.settle(*decoder(features, encoder.dense_code(), sparse, dense))
        got = decode(encoder, decoder, features, coords, labels)
    for found, truth in zip(got, expected, strict=True):
        assert (found - truth).abs().max() < 1e-5


def settle_both(decoder: Sam2MaskDecoder, masks: torch.Tensor, scores: torch.Tensor) -> Any:
    """The rule by the torch module and by the graph."""
    size = (masks.shape[2], masks.shape[3])
    g = GraphBuilder("rule")
    inputs = g.input("masks", ["N", 4, *size]), g.input("scores", ["N", 4])
    found = emission.settled(g, *inputs, decoder, size)
    for tensor, name, shape in zip(found, ("a", "b"), (["N", 4, *size], ["N", 4]), strict=True):
        g.output(tensor, name, shape)
    session = ort.InferenceSession(
        g.model("0").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    graph = session.run(None, {"masks": masks.numpy(), "scores": scores.numpy()})
    return decoder.settle(masks, scores), graph


def test_an_unstable_single_mask_gives_way_to_the_best_other(parts: Any) -> None:
    """Stable, empty and exactly at the threshold stay; below it the best score wins."""
    masks = torch.full((5, 4, 10, 10), -8.0)
    masks[:, 1:] = torch.arange(1.0, 4.0)[:, None, None]
    masks[0, 0, :5] = 8.0  # stable
    masks[2, 0, :, :] = 8.0
    masks[2, 0, 0, :2] = 0.01  # 98 of 100 stay: at the threshold
    masks[3, 0, :, :] = 8.0
    masks[3, 0, 0, :3] = -0.01  # 97 of 100
    masks[4, 0, :5] = 0.02  # all of it
    scores = torch.tensor([[0.1, 0.2, 0.9, 0.3]]).repeat(5, 1)
    scores[4] = torch.tensor([0.5, 0.4, 0.1, 0.4])
    module, graph = settle_both(parts[1], masks, scores)
    expected = [0, 0, 0, 2, 1]
    for row, index in enumerate(expected):
        for found in (module, graph):
            got_masks, got_scores = np.asarray(found[0]), np.asarray(found[1])
            np.testing.assert_array_equal(got_masks[row, 0], masks[row, index].numpy())
            assert got_scores[row, 0] == scores[row, index]
            np.testing.assert_array_equal(got_masks[row, 1:], masks[row, 1:].numpy())
            np.testing.assert_array_equal(got_scores[row, 1:], scores[row, 1:].numpy())


def test_features_that_are_projected_already(decoders: Any, parts: Any, features: Any) -> None:
    """An encoder may multiply `conv_s0` and `conv_s1` into its own last layers."""
    decoder = parts[1]
    g = GraphBuilder("encoder")
    inputs = [
        g.input(n, s)
        for n, s in zip("abc", ((1, DIM, 3, 5), (1, 4, 12, 20), (1, 8, 6, 10)), strict=True)
    ]
    shapes = emission.hoisted_shapes(*parts)
    for name, tensor in emission.hoist(g, *parts, *inputs, projected=True).items():
        g.output(tensor, name, shapes[name])
    session = ort.InferenceSession(
        g.model("0").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with torch.no_grad():
        fine, coarse = decoder.conv_s0(features[1]), decoder.conv_s1(features[2])
    feeds = {"a": features[0], "b": fine, "c": coarse}
    names = [name for name in shapes if "high_res" in name]
    got = session.run(names, {k: v.numpy() for k, v in feeds.items()})
    plain = decoders.Graphs(emission, *parts, SHAPES).hoisted_values(features)
    for name, value in zip(names, got, strict=True):
        assert decoders.deviation(value, plain[name]) < 1e-5


def test_names_and_sizes_of_the_features(run: Any) -> None:
    assert {k: v for k, v in run.shapes.items() if "high_res" in k} == {
        **{f"dec_high_res_1_{a}": (1, 15, 16) for a in range(2)},
        **{f"dec_high_res_0_{a}{b}": (1, 30, 8) for a in range(2) for b in range(2)},
    }
    kinds = {node.op_type for node in run.decoder.graph.node}
    assert not {"Shape", "Expand", "Tile", "Gather", "OneHot", "ConvTranspose"} & kinds
