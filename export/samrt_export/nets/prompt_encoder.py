"""SAM's prompt encoder: points, box corners and masks to embeddings.

Positions are coded by random Fourier features: a position p in [0, 1]^2 becomes
(sin 2 pi a, cos 2 pi a) with a = (2 p - 1) G and G the fixed matrix of the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samrt_export.nets.common import LayerNorm2d

PADDING, BACKGROUND, OBJECT, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class PromptConfig:
    """Sizes of a prompt encoder.

    Attributes:
        embed_dim: width of an embedding.
        grid: `(h, w)` of the image embedding.
        frame: `(S_h, S_w)` in pixels, the frame of prompt coordinates and their normalisation.
        frame_grid: `(h, w)` of the whole frame's grid; None means `grid`.  A larger one than
            `grid` says that only its top left part is encoded (padding cropped away).
        mask_in_chans: channels of a mask prompt before its last projection.
    """

    embed_dim: int = 256
    grid: tuple[int, int] = (64, 64)
    frame: tuple[int, int] = (1024, 1024)
    frame_grid: tuple[int, int] | None = None
    mask_in_chans: int = 16

    def __post_init__(self) -> None:
        whole = self.whole_grid
        if self.grid[0] > whole[0] or self.grid[1] > whole[1]:
            raise ValueError(f"the grid {self.grid} does not lie in the frame's grid {whole}")

    @property
    def whole_grid(self) -> tuple[int, int]:
        """`(h, w)` of the whole frame's grid."""
        return self.grid if self.frame_grid is None else self.frame_grid

    @property
    def mask_size(self) -> tuple[int, int]:
        """`(h, w)` of a mask prompt and of the low-resolution masks."""
        return 4 * self.grid[0], 4 * self.grid[1]


class PositionCode(nn.Module):
    """Random Fourier features; key `positional_encoding_gaussian_matrix` (2, dim / 2)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Positions (..., 2) as (x, y) in [0, 1] to codes (..., dim) in [-1, 1]."""
        angle = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)

    def points(self, coords: Tensor, frame: tuple[int, int]) -> Tensor:
        """Pixel coordinates (N, P, 2) in `frame` = (S_h, S_w) to codes (N, P, dim).

        Half a pixel is added first: a coordinate names the middle of its pixel.
        """
        height, width = frame
        code: Tensor = self((coords + 0.5) / coords.new_tensor([width, height]))
        return code

    def dense(self, grid: tuple[int, int], whole: tuple[int, int]) -> Tensor:
        """Codes of the cell centres of the top left `grid` of `whole`: (1, dim, h, w)."""
        matrix = self.positional_encoding_gaussian_matrix
        steps = [
            (torch.arange(count, dtype=matrix.dtype, device=matrix.device) + 0.5) / total
            for count, total in zip(grid, whole, strict=True)
        ]
        y, x = torch.meshgrid(*steps, indexing="ij")
        code: Tensor = self(torch.stack([x, y], dim=-1))
        return code.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Prompt encoder with SAM's keys: `pe_layer`, `point_embeddings.0-3`, `not_a_point_embed`,
    `mask_downscaling`, `no_mask_embed`.
    """  # fmt: skip

    def __init__(self, cfg: PromptConfig) -> None:
        super().__init__()
        self.cfg = cfg
        dim, chans = cfg.embed_dim, cfg.mask_in_chans
        self.pe_layer = PositionCode(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(chans // 4),
            nn.GELU(),
            nn.Conv2d(chans // 4, chans, kernel_size=2, stride=2),
            LayerNorm2d(chans),
            nn.GELU(),
            nn.Conv2d(chans, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def dense_code(self) -> Tensor:
        """Position codes of the image embedding's cells, (1, dim, h, w)."""
        return self.pe_layer.dense(self.cfg.grid, self.cfg.whole_grid)

    def types(self) -> Tensor:
        """What is added for the labels -1, 0, 1, 2, 3: (5, dim)."""
        layers = [self.not_a_point_embed, *self.point_embeddings]
        return torch.cat([layer.weight for layer in layers])

    def sparse(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Points (N, P, 2) in frame pixels and labels (N, P) to embeddings (N, P, dim).

        Labels: 1 object, 0 background, 2 and 3 top left and bottom right corner of a box; -1 is
        padding, which has no position.
        """
        code = self.pe_layer.points(coords, self.cfg.frame) * (labels != PADDING)[..., None]
        kinds = torch.arange(PADDING, BOTTOM_RIGHT + 1, device=labels.device)
        return code + (labels[..., None] == kinds).to(code.dtype) @ self.types()

    def dense(self, masks: Tensor | None, has_mask: Tensor | None, count: int) -> Tensor:
        """Mask prompts to dense embeddings (N, dim, h, w).

        `masks` (N, 1, 4 h, 4 w) are logits; where `has_mask` (N) is 0 the mask is ignored.  With
        neither, all `count` prompts have none.
        """
        empty = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        empty = empty.expand(count, -1, *self.cfg.grid)
        if masks is None or has_mask is None:
            return empty
        embedded = self.mask_downscaling(masks)
        return torch.where(has_mask.reshape(-1, 1, 1, 1) != 0, embedded, empty)
