"""The parts of `tiny` that know what a prompt is: drawn maps, prototypes, the score of a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROMPT_MAPS = 12
"""Number of dense prompt channels, see `PromptMaps`."""


class PromptMaps(nn.Module):
    """Draws the prompt on a grid: 12 channels in about [-2, 2], zero where a kind is absent.

    Box (6): u, v (position in half box sides from its centre, clipped to +-2), the ellipse field
    1 - u^2 - v^2, the box field min(1 - |u|, 1 - |v|), the same in pixels / 16, presence.
    Clicks (4): narrow and wide bumps for positives, then for negatives.  Mask (2): tanh of the
    previous logits, presence.
    """

    SIGMAS = (5.0, 30.0)

    def forward(
        self,
        hw: tuple[int, int],
        stride: int,
        coords: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
    ) -> Tensor:
        """coords (N, P, 2), labels (N, P), mask (N, 1, h, w) at this grid, has_mask (N)."""
        device, dtype = coords.device, coords.dtype
        gy = (torch.arange(hw[0], device=device, dtype=dtype) + 0.5) * stride
        gx = (torch.arange(hw[1], device=device, dtype=dtype) + 0.5) * stride
        gy, gx = gy.view(1, -1, 1), gx.view(1, 1, -1)
        first = (labels == 2).to(dtype)[..., None]
        last = (labels == 3).to(dtype)[..., None]
        low, high = (coords * first).sum(1), (coords * last).sum(1)
        has = (first.sum(1) > 0).to(dtype).view(-1, 1, 1)
        centre, half = (low + high) / 2, ((high - low) / 2).clamp_min(1.0)
        u = (gx - centre[:, 0, None, None]) / half[:, 0, None, None]
        v = (gy - centre[:, 1, None, None]) / half[:, 1, None, None]
        zero = u * 0 + v * 0
        u, v = u + zero, v + zero
        ellipse = (1 - u * u - v * v).clamp(-2, 2)
        field = torch.minimum(1 - u.abs(), 1 - v.abs()).clamp(-2, 2)
        pixels = torch.minimum(
            (1 - u.abs()) * half[:, 0, None, None], (1 - v.abs()) * half[:, 1, None, None]
        )
        pixels = (pixels / 16).clamp(-2, 2)
        parts = [u.clamp(-2, 2) * has, v.clamp(-2, 2) * has, ellipse * has, field * has]
        parts += [pixels * has, has + zero]
        d2 = (gx[:, None] - coords[:, :, 0, None, None]) ** 2
        d2 = d2 + (gy[:, None] - coords[:, :, 1, None, None]) ** 2
        for kind in (1, 0):
            here = (labels == kind).to(dtype)[..., None, None]
            parts += [
                (torch.exp(d2 * (-0.5 / s**2)) * here).amax(dim=1) + zero for s in self.SIGMAS
            ]
        gate = has_mask.view(-1, 1, 1)
        parts += [torch.tanh(mask[:, 0] / 4) * gate, gate + zero]
        return torch.stack(parts, dim=1)


def prototype_weights(maps: Tensor) -> Tensor:
    """Where to look for the object's and the background's look: (N, 2, h, w) >= 0.

    Object: the inscribed ellipse, positive clicks, the previous mask.  Background: a ring around
    the box, negative clicks, outside the previous mask, and a little of everything.
    """
    ellipse, field, has = maps[:, 2], maps[:, 3], maps[:, 5]
    ring = F.relu(1 - (field + 0.4).abs() * 3) * has
    inside = F.relu(ellipse) + maps[:, 6] + F.relu(maps[:, 10])
    outside = ring + maps[:, 8] + F.relu(-maps[:, 10]) * 0.1 + 0.003
    return torch.stack([inside, outside], dim=1)


class Prototypes(nn.Module):
    """Compares every pixel's features with the mean features of object and background.

    Few-shot segmentation's masked pooling (Wang et al. 2019, PANet), made linear in the features:
    out = (I + A diag(p_in) + B diag(p_out)) f + bias(p), so one small matrix product per prompt.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(width, width) * width**-0.5 * 0.5)
        self.b = nn.Parameter(torch.randn(width, width) * width**-0.5 * 0.5)
        self.bias = nn.Linear(4 * width, width)

    def forward(self, f: Tensor, weights: Tensor) -> Tensor:
        """f (1 or N, C, h, w), weights (N, 2, h, w); (N, C, h, w)."""
        c, h, w = f.shape[1:]
        flat = f.flatten(2)
        mass = weights.flatten(2)
        pooled = mass @ flat.transpose(1, 2) / (mass.sum(2, keepdim=True) + 1e-3)
        both = pooled.flatten(1)
        bias: Tensor = self.bias(torch.cat([both, both * both], dim=1))
        eye = torch.eye(c, device=f.device)
        matrix = eye + self.a * pooled[:, :1] + self.b * pooled[:, 1:]
        return (matrix.to(f.dtype) @ flat + bias[:, :, None]).view(-1, c, h, w)


class ScoreHead(nn.Module):
    """Predicted IoU of each mask from its token and from the mask itself.

    Eight figures describe a mask against its prompt: soft IoU of its probabilities with its
    thresholded self, size, how well its extent in rows and in columns fits the box, how much of the
    box it fills, whether there is a box, mean probability at positive and at negative clicks.
    With a box the score is scaled by how well the extent of the thresholded mask fits it, in rows
    times in columns: a mask that fills half of the box's width is not what was boxed.
    """

    FIGURES = 8

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.own = nn.Linear(dim, 16)
        self.shared = nn.Linear(dim, 16)
        self.hidden = nn.Linear(16 + self.FIGURES, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, t: Tensor, logits: Tensor, maps: Tensor) -> Tensor:
        """t (N, 1 + M, dim), logits (N, M, h, w) at the grid of maps (N, 12, h, w); (N, M)."""
        p = torch.sigmoid(logits.detach().float())
        hard = (logits > 0).float()
        maps = maps.float()
        sp, sh, both = (v.flatten(2).sum(2) for v in (p, hard, p * hard))
        has = maps[:, 5, :1, :1].flatten(1).expand_as(sp)
        figures = [both / (sp + sh - both + 1), (sh + 1e-6).sqrt() / logits.shape[-1]]
        cells = []
        fit = torch.ones_like(sp)
        for axis, channel in ((3, 1), (2, 0)):
            extent = p.amax(axis)
            line = maps[:, channel].select(axis - 1, 0)
            within = ((line.abs() <= 1).float() * maps[:, 5, 0, :1])[:, None]
            shared = (extent * within).sum(2)
            whole = extent.sum(2) + within.sum(2) - shared
            figures.append(shared / (whole + 1e-3) * has)
            cells.append(within.sum(2))
            sure = hard.amax(axis)
            covered = (sure * within).sum(2)
            fit = fit * (covered / (sure.sum(2) + cells[-1] - covered + 1e-3))
        figures += [(sh / (cells[0] * cells[1] + 1)).clamp(max=2) * has, has]
        clicks = maps[:, (6, 8)].flatten(2)
        seen = p.flatten(2) @ clicks.transpose(1, 2) / (clicks.sum(2)[:, None] + 1e-3)
        token = self.own(t[:, 1:]) + self.shared(t[:, :1])
        x = torch.cat([token, torch.stack(figures, dim=2), seen], dim=2)
        score: Tensor = self.out(F.relu(self.hidden(x)))
        return score[..., 0] * (1 - has + has * fit)
