"""Position tables of the ViT encoders on another grid, as the families' own code resizes them.

All functions are pure: float tensors in, new float tensors out, nothing changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F

from samrt_export.checkpoint.errors import CheckpointError

__all__ = ["patch_grid", "resize_pos_embed", "resize_rel_pos", "resize_tables"]

MODES = ("bilinear", "bicubic")
_REL_POS = ("rel_pos_h", "rel_pos_w", "rel_h", "rel_w")


def resize_pos_embed(
    pos_embed: torch.Tensor, grid: tuple[int, int], mode: str = "bilinear"
) -> torch.Tensor:
    """Resize an absolute position table.

    Half-pixel centres, no antialiasing. ``bilinear`` is what SAMed and SAM-Med2D do to SAM's
    table when they load it, ``bicubic`` what the Medical SAM Adapter does to its 64x64 table and
    EfficientSAM to its 14x14 one (after `patch_grid`) at run time. A table that has the size
    already comes back unchanged.

    Args:
        pos_embed: (1, h, w, C), any float dtype.
        grid: new (h, w) in tokens.
        mode: ``bilinear`` or ``bicubic``.

    Returns:
        (1, grid[0], grid[1], C), same dtype.

    Raises:
        CheckpointError: another shape, an empty grid or another mode.
    """
    if pos_embed.ndim != 4 or pos_embed.shape[0] != 1:
        raise CheckpointError(
            f"pos_embed has shape {tuple(pos_embed.shape)}, expected (1, h, w, C)"
        )
    if mode not in MODES:
        raise CheckpointError(f"mode {mode!r} is not known: choose one of {', '.join(MODES)}")
    if min(grid) < 1:
        raise CheckpointError(f"grid {grid} is empty: it counts tokens, at least (1, 1)")
    if tuple(pos_embed.shape[1:3]) == tuple(grid):
        return pos_embed
    channels_first = pos_embed.permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, size=grid, mode=mode, align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def resize_rel_pos(rel_pos: torch.Tensor, length: int) -> torch.Tensor:
    """Resize one axis' relative position table along its offsets, linearly.

    segment_anything does this at run time, in ``get_rel_pos``, whenever a table has another
    length than twice the tokens of its axis minus one; SAMed does it when it loads SAM's weights.

    Args:
        rel_pos: (2 * L - 1, d): row ``i`` belongs to the offset ``i - (L - 1)``; any float dtype.
        length: new number of tokens of the axis.

    Returns:
        (2 * length - 1, d), same dtype.

    Raises:
        CheckpointError: another shape or no tokens.
    """
    if rel_pos.ndim != 2 or rel_pos.shape[0] % 2 == 0:
        raise CheckpointError(
            f"relative positions have shape {tuple(rel_pos.shape)}, expected (2 * L - 1, d)"
        )
    if length < 1:
        raise CheckpointError(f"length {length} is not a number of tokens")
    rows = 2 * length - 1
    if rel_pos.shape[0] == rows:
        return rel_pos
    resized = F.interpolate(rel_pos.T[None], size=rows, mode="linear", align_corners=False)
    return resized[0].T.contiguous()


def patch_grid(pos_embed: torch.Tensor) -> torch.Tensor:
    """A flat position table with a class token as a square grid of patches.

    Args:
        pos_embed: (1, 1 + s * s, C), the class token first, as in EfficientSAM (1, 197, C).

    Returns:
        (1, s, s, C), rows of the image first.

    Raises:
        CheckpointError: another shape.
    """
    patches = pos_embed.shape[1] - 1 if pos_embed.ndim == 3 else 0
    side = math.isqrt(max(patches, 0))
    if pos_embed.ndim != 3 or pos_embed.shape[0] != 1 or side < 1 or side * side != patches:
        raise CheckpointError(
            f"pos_embed has shape {tuple(pos_embed.shape)}, expected (1, 1 + s * s, C)"
        )
    return pos_embed[:, 1:].reshape(1, side, side, -1)


def resize_tables(
    state: Mapping[str, torch.Tensor],
    grid: tuple[int, int],
    global_blocks: Collection[int],
    mode: str = "bilinear",
) -> dict[str, torch.Tensor]:
    """All position tables of a SAM-type ViT encoder for another grid.

    The absolute table and the relative tables of blocks with global attention are resized;
    windows keep their size, so the tables of all other blocks stay as they are.

    Args:
        state: parameter name -> tensor, names as in SAM (``image_encoder.pos_embed``).
        grid: new (h, w) in tokens.
        global_blocks: indices of the blocks with global attention.
        mode: for the absolute table.

    Returns:
        A new dictionary; other tensors are shared with ``state``.

    Raises:
        CheckpointError: a table has a shape that cannot be resized.
    """
    changed = dict(state)
    wanted = {str(index) for index in global_blocks}
    for name, tensor in state.items():
        parts = name.split(".")
        if name == "image_encoder.pos_embed":
            changed[name] = resize_pos_embed(tensor, grid, mode)
        elif (
            parts[:2] == ["image_encoder", "blocks"]
            and parts[-1] in _REL_POS
            and parts[2] in wanted
        ):
            changed[name] = resize_rel_pos(tensor, grid[0 if parts[-1].endswith("h") else 1])
    return changed
