"""Which thresholds everything mode needs with `tiny`: labelled targets found, masks per image.

    python benchmarks/everything_thresholds.py ../shared/data [--model tiny] [--json OUT]

Only pictures that may be trained on are used, as what is chosen here is shipped.  A target counts
as found if a mask that stays has an IoU of at least 0.5 with it.  16 x 16 points per picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import samrt
from samrt.everything.filters import keep_best

SETS = {
    "btcv_imis": 10, "dcmqi_ct_seg": 3, "medscribble": 5, "sammed2d_demo": 4, "stardist_nuclei": 1,
}  # fmt: skip
PREDICTED, STABLE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.88), (0.7, 0.8, 0.85, 0.9, 0.95)
Row = tuple[float, float, int, float, list[int]]


def pictures(root: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records by set and image, a few evenly spread images of each set."""
    table: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in json.loads((root / "index.json").read_text("utf-8")):
        if record["use"] == "train-ok":
            table[record["set"]][record["image"]].append(record)
    chosen: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, count in SETS.items():
        images = sorted(table[name])
        places = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
        chosen[name] = {images[place]: table[name][images[place]] for place in places}
    return chosen


def rows_of(
    generator: samrt.AutomaticMaskGenerator, root: Path, image: str, records: list[dict[str, Any]]
) -> list[Row]:
    """Predicted IoU, stability, nearest target, IoU with it and box of every mask."""
    with Image.open(root / image) as opened:
        pixels = np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))
    truths = []
    for record in records:
        with Image.open(root / record["mask"]) as opened:
            truths.append(np.asarray(opened) == record["label_value"])
    truth = np.stack(truths)
    found = generator.find(pixels)
    rows: list[Row] = []
    for index in range(len(found)):
        mask = found.mask(index)
        iou = (truth & mask).sum((1, 2)) / np.maximum((truth | mask).sum((1, 2)), 1)
        best = int(iou.argmax())
        score, stability = found.masks.scores[index], found.masks.stability[index]
        box = [int(v) for v in found.masks.boxes[index]]
        rows.append((float(score), float(stability), best, float(iou[best]), box))
    return rows


def figures(
    images: list[tuple[int, list[Row]]], predicted: float, stable: float
) -> dict[str, float]:
    """Share of the targets found, and masks per image, at two thresholds."""
    hits = targets = masks = 0
    for count, rows in images:
        stay = [row for row in rows if row[0] > predicted and row[1] >= stable]
        boxes = np.array([row[4] for row in stay], np.int64).reshape(-1, 4)
        kept = keep_best(boxes, np.array([row[0] for row in stay], np.float32), 0.7)
        hits += len({stay[k][2] for k in kept if stay[k][3] >= 0.5})
        targets += count
        masks += len(kept)
    return {"found": hits / targets, "masks_per_image": masks / len(images)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, list[tuple[int, list[Row]]]] = defaultdict(list)
    with samrt.load(args.model, threads=args.threads) as engine:
        generator = samrt.AutomaticMaskGenerator(
            engine, points_per_side=16, box_nms_thresh=1.0, pred_iou_thresh=min(PREDICTED),
            stability_score_thresh=min(STABLE),
        )  # fmt: skip
        for name, images in pictures(args.root).items():
            for image, records in images.items():
                rows = rows_of(generator, args.root, image, records)
                found[name].append((len(records), rows))
        model = engine.info.model_id
    table = [
        {
            "pred_iou_thresh": predicted,
            "stability_score_thresh": stable,
            **{name: figures(images, predicted, stable) for name, images in found.items()},
        }
        for predicted in PREDICTED
        for stable in STABLE
    ]
    print("| IoU | stability | " + " | ".join(found) + " |\n" + "|---" * (len(found) + 2) + "|")
    for row in table:
        cells = [f"{row[n]['found']:.2f} ({row[n]['masks_per_image']:.0f})" for n in found]  # type: ignore[index]
        print(f"| {row['pred_iou_thresh']} | {row['stability_score_thresh']} | "
              + " | ".join(cells) + " |")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"model": model, "table": table}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
