"""A verification record as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samrt.cli._report import print_table, say, warn

__all__ = ["print_comparison"]

_TITLES = {
    "image_embeddings": "embedding",
    "low_res_masks": "low-res logits",
    "iou_predictions": "predicted IoU",
}


def print_comparison(record: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Print what ``VerificationRecord.as_dict`` holds.

    Args:
        record: the dictionary.
        files: name of a picture in the record -> file, where it is one of the user's.
    """
    masks, limits = record["masks"], record["thresholds"]
    say("")
    say(f"compared with {record['against']}")
    say(
        f"{record['images']} pictures, {record['prompts']} prompts, {masks['masks']} masks, "
        f"{masks['informative']} of them neither empty nor full, {masks['identical']} identical"
    )
    say("")
    table = [["OUTPUT", "MAX ERROR", "MEAN ERROR", "RELATIVE RMS", "COSINE", "WORST CASE"]]
    for name, row in record["outputs"].items():
        table.append(
            [
                _TITLES.get(name, name),
                f"{row['max_abs']:.2e}",
                f"{row['mean_abs']:.2e}",
                f"{row['rms_rel_worst']:.2e}",
                f"{row['cosine_worst']:.7f}",
                _named(row["worst_case"], files),
            ]
        )
    print_table(table)
    say("")
    need_mean, need_worst = limits["mask_iou_mean"], limits["mask_iou_worst"]
    worst, furthest = _named(masks["worst_case"], files), _named(masks["hd95_worst_case"], files)
    rows = [
        ["MASKS", "MEAN", "WORST", "NEEDED", "WORST CASE"],
        [
            "IoU",
            f"{masks['iou_mean']:.6f}",
            f"{masks['iou_worst']:.6f}",
            f"{need_mean:g}, {need_worst:g}",
            worst,
        ],
        ["Dice", f"{masks['dice_mean']:.6f}", f"{masks['dice_worst']:.6f}", "", worst],
        [
            "HD95 (pixels)",
            f"{masks['hd95_mean_px']:.3f}",
            f"{masks['hd95_worst_px']:.2f}",
            "",
            furthest,
        ],
        [
            "flipped pixels",
            f"{masks['flipped_share_mean']:.2e}",
            f"{masks['flipped_share_worst']:.2e}",
            "",
            "",
        ],
    ]
    print_table(rows)
    if masks["excused"]:
        say(
            f"{masks['excused']} masks differ by one or two pixels: shown, but not held against "
            "the worst IoU needed"
        )
    say("")
    warn(record["weaknesses"])


def _named(case: str, files: Mapping[str, str]) -> str:
    """A case's name with the user's file in place of its digest."""
    picture, _, rest = case.partition("/")
    return f"{files.get(picture, picture)}{'/' if rest else ''}{rest}" if case else "-"
