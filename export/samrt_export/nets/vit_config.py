"""What sets the plain-ViT image encoders of the SAM family apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from samrt_export.nets.common import check_patches

Size = tuple[int, int]
Adapters = Literal["none", "sam_med2d", "msa"]
PosInterpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class VitConfig:
    """Shape of a SAM ViT image encoder.  Sizes and grids are (height, width).

    image_size: the frame in pixels, a multiple of `patch` on each side.
    global_blocks: blocks that attend over the whole grid; the others use windows.
    pretrain_grid: grid of the checkpoint's global relative position tables, and of its `pos_embed`
        unless `pretrain_pos_grid` says otherwise; None is the grid of `image_size`.
    adapters: "sam_med2d" and "msa" (Medical SAM Adapter) add layers to every block.
    rel_pos_keys: names of the two relative position tables in a checkpoint.
    pos_interpolation: how the original code resizes `pos_embed`.

    Raises ValueError for sizes that do not fit each other.
    """

    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    image_size: Size = (1024, 1024)
    pretrain_grid: Size | None = None
    pretrain_pos_grid: Size | None = None
    patch: int = 16
    mlp_ratio: float = 4.0
    window: int = 14
    out_chans: int = 256
    adapters: Adapters = "none"
    rel_pos_keys: tuple[str, str] = ("rel_pos_h", "rel_pos_w")
    pos_interpolation: PosInterpolation = "bilinear"

    def __post_init__(self) -> None:
        check_patches(self.image_size, self.patch, self.dim, self.heads)
        if self.adapters not in ("none", "sam_med2d", "msa"):
            raise ValueError(f"adapters {self.adapters!r}: expected none, sam_med2d or msa")
        if self.adapters == "sam_med2d" and any(side % 2 for side in self.grid):
            raise ValueError(
                f"SAM-Med2D's adapters halve and double the grid, so {self.grid} must be even: "
                f"use an image size that is a multiple of {2 * self.patch}"
            )
        if any(not 0 <= block < self.depth for block in self.global_blocks):
            raise ValueError(f"global blocks {self.global_blocks} of {self.depth} blocks")

    @property
    def grid(self) -> Size:
        """Tokens (h, w) of the frame."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads

    @property
    def pads_before_norm(self) -> bool:
        """Whether windows are padded before norm1, so that padding tokens hold norm1's bias.

        So in the Medical SAM Adapter; elsewhere padding tokens are zero.
        """
        return self.adapters == "msa"

    def is_global(self, block: int) -> bool:
        """Whether a block attends over the whole grid."""
        return block in self.global_blocks

    def table_grid(self, block: int) -> Size:
        """Grid (h, w) of a block's relative position tables, of 2 h - 1 and 2 w - 1 rows."""
        return self.grid if self.is_global(block) else (self.window, self.window)

    def pretrained(self) -> VitConfig:
        """The same encoder at the checkpoint's own size."""
        if self.pretrain_grid is None:
            return self
        h, w = self.pretrain_grid
        return replace(self, image_size=(h * self.patch, w * self.patch), pretrain_grid=None)


SAM_VIT_B = VitConfig(
    dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11), pretrain_grid=(64, 64)
)
SAM_VIT_L = VitConfig(
    dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23), pretrain_grid=(64, 64)
)
SAM_VIT_H = VitConfig(
    dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31), pretrain_grid=(64, 64)
)
VIT_PRESETS: dict[str, VitConfig] = {
    "sam_vit_b": SAM_VIT_B,
    "sam_vit_l": SAM_VIT_L,
    "sam_vit_h": SAM_VIT_H,
    "medsam": SAM_VIT_B,
    "sam_med2d": replace(
        SAM_VIT_B, image_size=(256, 256), pretrain_grid=(16, 16), adapters="sam_med2d"
    ),
    "medical_sam_adapter": replace(
        SAM_VIT_B,
        pretrain_pos_grid=(64, 64),
        adapters="msa",
        rel_pos_keys=("rel_h", "rel_w"),
        pos_interpolation="bicubic",
    ),
    "samed": replace(SAM_VIT_B, image_size=(512, 512)),
}
