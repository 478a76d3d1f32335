"""The plain-ViT image encoder of EfficientSAM: no windows, no relative positions.

Structure and formulas follow `efficient_sam_encoder.py` of yformer/EfficientSAM.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.nets.common import Neck, PatchEmbed, check_patches

NORM_EPS = 1e-6


@dataclass(frozen=True)
class EfficientVitConfig:
    """Shape of an EfficientSAM image encoder.  Sizes are (height, width) in pixels.

    pretrain_tokens: tokens of the checkpoint's `pos_embed` besides the class token, a square.

    Raises ValueError for sizes that do not fit each other.
    """

    dim: int
    heads: int
    depth: int = 12
    image_size: tuple[int, int] = (1024, 1024)
    patch: int = 16
    mlp_ratio: float = 4.0
    out_chans: int = 256
    pretrain_tokens: int = 196

    def __post_init__(self) -> None:
        check_patches(self.image_size, self.patch, self.dim, self.heads)
        if isqrt(self.pretrain_tokens) ** 2 != self.pretrain_tokens:
            raise ValueError(f"{self.pretrain_tokens} position tokens do not make a square")

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (h, w) of the frame."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch


EFFICIENT_VIT_PRESETS: dict[str, EfficientVitConfig] = {
    "efficient_sam_ti": EfficientVitConfig(dim=192, heads=3),
    "efficient_sam_s": EfficientVitConfig(dim=384, heads=6),
}


class Attention(nn.Module):
    """Self-attention over all tokens; keys `qkv.*`, `proj.*`."""

    def __init__(self, cfg: EfficientVitConfig) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.scale = (cfg.dim // cfg.heads) ** -0.5
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim)
        self.proj = nn.Linear(cfg.dim, cfg.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, dim) to the same shape."""
        _, n, dim = x.shape
        qkv = self.qkv(x).view(n, 3, self.heads, dim // self.heads)
        out = torch.empty_like(qkv[:, 0])
        for head in range(self.heads):  # one (n, n) map of scores at a time
            q, k, v = qkv[:, :, head].unbind(1)
            out[:, head] = ((q @ k.T) * self.scale).softmax(-1) @ v
        projected: Tensor = self.proj(out.view(1, n, dim))
        return projected


class Mlp(nn.Module):
    """Linear, GELU, Linear; keys `fc1.*`, `fc2.*`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A transformer block; keys `norm1.*`, `attn.*`, `norm2.*`, `mlp.*`."""

    def __init__(self, cfg: EfficientVitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.dim, eps=NORM_EPS)
        self.attn = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.dim, eps=NORM_EPS)
        self.mlp = Mlp(cfg.dim, int(cfg.dim * cfg.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, dim) to the same shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class EfficientSamEncoder(nn.Module):
    """Image to embedding; the state dict has the checkpoint's keys without `image_encoder.`."""

    def __init__(self, cfg: EfficientVitConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.pos_embed = nn.Parameter(torch.zeros(1, cfg.pretrain_tokens + 1, cfg.dim))
        self.patch_embed = PatchEmbed(cfg.patch, cfg.dim)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.neck = Neck(cfg.dim, cfg.out_chans)

    def positions(self) -> Tensor:
        """`pos_embed` without its class token, stretched to the frame: (1, h, w, dim).

        Bicubic, as the original does on every run.
        """
        side = isqrt(self.cfg.pretrain_tokens)
        table = self.pos_embed[:, 1:].reshape(1, side, side, self.cfg.dim)
        if self.cfg.grid == (side, side):
            return table
        planes = F.interpolate(
            table.permute(0, 3, 1, 2), self.cfg.grid, mode="bicubic", align_corners=False
        )
        return planes.permute(0, 2, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, S_h, S_w) float32, normalised, to (1, out_chans, h, w) float32."""
        expected = (1, 3, *self.cfg.image_size)
        if tuple(image.shape) != expected:
            raise ValueError(f"image of shape {tuple(image.shape)}: expected {expected}")
        x = (self.patch_embed(image) + self.positions()).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.transpose(1, 2).unflatten(2, self.cfg.grid))
        return out
