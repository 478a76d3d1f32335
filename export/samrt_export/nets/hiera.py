"""The image encoder of SAM 2.1 (Hiera and a feature pyramid) in torch, with the key names.

Hiera (Ryali et al. 2023) is a ViT in four stages: attention in windows, in a few blocks over the
whole grid, and pooling of the queries where a stage begins.  SAM 2 (Ravi et al. 2024) adds window
and background position embeddings (Bolya et al. 2023) and a pyramid of 1x1 convolutions whose
coarser two levels are summed.  Tokens are (B, H, W, C), feature maps (B, C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samrt_export.nets.common import check_image_size

NORM_EPS = 1e-6
STAGES = 4
PATCH_KERNEL, PATCH_STRIDE, PATCH_PADDING = 7, 4, 3


@dataclass(frozen=True)
class HieraConfig:
    """Sizes of the network; sizes of images and grids are (height, width)."""

    image_size: tuple[int, int] = (1024, 1024)
    dim: int = 96
    heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    windows: tuple[int, ...] = (8, 4, 14, 7)
    global_blocks: tuple[int, ...] = (5, 7, 9)
    background: tuple[int, int] = (7, 7)
    mlp_ratio: int = 4
    out_chans: int = 256

    def __post_init__(self) -> None:
        if len(self.stages) != STAGES or len(self.windows) != STAGES:
            raise ValueError(
                f"got {len(self.stages)} stages and {len(self.windows)} windows; expected {STAGES}"
            )
        if any(window % 2 for window in self.windows[:-1]):
            raise ValueError(
                f"windows are {self.windows}; all but the last must be even, as they are pooled"
            )
        unit = PATCH_STRIDE * lcm(self.windows[0], 1 << (STAGES - 1))
        if any(side < 1 or side % unit for side in self.image_size):
            raise ValueError(
                f"image size {self.image_size} (height, width) does not fit this Hiera, whose "
                f"position embedding repeats every {unit} pixels; use positive multiples of {unit}"
            )

    @property
    def ends(self) -> tuple[int, ...]:
        """Index of the last block of each stage."""
        return tuple(end - 1 for end in accumulate(self.stages))

    def stage(self, block: int) -> int:
        """The stage a block belongs to."""
        return sum(block > end for end in self.ends)

    def pools(self, block: int) -> bool:
        """Whether a block halves the grid: the first of every stage but the first."""
        return block - 1 in self.ends

    def window(self, block: int) -> int:
        """Side of a block's windows; 0 for attention over the grid.

        A pooling block still sees the grid of the stage before, and cuts it as that stage does.
        """
        if block in self.global_blocks:
            return 0
        return self.windows[self.stage(block) - int(self.pools(block))]

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's tokens; those of the embedding are grid(2)."""
        stride = PATCH_STRIDE << stage
        return self.image_size[0] // stride, self.image_size[1] // stride


HIERA_TINY = HieraConfig()


def pool(x: Tensor) -> Tensor:
    """Maxima of 2 x 2 tokens, (B, H, W, C) to (B, H / 2, W / 2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head attention of tokens (B, H, W, C); with `pooled` the queries are pooled first."""

    def __init__(self, dim: int, out: int, heads: int, *, pooled: bool) -> None:
        super().__init__()
        if out % heads:
            raise ValueError(f"{heads} heads do not divide a width of {out}")
        self.heads, self.pooled, self.scale = heads, pooled, (out // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to (B, H', W', out)."""
        q, k, v = self.qkv(x).chunk(3, -1)
        q = pool(q) if self.pooled else q
        B, H, W, C = q.shape
        q, k, v = (t.reshape(B, -1, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(B, H, W, C))
        return out


class Mlp(nn.Module):
    """Two Linear layers with an exact GELU between; keys `layers.0`, `layers.1`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, hidden), nn.Linear(hidden, dim)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        out: Tensor = self.layers[1](F.gelu(self.layers[0](x)))
        return out


class Block(nn.Module):
    """Pre-normed attention in windows and an MLP; `out` other than `dim` begins a stage."""

    def __init__(
        self, dim: int, out: int, heads: int, window: int, mlp_ratio: int, *, pooled: bool
    ) -> None:
        super().__init__()
        self.window, self.pooled = window, pooled
        self.norm1 = nn.LayerNorm(dim, NORM_EPS)
        self.attn = Attention(dim, out, heads, pooled=pooled)
        self.norm2 = nn.LayerNorm(out, NORM_EPS)
        self.mlp = Mlp(out, out * mlp_ratio)
        if dim != out:
            self.proj = nn.Linear(dim, out)

    def attend(self, x: Tensor) -> Tensor:
        """Normed tokens (B, H, W, C) to (B, H', W', C'); zeros fill the windows up."""
        w = self.window
        if not w:
            out: Tensor = self.attn(x)
            return out
        B, H, W, C = x.shape
        down, right = -H % w, -W % w
        rows, columns = (H + down) // w, (W + right) // w
        x = F.pad(x, (0, 0, 0, right, 0, down))
        x = x.view(B, rows, w, columns, w, C).transpose(2, 3).reshape(-1, w, w, C)
        x = self.attn(x)
        if self.pooled:
            w, H, W = w // 2, H // 2, W // 2
        x = x.view(B, rows, columns, w, w, -1).transpose(2, 3)
        return x.reshape(B, rows * w, columns * w, -1)[:, :H, :W]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to (B, H', W', out)."""
        normed = self.norm1(x)
        if hasattr(self, "proj"):
            x = self.proj(normed)
            x = pool(x) if self.pooled else x
        x = x + self.attend(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """Overlapping patches to tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH_KERNEL, PATCH_STRIDE, PATCH_PADDING)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S_h, S_w) to (B, S_h / 4, S_w / 4, C)."""
        out: Tensor = self.proj(image)
        return out.permute(0, 2, 3, 1)


class Trunk(nn.Module):
    """Hiera: tokens of four resolutions."""

    def __init__(self, cfg: HieraConfig) -> None:
        super().__init__()
        self.cfg = cfg
        side = cfg.windows[0]
        self.pos_embed = nn.Parameter(torch.zeros(1, cfg.dim, *cfg.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, cfg.dim, side, side))
        self.patch_embed = PatchEmbed(cfg.dim)
        self.blocks = nn.ModuleList()
        dim, heads = cfg.dim, cfg.heads
        for index in range(sum(cfg.stages)):
            pooled = cfg.pools(index)
            out, heads = (2 * dim, 2 * heads) if pooled else (dim, heads)
            window = cfg.window(index)
            self.blocks.append(Block(dim, out, heads, window, cfg.mlp_ratio, pooled=pooled))
            dim = out

    def position(self) -> Tensor:
        """Position embedding (1, H, W, C): the background, interpolated, plus repeated windows."""
        height, width = self.cfg.grid(0)
        side = self.cfg.windows[0]
        background = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        tiled = self.pos_embed_window.tile(1, 1, height // side, width // side)
        return (background + tiled).permute(0, 2, 3, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S_h, S_w) to the tokens (B, H, W, C) of the four stages, finest first."""
        x = self.patch_embed(image) + self.position()
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.cfg.ends:
                levels.append(x)
        return levels


class PyramidConv(nn.Module):
    """The 1x1 convolution of a level; keys `conv.*`."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, out, H, W)."""
        out: Tensor = self.conv(x)
        return out


class Pyramid(nn.Module):
    """Levels brought to one width; `convs` lists the coarsest level first."""

    def __init__(self, cfg: HieraConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            PyramidConv(cfg.dim << stage, cfg.out_chans) for stage in reversed(range(STAGES))
        )

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of four stages to maps of stride 16, 4 and 8.

        Only the first receives the coarser level, repeated 2 x 2; the two finest stand alone.
        """
        maps = [
            conv(level.permute(0, 3, 1, 2))
            for conv, level in zip(reversed(self.convs), levels, strict=True)
        ]
        coarse = F.interpolate(maps[3], scale_factor=2.0, mode="nearest")
        return maps[2] + coarse, maps[0], maps[1]


class HieraEncoder(nn.Module):
    """Image encoder of SAM 2.1, keys `trunk.*` and `neck.*`.

    The checkpoint keeps `no_mem_embed` at its top level and the projections of the fine maps,
    `conv_s0` and `conv_s1`, in the mask decoder; they are applied by whoever holds them.
    """

    def __init__(self, cfg: HieraConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.trunk = Trunk(cfg)
        self.neck = Pyramid(cfg)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S_h, S_w) float32 to maps (B, 256, S_h / n, S_w / n), n = 16, 4, 8.

        Raises ValueError where the image has another size than the configuration.
        """
        check_image_size(image, self.cfg.image_size)
        maps: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(image))
        return maps
