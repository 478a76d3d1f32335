"""Mask and IoU losses.

Masks: cross-entropy weighted towards the neighbourhood of the target plus soft Dice (Milletari et
al. 2016).  Mask 0 always learns; of masks 1 to 3 the best one does (Kirillov et al. 2023,
section 3), the others a little, so that no token dies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FAR_WEIGHT = 0.2
OTHERS_WEIGHT = 0.05
SCORE_WEIGHT = 3.0


def near_weights(target: Tensor) -> Tensor:
    """1 in the target's box enlarged by 30 % and 4 pixels, `FAR_WEIGHT` outside; (N, h, w)."""
    n, h, w = target.shape
    hit = target > 0.5
    rows, cols = hit.any(2), hit.any(1)
    y = torch.arange(h, device=target.device)[None]
    x = torch.arange(w, device=target.device)[None]
    big = 1 << 20
    y0, y1 = torch.where(rows, y, big).amin(1), torch.where(rows, y, -1).amax(1)
    x0, x1 = torch.where(cols, x, big).amin(1), torch.where(cols, x, -1).amax(1)
    py, px = (y1 - y0) * 0.3 + 4, (x1 - x0) * 0.3 + 4
    inside_y = (y >= (y0 - py)[:, None]) & (y <= (y1 + py)[:, None])
    inside_x = (x >= (x0 - px)[:, None]) & (x <= (x1 + px)[:, None])
    near = (inside_y[:, :, None] & inside_x[:, None, :]).to(target.dtype)
    return FAR_WEIGHT + (1 - FAR_WEIGHT) * near.view(n, h, w)


def mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """logits (N, M, h, w), target (N, h, w) in [0, 1]; loss of each mask, (N, M)."""
    t = target[:, None]
    weight = near_weights(target)[:, None]
    entropy = F.binary_cross_entropy_with_logits(logits, t.expand_as(logits), reduction="none")
    bce = (entropy * weight).flatten(2).sum(2) / weight.flatten(2).sum(2)
    p = torch.sigmoid(logits)
    both = (p * t).flatten(2).sum(2)
    dice = 1 - (2 * both + 1) / (p.flatten(2).sum(2) + t.flatten(2).sum(2) + 1)
    return 2 * bce + dice


def edge_loss(logits: list[Tensor], edges: Tensor) -> Tensor:
    """Cross-entropy of border maps; logits (B, 1, S/k, S/k), edges (B, S, S) in {0, 1}."""
    total = torch.zeros((), device=edges.device)
    for x in logits:
        k = edges.shape[-1] // x.shape[-1]
        target = F.max_pool2d(edges[:, None], k)
        total = total + F.binary_cross_entropy_with_logits(
            x, target, pos_weight=torch.tensor(3.0, device=edges.device)
        )
    return total / len(logits)


def hard_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the thresholded masks, (N, M)."""
    m, t = logits > 0, (target > 0.5)[:, None]
    union = (m | t).flatten(2).sum(2)
    return (m & t).flatten(2).sum(2) / union.clamp_min(1)


def total_loss(logits: Tensor, iou: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The scalar to minimise and a few numbers to print."""
    each = mask_losses(logits, target)
    best, others = each[:, 1:].amin(1), each[:, 1:].mean(1)
    masks = each[:, 0] + (1 - OTHERS_WEIGHT) * best + OTHERS_WEIGHT * others
    with torch.no_grad():
        truth = hard_iou(logits, target)
    score = F.mse_loss(iou, truth)
    pick = iou.argmax(1, keepdim=True)
    report = {
        "single": float(truth[:, 0].mean()),
        "chosen": float(truth.gather(1, pick).mean()),
        "best": float(truth.amax(1).mean()),
        "score_mse": float(score.detach()),
    }
    return masks.mean() + SCORE_WEIGHT * score, report
