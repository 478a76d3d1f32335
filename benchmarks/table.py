"""The README's table of model families, from the recorded results.

    python benchmarks/table.py

Reads `results/parity.json` (`make parity`) and `results/families.json`
(`python benchmarks/families.py --heavy --crop --json benchmarks/results/families.json`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = (
    ("SAM ViT-B", "sam_vit_b", "sam vit_b"),
    ("SAM ViT-L", "sam_vit_l", "sam vit_l"),
    ("SAM ViT-H", "sam_vit_h", "sam vit_h"),
    ("LoRA of SAM ViT-B, merged", "sam_lora_vitb", "sam vit_b"),
    ("MedSAM", "medsam", "medsam vit_b"),
    ("SAM-Med2D", "sam_med2d", "sam_med2d vit_b"),
    ("Medical SAM Adapter (2-D)", "medical_sam_adapter", "medical_sam_adapter vit_b"),
    ("SAMed", "samed", "samed vit_b"),
    ("MobileSAM", "mobile_sam", "mobile_sam vit_t"),
    ("LiteMedSAM", "lite_medsam", "lite_medsam vit_t"),
    ("EdgeSAM", "edge_sam", "edge_sam repvit_m1"),
    ("EfficientSAM-Ti", "efficient_sam_ti", "efficient_sam_ti vit_ti"),
    ("EfficientSAM-S", "efficient_sam_s", "efficient_sam_s vit_s"),
    ("SAM 2.1 Hiera-T (images)", "sam2.1_hiera_t", "sam2 sam2.1_hiera_t"),
)
HEAD = (
    "| family | embedding | logits | flipped pixels | parity | bundle | encode | one prompt "
    "| peak memory |\n"
    "|---|--:|--:|--:|---|--:|--:|--:|--:|"
)


def load(name: str) -> dict[str, Any]:
    """The rows of a results file; none where it does not exist yet."""
    path = RESULTS / name
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["families"] if path.exists() else {}
    return found


def seconds(value_ms: float) -> str:
    """Milliseconds below a second, seconds above."""
    return f"{value_ms:.0f} ms" if value_ms < 1000 else f"{value_ms / 1000:.1f} s"


def line(title: str, parity: dict[str, Any] | None, speed: dict[str, Any] | None) -> str:
    """One row; a dash stands for what has not been measured."""
    cells = ["–"] * 4
    if parity:
        worst = parity["worst"]
        cells = [f"{worst[name]:.1e}" for name in ("embedding", "low", "masks")]
        cells[2] = "0" if worst["masks"] == 0 else cells[2]
        cells.append("pass" if parity["passed"] else "**fails** ¹")
    more = ["–"] * 4
    if speed:
        exact = speed["exact"]
        more = [
            f"{exact['bundle_mb']:.0f} MB",
            seconds(exact["encode_median_ms"]),
            f"{exact['decode_one_ms']:.1f} ms",
            f"{exact['peak_mb'] / 1000:.1f} GB",
        ]
    return f"| {title} | {' | '.join([*cells, *more])} |"


def crops(speed: dict[str, Any]) -> list[str]:
    """What leaving the padding out of a 4:3 image saves."""
    lines = [
        "| `--crop-padding 768x1024` | encode, exact | cropped | ratio | mask IoU ² |",
        "|---|--:|--:|--:|--:|",
    ]
    for title, _, key in ROWS:
        found = speed.get(key, {})
        if "crop" in found and not title.startswith("LoRA"):
            exact, crop = (found[form]["encode_min_ms"] for form in ("exact", "crop"))
            iou = found["crop"]["mask_iou_mean"]
            lines.append(
                f"| {title} | {seconds(exact)} | {seconds(crop)} | {crop / exact:.2f} | {iou:.3f} |"
            )
    return lines


def main() -> None:
    """Print both tables."""
    parity, speed = load("parity.json"), load("families.json")
    print(HEAD)
    for title, first, second in ROWS:
        print(line(title, parity.get(first), speed.get(second)))
    print()
    print("\n".join(crops(speed)))


if __name__ == "__main__":
    main()
