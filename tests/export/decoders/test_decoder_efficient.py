"""EfficientSAM's decoder: the graphs against the torch modules, and its rules for points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from samrt_export.graphs import efficient_decoder as emission
from samrt_export.nets.efficient_decoder import (
    SLOTS,
    EfficientDecoderConfig,
    EfficientMaskDecoder,
    EfficientPromptEncoder,
    decode,
)
from samrt_export.nets.prompt_encoder import PromptConfig
from samrt_export.nets.two_way import GELU, TwoWayConfig

DIM, GRID, FRAME = 32, (3, 5), (48, 80)
CONFIG = EfficientDecoderConfig(
    TwoWayConfig(DIM, 2, 4, 48, activation=GELU, mlp_keys="fc", plain_residual=True),
    iou_head_hidden=24,
)


@pytest.fixture(scope="module")
def parts(decoders: Any) -> tuple[EfficientPromptEncoder, EfficientMaskDecoder]:
    cfg = PromptConfig(embed_dim=DIM, grid=GRID, frame=FRAME)
    return (
        decoders.randomise(EfficientPromptEncoder(cfg), seed=1),
        decoders.randomise(EfficientMaskDecoder(CONFIG), seed=2),
    )


@pytest.fixture(scope="module")
def run(decoders: Any, parts: Any) -> Any:
    return decoders.Graphs(emission, *parts, [(1, DIM, *GRID)])


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, DIM, *GRID, generator=torch.Generator().manual_seed(3))


def asked(decoders: Any, count: int, points: int) -> dict[str, torch.Tensor]:
    given = decoders.prompts(count, points, FRAME, (12, 20), seed=points)
    return {name: given[name] for name in ("point_coords", "point_labels")}


@pytest.mark.parametrize(("count", "points"), [(1, 1), (1, 2), (4, 3), (2, 6), (2, 9)])
def test_the_graphs_compute_what_the_modules_do(
    decoders: Any, parts: Any, run: Any, image: torch.Tensor, count: int, points: int
) -> None:
    given = asked(decoders, count, points)
    expected = decoders.reference(decode, *parts, image, *given.values())
    exact = decoders.reference(decode, *parts, image, *given.values(), exact=True)
    got = run([image], given)
    assert got[0].shape == (count, 4, 12, 20)
    decoders.require_close(got, expected, exact)


def test_points_are_filled_up_and_cut_to_six(
    decoders: Any, parts: Any, run: Any, image: torch.Tensor
) -> None:
    """Padding is inert, wherever it stands; points beyond the sixth are ignored."""
    given = asked(decoders, 2, 2)
    given["point_labels"] = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    short = run([image], given)
    labels = torch.cat([given["point_labels"], torch.full((2, SLOTS - 2), -1.0)], 1)
    for place in (0.0, -1.0, 33.0):
        coords = torch.cat([given["point_coords"], torch.full((2, SLOTS - 2, 2), place)], 1)
        filled = run([image], {"point_coords": coords, "point_labels": labels})
        np.testing.assert_array_equal(filled[0], short[0])
    more = {
        "point_coords": torch.cat([coords, torch.full((2, 1, 2), 20.0)], 1),
        "point_labels": torch.cat([labels, torch.ones(2, 1)], 1),
    }
    np.testing.assert_array_equal(run([image], more)[0], short[0])


def test_padding_stands_half_a_pixel_outside(parts: Any) -> None:
    """Where the original puts it: coordinate -1, plus the half pixel of every point."""
    encoder = parts[0]
    with torch.no_grad():
        rows = encoder.sparse(torch.zeros(1, 1, 2), torch.full((1, 1), -1.0))
        place = encoder.pe_layer(torch.tensor([-0.5 / FRAME[1], -0.5 / FRAME[0]]))
    assert rows.shape == (1, SLOTS, DIM)
    assert (rows - (place + encoder.invalid_points.weight)).abs().max() < 1e-5


def test_a_background_point_has_a_place_only(parts: Any) -> None:
    encoder = parts[0]
    spot = torch.tensor([[[30.0, 20.0]]])
    with torch.no_grad():
        row = encoder.sparse(spot, torch.zeros(1, 1))[:, :1]
        assert (row - encoder.pe_layer.points(spot, FRAME)).abs().max() < 1e-6


def test_mask_prompts_are_refused(parts: Any, image: torch.Tensor) -> None:
    coords, labels = torch.zeros(1, 1, 2), torch.ones(1, 1)
    with pytest.raises(ValueError, match="takes no mask prompt"):
        decode(*parts, image, coords, labels, torch.zeros(1, 1, 12, 20), torch.ones(1))


def test_inputs_and_operators_of_the_graph(run: Any) -> None:
    assert list(run.inputs) == [*run.shapes, "point_coords", "point_labels"]
    kinds = {node.op_type for node in run.decoder.graph.node}
    assert not {"Shape", "Expand", "Tile", "Gather", "InstanceNormalization"} & kinds


def test_the_norm_over_all_pixels_is_exact(decoders: Any, parts: Any) -> None:
    """A grid of many positions: sums of 150 thousand terms far from zero stay exact."""
    grid = (48, 48)
    encoder = EfficientPromptEncoder(PromptConfig(embed_dim=DIM, grid=grid, frame=(768, 768)))
    encoder.load_state_dict(parts[0].state_dict())
    decoder = EfficientMaskDecoder(CONFIG).eval()
    decoder.load_state_dict(parts[1].state_dict())
    with torch.no_grad():
        decoder.final_output_upscaling_layers[0][0].bias += 20.0  # type: ignore[index]
    run = decoders.Graphs(emission, encoder, decoder, [(1, DIM, *grid)])
    wide = torch.randn(1, DIM, *grid, generator=torch.Generator().manual_seed(7))
    given = asked(decoders, 1, 2)
    args = encoder, decoder, wide, *given.values()
    exact = decoders.reference(decode, *args, exact=True)
    decoders.require_close(run([wide], given), decoders.reference(decode, *args), exact)
