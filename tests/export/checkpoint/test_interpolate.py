from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samrt_export.checkpoint import (
    CheckpointError,
    patch_grid,
    resize_pos_embed,
    resize_rel_pos,
    resize_tables,
)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def axis_weights(old: int, new: int) -> torch.Tensor:
    """(new, old) matrix of linear interpolation with half-pixel centres, edges held."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    places = np.clip(places, 0, old - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, old - 1)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), low] += 1 - (places - low)
    matrix[np.arange(new), high] += places - low
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("grid", [(4, 4), (12, 9), (7, 3), (1, 1)])
def test_bilinear_pos_embed(rng: torch.Generator, grid: tuple[int, int]) -> None:
    table = torch.randn(1, 8, 6, 5, generator=rng, dtype=torch.float64)
    found = resize_pos_embed(table, grid)
    rows, columns = axis_weights(8, grid[0]), axis_weights(6, grid[1])
    wanted = torch.einsum("ih,jw,bhwc->bijc", rows, columns, table)
    assert found.shape == (1, *grid, 5)
    torch.testing.assert_close(found, wanted)


def test_bicubic_pos_embed_is_keys_cubic(rng: torch.Generator) -> None:
    table = torch.randn(1, 14, 14, 3, generator=rng)
    found = resize_pos_embed(table, (64, 64), "bicubic")
    places = (np.arange(64) + 0.5) * 14 / 64 - 0.5
    offsets = np.floor(places).astype(int)[:, None] + np.arange(-1, 3)
    t = np.abs(places[:, None] - offsets)
    a = -0.75
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    weights = np.where(t <= 1, near, far)
    matrix = np.zeros((64, 14))
    for k in range(4):
        np.add.at(matrix, (np.arange(64), np.clip(offsets[:, k], 0, 13)), weights[:, k])
    wanted = np.einsum("ih,jw,bhwc->bijc", matrix, matrix, table.double().numpy())
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_the_same_grid_is_left_alone(rng: torch.Generator) -> None:
    table = torch.randn(1, 6, 4, 2, generator=rng)
    assert resize_pos_embed(table, (6, 4)) is table
    rel = torch.randn(11, 2, generator=rng)
    assert resize_rel_pos(rel, 6) is rel


@pytest.mark.parametrize(("old", "new"), [(64, 32), (64, 16), (16, 64), (14, 20), (5, 1)])
def test_rel_pos_is_linear_along_the_offsets(rng: torch.Generator, old: int, new: int) -> None:
    table = torch.randn(2 * old - 1, 7, generator=rng, dtype=torch.float64)
    found = resize_rel_pos(table, new)
    assert found.shape == (2 * new - 1, 7)
    torch.testing.assert_close(found, axis_weights(2 * old - 1, 2 * new - 1) @ table)


def test_rel_pos_agrees_with_both_ways_of_the_originals(rng: torch.Generator) -> None:
    """segment_anything resizes in one dimension at run time, SAMed in two when it loads."""
    table = torch.randn(127, 64, generator=rng)
    found = resize_rel_pos(table, 32)
    one = F.interpolate(table.reshape(1, 127, -1).permute(0, 2, 1), size=63, mode="linear")
    assert torch.equal(found, one.reshape(-1, 63).permute(1, 0))
    two = F.interpolate(table[None, None], (63, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, two[0, 0], atol=1e-6, rtol=1e-6)


def test_a_smooth_table_keeps_its_meaning() -> None:
    ramp = torch.linspace(-1, 1, 127)[:, None]
    found = resize_rel_pos(ramp, 16)[:, 0]
    assert found[15].abs() < 1e-6  # the offset 0 stays in the middle
    assert bool((found.diff() > 0).all())
    assert torch.allclose(found, -found.flip(0), atol=1e-6)


def test_patch_grid_drops_the_class_token() -> None:
    table = torch.arange(1 + 9.0).reshape(1, 10, 1)
    grid = patch_grid(table)
    assert grid.shape == (1, 3, 3, 1)
    assert grid[0, 0, :, 0].tolist() == [1, 2, 3]
    assert grid[0, :, 0, 0].tolist() == [1, 4, 7]


def test_tables_of_a_whole_encoder(rng: torch.Generator) -> None:
    at = "image_encoder.blocks."
    state = {
        "image_encoder.pos_embed": torch.randn(1, 16, 16, 3, generator=rng),
        f"{at}0.attn.rel_pos_h": torch.randn(27, 4, generator=rng),
        f"{at}0.attn.rel_pos_w": torch.randn(27, 4, generator=rng),
        f"{at}1.attn.rel_pos_h": torch.randn(31, 4, generator=rng),
        f"{at}1.attn.rel_pos_w": torch.randn(31, 4, generator=rng),
        f"{at}11.attn.rel_h": torch.randn(31, 4, generator=rng),
        f"{at}11.attn.qkv.weight": torch.randn(9, 3, generator=rng),
    }
    before = dict(state)
    found = resize_tables(state, (8, 12), (1, 11))
    assert state == before
    assert list(found) == list(state)
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "image_encoder.pos_embed": (1, 8, 12, 3),
        f"{at}0.attn.rel_pos_h": (27, 4),
        f"{at}0.attn.rel_pos_w": (27, 4),
        f"{at}1.attn.rel_pos_h": (15, 4),
        f"{at}1.attn.rel_pos_w": (23, 4),
        f"{at}11.attn.rel_h": (15, 4),
        f"{at}11.attn.qkv.weight": (9, 3),
    }
    cubic = resize_tables(state, (8, 12), (), "bicubic")
    assert torch.equal(
        cubic["image_encoder.pos_embed"],
        resize_pos_embed(state["image_encoder.pos_embed"], (8, 12), "bicubic"),
    )
    assert cubic[f"{at}1.attn.rel_pos_h"] is state[f"{at}1.attn.rel_pos_h"]


@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 4, 4, 3), (1, 16, 3)])
def test_pos_embed_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"expected \(1, h, w, C\)"):
        resize_pos_embed(torch.zeros(shape), (4, 4))


def test_bad_arguments() -> None:
    table = torch.zeros(1, 4, 4, 2)
    with pytest.raises(CheckpointError, match=r"grid \(0, 4\) is empty"):
        resize_pos_embed(table, (0, 4))
    with pytest.raises(CheckpointError, match="mode 'area' is not known"):
        resize_pos_embed(table, (2, 2), "area")
    with pytest.raises(CheckpointError, match=r"expected \(2 \* L - 1, d\)"):
        resize_rel_pos(torch.zeros(4, 2), 3)
    with pytest.raises(CheckpointError, match=r"expected \(2 \* L - 1, d\)"):
        resize_rel_pos(torch.zeros(3), 3)
    with pytest.raises(CheckpointError, match="length 0"):
        resize_rel_pos(torch.zeros(3, 2), 0)
    for shape in [(1, 12, 3), (1, 1, 3), (10, 3), (2, 10, 3), (1, 4, 4, 3)]:
        with pytest.raises(CheckpointError, match=r"expected \(1, 1 \+ s \* s, C\)"):
            patch_grid(torch.zeros(shape))
