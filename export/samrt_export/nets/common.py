"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def check_image_size(image: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError where an image (B, 3, S_h, S_w) has another size than the encoder's."""
    if tuple(image.shape[-2:]) != size:
        raise ValueError(
            f"got an image of {tuple(image.shape[-2:])}; this encoder takes {size} (height, width)"
        )


def check_patches(image_size: tuple[int, int], patch: int, dim: int, heads: int) -> None:
    """Raise ValueError where a ViT's sizes do not fit each other."""
    if any(side <= 0 or side % patch for side in image_size):
        raise ValueError(f"image size {image_size} is not a multiple of the patch size {patch}")
    if dim % heads:
        raise ValueError(f"dim {dim} is not a multiple of {heads} heads")


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (N, C, H, W); keys `weight`, `bias` of shape (C)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 to the same shape, each pixel normalised over C."""
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        variance = centred.square().mean(1, keepdim=True)
        scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        return centred / torch.sqrt(variance + self.eps) * scale + shift


class MlpBlock(nn.Module):
    """Two Linear layers with an activation between them; keys `lin1.*`, `lin2.*`."""

    def __init__(self, dim: int, hidden: int, activation: Activation = F.gelu) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        out: Tensor = self.lin2(self.activation(self.lin1(x)))
        return out


class Neck(nn.Sequential):
    """Convolution 1x1, norm, convolution 3x3, norm; keys `0.weight`, `1.*`, `2.weight`, `3.*`."""

    def __init__(self, dim: int, out_chans: int) -> None:
        super().__init__(
            nn.Conv2d(dim, out_chans, kernel_size=1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )


class PatchEmbed(nn.Module):
    """Non-overlapping patches to vectors; keys `proj.weight` (dim, in, p, p), `proj.bias` (dim)."""

    def __init__(self, patch: int, dim: int, in_chans: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(1, in, S_h, S_w) to tokens (1, S_h / p, S_w / p, dim)."""
        out: Tensor = self.proj(x)
        return out.permute(0, 2, 3, 1)
