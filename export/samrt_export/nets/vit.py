"""The plain-ViT image encoder of SAM, MedSAM, SAM-Med2D, SAMed and the Medical SAM Adapter.

Structure and formulas follow the image encoder of facebookresearch/segment-anything; the adapters
follow OpenGVLab/SAM-Med2D and MedicineToken/Medical-SAM-Adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.nets.common import MlpBlock, Neck, PatchEmbed
from samrt_export.nets.vit_adapters import BottleneckAdapter, SamMed2dAdapter
from samrt_export.nets.vit_config import VIT_PRESETS, Size, VitConfig

__all__ = [
    "VIT_PRESETS",
    "Attention",
    "Block",
    "ImageEncoderViT",
    "VitConfig",
    "adapt_state",
    "checkpoint_shapes",
]

NORM_EPS = 1e-6
MSA_MLP_ADAPTER_SCALE = 0.5


class Attention(nn.Module):
    """Self-attention with decomposed relative positions over one grid of tokens.

    Keys `rel_pos_h` (2 h - 1, d), `rel_pos_w` (2 w - 1, d) (or the names in `rel_pos_keys`),
    `qkv.*`, `proj.*`.
    """

    def __init__(self, cfg: VitConfig, table_grid: Size) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.scale = cfg.head_dim**-0.5
        self.rel_pos_keys = cfg.rel_pos_keys
        for key, size in zip(cfg.rel_pos_keys, table_grid, strict=True):
            table = nn.Parameter(torch.zeros(2 * size - 1, cfg.head_dim))
            self.register_parameter(key, table)
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim)
        self.proj = nn.Linear(cfg.dim, cfg.dim)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Relative positions of rows (2 h - 1, d) and columns (2 w - 1, d)."""
        rows, columns = (self.get_parameter(key) for key in self.rel_pos_keys)
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) to the same shape; h and w fit the tables."""
        batch, h, w, dim = x.shape
        rows, columns = self.tables()
        by_row, by_column = relative_table(rows, h), relative_table(columns, w)
        qkv = self.qkv(x).view(batch, h * w, 3, self.heads, dim // self.heads)
        out = torch.empty_like(qkv[:, :, 0])
        for head in range(self.heads):  # one (B, h w, h w) map of scores at a time
            q, k, v = qkv[:, :, :, head].unbind(2)
            scores = (q * self.scale) @ k.transpose(1, 2)
            grid_q = q.reshape(batch, h, w, -1)
            bias_h = torch.einsum("bhwc,hkc->bhwk", grid_q, by_row)
            bias_w = torch.einsum("bhwc,wkc->bhwk", grid_q, by_column)
            scores = scores.view(batch, h, w, h, w)
            scores = scores.add_(bias_h[..., :, None]).add_(bias_w[..., None, :])
            out[:, :, head] = scores.view(batch, h * w, h * w).softmax(-1) @ v
        projected: Tensor = self.proj(out.view(batch, h, w, dim))
        return projected


class Block(nn.Module):
    """A transformer block; keys `norm1`, `attn`, adapters, `norm2`, `mlp` in the family's order."""

    def __init__(self, cfg: VitConfig, index: int) -> None:
        super().__init__()
        self.window = 0 if cfg.is_global(index) else cfg.window
        self.adapters = cfg.adapters
        self.pads_before_norm = cfg.pads_before_norm
        self.norm1 = nn.LayerNorm(cfg.dim, eps=NORM_EPS)
        self.attn = Attention(cfg, cfg.table_grid(index))
        if cfg.adapters == "msa":
            self.MLP_Adapter = BottleneckAdapter(cfg.dim)
            self.Space_Adapter = BottleneckAdapter(cfg.dim)
            self.Depth_Adapter = BottleneckAdapter(cfg.dim)  # for volumes: not used on images
        self.norm2 = nn.LayerNorm(cfg.dim, eps=NORM_EPS)
        self.mlp = MlpBlock(cfg.dim, int(cfg.dim * cfg.mlp_ratio))
        if cfg.adapters == "sam_med2d":
            self.Adapter = SamMed2dAdapter(cfg.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(1, h, w, dim) to the same shape."""
        x = x + self._attend(x)
        normed: Tensor = self.norm2(x)
        x = x + self.mlp(normed)
        if self.adapters == "sam_med2d":
            x = x + self.Adapter(normed)
        elif self.adapters == "msa":
            x = x + MSA_MLP_ADAPTER_SCALE * self.MLP_Adapter(normed)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        _, h, w, dim = x.shape
        if not self.window:
            return self._attend_window(self.norm1(x))
        size = self.window
        x = x if self.pads_before_norm else self.norm1(x)
        x = F.pad(x, (0, 0, 0, -w % size, 0, -h % size))
        x = self.norm1(x) if self.pads_before_norm else x
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = x.view(rows, size, columns, size, dim).transpose(1, 2).reshape(-1, size, size, dim)
        x = self._attend_window(x)
        x = x.view(rows, columns, size, size, dim).transpose(1, 2)
        return x.reshape(1, rows * size, columns * size, dim)[:, :h, :w]

    def _attend_window(self, x: Tensor) -> Tensor:
        out: Tensor = self.attn(x)
        return out + self.Space_Adapter(out) if self.adapters == "msa" else out


class ImageEncoderViT(nn.Module):
    """Image to embedding.

    The state dict has the checkpoint's keys (without `image_encoder.`) and, at the checkpoint's own
    size, its shapes; at another size `pos_embed` and the tables of global blocks have the shapes
    that `adapt_state` gives them.
    """

    def __init__(self, cfg: VitConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.pos_embed = nn.Parameter(torch.zeros(1, *cfg.grid, cfg.dim))
        self.patch_embed = PatchEmbed(cfg.patch, cfg.dim)
        self.blocks = nn.ModuleList(Block(cfg, k) for k in range(cfg.depth))
        self.neck = Neck(cfg.dim, cfg.out_chans)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, S_h, S_w) float32, normalised, to (1, out_chans, h, w) float32."""
        expected = (1, 3, *self.cfg.image_size)
        if tuple(image.shape) != expected:
            raise ValueError(f"image of shape {tuple(image.shape)}: expected {expected}")
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out


def relative_table(table: Tensor, size: int) -> Tensor:
    """Relative positions (2 size - 1, d) as (size, size, d): entry [i, j] is row i - j + size - 1.

    Raises ValueError if the table has another length.
    """
    if table.shape[0] != 2 * size - 1:
        raise ValueError(
            f"a relative position table of {table.shape[0]} rows does not fit an axis of {size} "
            f"tokens, which needs {2 * size - 1}: use adapt_state"
        )
    index = torch.arange(size)
    return table[index[:, None] - index[None, :] + size - 1]


def checkpoint_shapes(cfg: VitConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the checkpoint's image encoder, in its order, without the prefix."""
    with torch.device("meta"):
        encoder = ImageEncoderViT(cfg.pretrained())
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    if cfg.pretrain_pos_grid is not None:
        shapes["pos_embed"] = (1, *cfg.pretrain_pos_grid, cfg.dim)
    return shapes


def adapt_state(
    state: Mapping[str, Tensor],
    cfg: VitConfig,
    mode: Literal["interpolate", "crop"] = "interpolate",
) -> dict[str, Tensor]:
    """The encoder's state dict with its position tables made to fit `cfg.image_size`.

    state: keys without `image_encoder.`; tensors that fit already are passed on as they are.
    mode: "interpolate" stretches the tables: `pos_embed` as `cfg.pos_interpolation` says, relative
        positions linearly, as segment-anything, SAMed and SAM-Med2D do when sizes differ.
        "crop" cuts them: the frame is the upper left part of the checkpoint's own square.  Relative
        positions keep their meaning, so the central part of the tables is used.

    Raises ValueError if a table is missing or not of the expected rank, or if the frame is larger
    than the table to be cropped.
    """
    if mode not in ("interpolate", "crop"):
        raise ValueError(f"mode {mode!r}: expected interpolate or crop")
    out = dict(state)
    pos_embed = _table(state, "pos_embed", 4, cfg.dim)
    out["pos_embed"] = (
        _crop_pos(pos_embed, cfg.grid) if mode == "crop" else _stretch_pos(pos_embed, cfg)
    )
    for block in range(cfg.depth):
        for name, size in zip(cfg.rel_pos_keys, cfg.table_grid(block), strict=True):
            key = f"blocks.{block}.attn.{name}"
            table = _table(state, key, 2, cfg.head_dim)
            cut = mode == "crop" and cfg.is_global(block)
            out[key] = _crop_table(table, key, size) if cut else _stretch_table(table, size)
    return out


def _table(state: Mapping[str, Tensor], key: str, rank: int, channels: int) -> Tensor:
    if key not in state:
        raise ValueError(f"the image encoder's state has no {key!r}")
    table = state[key]
    if table.ndim != rank or table.shape[-1] != channels:
        raise ValueError(
            f"{key} has shape {tuple(table.shape)}: expected {rank} axes, the last of {channels}"
        )
    return table


def _crop_pos(pos_embed: Tensor, grid: Size) -> Tensor:
    h, w = grid
    if h > pos_embed.shape[1] or w > pos_embed.shape[2]:
        raise ValueError(
            f"a grid of {grid} tokens cannot be cropped from a pos_embed of "
            f"{tuple(pos_embed.shape[1:3])}: use a smaller frame or mode 'interpolate'"
        )
    return pos_embed[:, :h, :w].contiguous()


def _stretch_pos(pos_embed: Tensor, cfg: VitConfig) -> Tensor:
    if tuple(pos_embed.shape[1:3]) == cfg.grid:
        return pos_embed
    planes = F.interpolate(
        pos_embed.float().permute(0, 3, 1, 2),
        cfg.grid,
        mode=cfg.pos_interpolation,
        align_corners=False,
    )
    return planes.permute(0, 2, 3, 1).contiguous()


def _crop_table(table: Tensor, key: str, size: int) -> Tensor:
    spare = table.shape[0] - (2 * size - 1)
    if spare < 0 or spare % 2:
        raise ValueError(
            f"{key} has {table.shape[0]} rows, from which no axis of {size} tokens can be cropped: "
            "use a smaller frame or mode 'interpolate'"
        )
    return table[spare // 2 : table.shape[0] - spare // 2].contiguous()


def _stretch_table(table: Tensor, size: int) -> Tensor:
    length = 2 * size - 1
    if table.shape[0] == length:
        return table
    rows = F.interpolate(table.float().T[None], size=length, mode="linear", align_corners=False)
    return rows[0].T.contiguous()
