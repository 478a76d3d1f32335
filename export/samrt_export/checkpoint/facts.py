"""Sizes of a network read off the names and shapes of its tensors, one function per encoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from samrt_export.checkpoint.errors import CheckpointError

__all__ = [
    "Shape",
    "decoder_facts",
    "efficient_vit_facts",
    "hiera_facts",
    "lora_facts",
    "repvit_facts",
    "tiny_vit_facts",
    "vit_facts",
]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Facts = dict[str, object]

_DIGITS = 6
_BLOCKS = "image_encoder.blocks."
_INSIDE = (".base_layer.weight", ".attn.qkv.qkv.weight", ".attn.qkv.qkv_proj.weight")


def numbers(shapes: Shapes, pattern: str) -> list[int]:
    """Sorted distinct values of the one group of ``pattern`` over all names."""
    found = [match.group(1) for name in shapes if (match := re.match(pattern, name))]
    return sorted({int(text) for text in found if len(text) <= _DIGITS})


def need(shapes: Shapes, name: str, axes: int) -> Shape:
    """The shape of a tensor that the family cannot do without.

    Raises:
        CheckpointError: it is missing or has another number of axes.
    """
    shape = shapes.get(name)
    if shape is None or len(shape) != axes:
        got = "it is missing" if shape is None else f"its shape is {tuple(shape)}"
        raise CheckpointError(f"checkpoint lacks {name} of {axes} axes: {got}")
    return tuple(shape)


def vit_facts(shapes: Shapes) -> Facts:
    """SAM's ViT, with or without adapters in its blocks.

    ``dim, depth, heads, mlp_dim, out_dim, patch, grid, image_size, window, global_blocks,
    pos_grid, adapters, rel_h``. The grid is that of ``pos_embed``; only the Medical SAM Adapter
    keeps SAM's 64x64 table whatever its input, there it is that of the global blocks' relative
    tables. Where all relative tables have one length, which blocks are global does not show:
    ``global_blocks`` is empty.
    """
    _, rows, columns, dim = need(shapes, "image_encoder.pos_embed", 4)
    patch = need(shapes, "image_encoder.patch_embed.proj.weight", 4)[2]
    depth = len(numbers(shapes, r"image_encoder\.blocks\.(\d+)\."))
    rel_h = f"{_BLOCKS}0.attn.rel_h" in shapes
    leaf = "rel_h" if rel_h else "rel_pos_h"
    tables = {
        i: shapes[f"{_BLOCKS}{i}.attn.{leaf}"]
        for i in range(depth)
        if f"{_BLOCKS}{i}.attn.{leaf}" in shapes
    }
    lengths = {i: (shape[0] + 1) // 2 for i, shape in tables.items() if len(shape) == 2}
    window = Counter(lengths.values()).most_common(1)[0][0] if lengths else None
    globals_ = tuple(i for i, length in lengths.items() if length != window)
    grid = (rows, columns)
    if rel_h and globals_:
        widths = shapes.get(f"{_BLOCKS}{globals_[0]}.attn.rel_w", (2 * columns - 1,))
        grid = (lengths[globals_[0]], (widths[0] + 1) // 2)
    head_dim = next((shape[1] for shape in tables.values() if len(shape) == 2), 0) or 64
    kinds = {m.group(1) for n in shapes if (m := re.match(rf"{_BLOCKS}\d+\.(\w*Adapter)\.", n))}
    return {
        "dim": dim,
        "depth": depth,
        "heads": dim // head_dim,
        "mlp_dim": need(shapes, f"{_BLOCKS}0.mlp.lin1.weight", 2)[0],
        "out_dim": need(shapes, "image_encoder.neck.0.weight", 4)[0],
        "patch": patch,
        "grid": grid,
        "image_size": (grid[0] * patch, grid[1] * patch),
        "pos_grid": (rows, columns),
        "window": window,
        "global_blocks": globals_,
        "adapters": tuple(sorted(kinds)),
        "rel_h": rel_h,
    }


def efficient_vit_facts(shapes: Shapes) -> Facts:
    """EfficientSAM's plain ViT: ``dim, depth, heads, pos_grid, patch, image_size``."""
    _, positions, dim = need(shapes, "image_encoder.pos_embed", 3)
    side = round((positions - 1) ** 0.5)
    return {
        "dim": dim,
        "depth": len(numbers(shapes, r"image_encoder\.blocks\.(\d+)\.")),
        "heads": dim // 64,
        "mlp_dim": need(shapes, f"{_BLOCKS}0.mlp.fc1.weight", 2)[0],
        "pos_grid": (side, side),
        "patch": need(shapes, "image_encoder.patch_embed.proj.weight", 4)[2],
        "image_size": (1024, 1024),
        "grid": (64, 64),
    }


def tiny_vit_facts(shapes: Shapes) -> Facts:
    """TinyViT: ``dims, depths, heads, windows`` per stage, and whether a classifier is there."""
    stages = numbers(shapes, r"image_encoder\.layers\.(\d+)\.")
    dims, depths, heads, windows = [], [], [], []
    for stage in stages:
        at = f"image_encoder.layers.{stage}.blocks."
        depths.append(len(numbers(shapes, rf"{re.escape(at)}(\d+)\.")))
        biases = shapes.get(f"{at}0.attn.attention_biases")
        first = f"{at}0.attn.proj.weight" if biases else f"{at}0.conv3.c.weight"
        dims.append(shapes.get(first, (0,))[0])
        heads.append(biases[0] if biases else 0)
        windows.append(round(biases[1] ** 0.5) if biases else 0)
    return {
        "dims": tuple(dims),
        "depths": tuple(depths),
        "heads": tuple(heads),
        "windows": tuple(windows),
        "head": "image_encoder.head.weight" in shapes,
        "grid": (64, 64),
    }


def repvit_facts(shapes: Shapes) -> Facts:
    """RepViT: ``dim`` of the first stage, ``depth`` in blocks, and EdgeSAM's ``fuse`` stages."""
    return {
        "dim": need(shapes, "image_encoder.features.0.2.c.weight", 4)[0],
        "depth": len(numbers(shapes, r"image_encoder\.features\.(\d+)\.")) - 1,
        "fuse": any(name.startswith("image_encoder.fuse_stage") for name in shapes),
        "grid": (64, 64),
    }


def hiera_facts(shapes: Shapes) -> Facts:
    """SAM 2's Hiera: ``dim, depth, dims`` per block, ``edition``, ``memory``."""
    at = "image_encoder.trunk."
    blocks = numbers(shapes, r"image_encoder\.trunk\.blocks\.(\d+)\.")
    return {
        "dim": need(shapes, f"{at}patch_embed.proj.weight", 4)[0],
        "depth": len(blocks),
        "dims": tuple(need(shapes, f"{at}blocks.{i}.attn.proj.weight", 2)[0] for i in blocks),
        "pos_grid": need(shapes, f"{at}pos_embed", 4)[2:],
        "edition": "2.1" if "no_obj_embed_spatial" in shapes else "2.0",
        "memory": any(name.startswith("memory_attention.") for name in shapes),
        "image_size": (1024, 1024),
        "num_mask_tokens": shapes.get("sam_mask_decoder.mask_tokens.weight", (0,))[0],
    }


def decoder_facts(shapes: Shapes) -> Facts:
    """The mask decoder: ``num_mask_tokens``, ``embed_dim``, ``mask_prompts``."""
    tokens, dim = need(shapes, "mask_decoder.mask_tokens.weight", 2)
    return {
        "num_mask_tokens": tokens,
        "embed_dim": dim,
        "mask_prompts": any(name.startswith("prompt_encoder.mask_downscaling.") for name in shapes),
    }


def lora_facts(shapes: Shapes) -> Facts | None:
    """Low-rank adapters: ``layout, rank, dim, depth, needs_base, num_mask_tokens``; else None.

    ``depth`` counts adapted blocks. ``needs_base`` is false if the file holds the weights that
    the adapters belong to.
    """
    if "w_a_000" in shapes:
        rank, dim = need(shapes, "w_a_000", 2)
        carried = shapes.get("mask_decoder.mask_tokens.weight")
        return {
            "layout": "samed" if carried else "qv",
            "rank": rank,
            "dim": dim,
            "depth": len(numbers(shapes, r"w_a_(\d+)$")) // 2,
            "needs_base": True,
            "num_mask_tokens": carried[0] if carried else None,
        }
    for name, shape in shapes.items():
        peft = re.search(r"\.lora_A(\.\w+)?\.weight$", name)
        inner = re.search(r"\.attn\.qkv\.(linear_a|w_a_linear)_q\.weight$", name)
        if (peft or inner) and len(shape) == 2:
            whole = any(n.endswith(_INSIDE) for n in shapes)
            return {
                "layout": "wrapped" if whole else "peft",
                "rank": shape[0],
                "dim": shape[1],
                "depth": len(
                    numbers(shapes, r".*\bblocks\.(\d+)\..*(?:lora_A|linear_a_q|w_a_linear_q)\b")
                ),
                "needs_base": not whole,
                "num_mask_tokens": None,
            }
    return None
