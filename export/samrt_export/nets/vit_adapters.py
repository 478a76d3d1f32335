"""Adapters that medical fine-tunes put into the blocks of a SAM image encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

ADAPTER_RATIO = 0.25
SAM_MED2D_NORM_EPS = 1e-5


class BottleneckAdapter(nn.Module):
    """Linear, GELU, Linear of the Medical SAM Adapter; keys `D_fc1.*`, `D_fc2.*`.

    A skip connection, where there is one, is the caller's.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = int(dim * ADAPTER_RATIO)
        self.D_fc1 = nn.Linear(dim, hidden)
        self.D_fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        out: Tensor = self.D_fc2(F.gelu(self.D_fc1(x)))
        return out


class SamMed2dAdapter(nn.Module):
    """Channel gate, then a convolution down and up again, of SAM-Med2D.

    Keys `norm.*`, `channel.0.weight`, `channel.2.weight`, `spatial.0.weight`, `spatial.2.weight`.
    Its norm keeps PyTorch's eps of 1e-5 where the rest of the encoder has 1e-6.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = int(dim * ADAPTER_RATIO)
        self.norm = nn.LayerNorm(dim, eps=SAM_MED2D_NORM_EPS)
        self.channel = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, dim, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to the same shape; H and W even."""
        gate: Tensor = self.channel(x.mean((1, 2)))
        gated = x * gate[:, None, None, :]
        spatial: Tensor = self.spatial(gated.permute(0, 3, 1, 2))
        out: Tensor = self.norm(x + spatial.permute(0, 2, 3, 1))
        return out
