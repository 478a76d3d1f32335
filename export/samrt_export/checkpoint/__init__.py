"""Checkpoints of SAM-type models: reading, telling the family, comparing, merging, resizing."""

from samrt_export.checkpoint.errors import CheckpointError
from samrt_export.checkpoint.identify import Identified, identify
from samrt_export.checkpoint.interpolate import (
    patch_grid,
    resize_pos_embed,
    resize_rel_pos,
    resize_tables,
)
from samrt_export.checkpoint.lora import merge_lora, merge_wrapped_lora
from samrt_export.checkpoint.read import RawCheckpoint, from_state_dict, read_checkpoint
from samrt_export.checkpoint.report import KeyReport, compare_keys

__all__ = [
    "CheckpointError",
    "Identified",
    "KeyReport",
    "RawCheckpoint",
    "compare_keys",
    "from_state_dict",
    "identify",
    "merge_lora",
    "merge_wrapped_lora",
    "patch_grid",
    "read_checkpoint",
    "resize_pos_embed",
    "resize_rel_pos",
    "resize_tables",
]
