"""TinyViT as MobileSAM and LiteMedSAM use it, in torch, with the checkpoints' key names.

Four stages: inverted bottlenecks, then three of window attention with a learned bias per offset,
a depthwise convolution and an MLP (Wu et al. 2022, TinyViT; MobileSAM: Zhang et al. 2023, which
keeps the third reduction at stride 1; LiteMedSAM: Ma et al. 2024, full-resolution stem).  A neck
as in SAM follows.  Tensors are (B, C, H, W) in the convolutions, (B, H, W, C) between the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samrt_export.nets.common import Neck, check_image_size
from samrt_export.nets.conv_bn import ConvBn

BLOCK_NORM_EPS = 1e-5
STAGES = 4


@dataclass(frozen=True)
class TinyVitConfig:
    """Sizes of the network; sizes of images and grids are (height, width)."""

    image_size: tuple[int, int] = (1024, 1024)
    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: int = 4
    expand_ratio: int = 4
    stem_kernel: int = 3
    stem_stride: int = 2
    merge_strides: tuple[int, int, int] = (2, 2, 1)
    out_chans: int = 256
    num_classes: int = 1000
    """Classes of the pretraining head that lies unused in the file; 0 where there is none."""

    def __post_init__(self) -> None:
        for name in ("embed_dims", "depths", "num_heads", "window_sizes"):
            if len(getattr(self, name)) != STAGES:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {STAGES} values")
        if any(side < 1 or side % self.stride for side in self.image_size):
            raise ValueError(
                f"image size {self.image_size} (height, width) does not fit a TinyViT of stride "
                f"{self.stride}; use positive multiples of {self.stride}"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per grid step of the stages."""
        return tuple(accumulate((self.stem_stride**2, *self.merge_strides), lambda a, b: a * b))

    @property
    def stride(self) -> int:
        """Pixels per step of the embedding."""
        return self.strides[-1]

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of tokens in a stage."""
        height, width = self.image_size
        return height // self.strides[stage], width // self.strides[stage]


MOBILE_SAM = TinyVitConfig()
LITE_MED_SAM = TinyVitConfig(image_size=(256, 256), stem_kernel=1, stem_stride=1, num_classes=0)


@lru_cache(maxsize=8)
def offset_index(window: int) -> npt.NDArray[np.int64]:
    """(window^2, window^2): entry of the bias table for a pair of tokens in row-major order.

    The table lists |dy|, |dx| in row-major order, as it follows from the original's enumeration.
    """
    y, x = np.divmod(np.arange(window * window), window)
    index: npt.NDArray[np.int64] = np.abs(y[:, None] - y) * window + np.abs(x[:, None] - x)
    return index


class PatchEmbed(nn.Module):
    """The stem: two convolutions with a GELU between."""

    def __init__(self, cfg: TinyVitConfig) -> None:
        super().__init__()
        width = cfg.embed_dims[0]
        self.seq = nn.Sequential(
            ConvBn(3, width // 2, cfg.stem_kernel, cfg.stem_stride),
            nn.GELU(),
            ConvBn(width // 2, width, cfg.stem_kernel, cfg.stem_stride),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S_h, S_w) to (B, C, H, W)."""
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Inverted bottleneck: widen, depthwise 3x3, narrow; the last GELU follows the sum."""

    def __init__(self, dim: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = dim * expand_ratio
        self.conv1 = ConvBn(dim, hidden)
        self.conv2 = ConvBn(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBn(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        wide = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(wide))


class PatchMerging(nn.Module):
    """Change of width and resolution between stages."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBn(dim, out_dim)
        self.conv2 = ConvBn(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvBn(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, out_dim, H / stride, W / stride)."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class Attention(nn.Module):
    """Pre-normed attention inside windows, with a learned bias per head and offset."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim}")
        self.heads, self.window, self.scale = heads, window, (dim // heads) ** -0.5
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.norm = nn.LayerNorm(dim, BLOCK_NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Tensor:
        """(heads, N, N) for the N = window^2 tokens of a window."""
        index = torch.from_numpy(offset_index(self.window)).to(self.attention_biases.device)
        return self.attention_biases[:, index]

    def forward(self, x: Tensor) -> Tensor:
        """(windows, N, C) to the same shape; qkv holds q, k, v of a head side by side."""
        B, N, C = x.shape
        qkv = self.qkv(self.norm(x)).view(B, N, self.heads, 3, C // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale + self.bias()).softmax(-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(B, N, C))
        return out


class Mlp(nn.Module):
    """Norm, widen, GELU, narrow."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, BLOCK_NORM_EPS)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyVitBlock(nn.Module):
    """Window attention, depthwise convolution, MLP."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, heads, window)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.local_conv = ConvBn(dim, dim, 3, groups=dim)

    def attend(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same; zero tokens fill the windows up at the right and the bottom.

        The filling comes before the norm, so those tokens take part with the norm's bias.
        """
        B, H, W, C = x.shape
        w = self.window
        down, right = -H % w, -W % w
        rows, columns = (H + down) // w, (W + right) // w
        x = F.pad(x, (0, 0, 0, right, 0, down))
        x = x.view(B, rows, w, columns, w, C).transpose(2, 3).reshape(-1, w * w, C)
        x = self.attn(x).view(B, rows, columns, w, w, C).transpose(2, 3)
        return x.reshape(B, H + down, W + right, C)[:, :H, :W]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.mlp(x)
        return out


class Stage(nn.Module):
    """Blocks, then the change to the next stage (none after the last)."""

    def __init__(self, cfg: TinyVitConfig, index: int) -> None:
        super().__init__()
        dim, heads, window = (
            cfg.embed_dims[index], cfg.num_heads[index], cfg.window_sizes[index]
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            MBConv(dim, cfg.expand_ratio)
            if index == 0
            else TinyVitBlock(dim, heads, window, cfg.mlp_ratio)
            for _ in range(cfg.depths[index])
        )
        if index + 1 < STAGES:
            out_dim, stride = cfg.embed_dims[index + 1], cfg.merge_strides[index]
            self.downsample: PatchMerging | None = PatchMerging(dim, out_dim, stride)
        else:
            self.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        if isinstance(self.blocks[0], MBConv):
            for block in self.blocks:
                x = block(x)
        else:
            x = x.permute(0, 2, 3, 1)
            for block in self.blocks:
                x = block(x)
            x = x.permute(0, 3, 1, 2)
        out: Tensor = x if self.downsample is None else self.downsample(x)
        return out


class TinyViT(nn.Module):
    """Image encoder of MobileSAM and LiteMedSAM."""

    def __init__(self, cfg: TinyVitConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.patch_embed = PatchEmbed(cfg)
        self.layers = nn.ModuleList(Stage(cfg, i) for i in range(STAGES))
        width, out = cfg.embed_dims[-1], cfg.out_chans
        if cfg.num_classes:
            self.norm_head = nn.LayerNorm(width, BLOCK_NORM_EPS)
            self.head = nn.Linear(width, cfg.num_classes)
        self.neck = Neck(width, out)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S_h, S_w) float32 to the embedding (B, 256, S_h / stride, S_w / stride).

        Raises ValueError where the image has another size than the configuration.
        """
        check_image_size(image, self.cfg.image_size)
        x = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.neck(x)
        return out
