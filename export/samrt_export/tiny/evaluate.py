"""Accuracy of a promptable segmenter on folders of real images with masks.

A folder has `index.json` (records with set, image, mask, label_value, box_xyxy, use).  Figures
are averaged over the targets of a set, then over the sets.  Masks are chosen by the highest
predicted IoU: the truth is never looked at, except to place clicks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from samrt_export.tiny.data import case_of, real_cases
from samrt_export.tiny.metrics import dice, ellipse_in, nsd
from samrt_export.tiny.prompts import Draft, centre_point, correct

Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """mask (H, W) bool, low (h, w) float32 logits, iou: the predicted IoU."""

    mask: Mask
    low: F32
    iou: float


class Segmenter(Protocol):
    """What is evaluated: coordinates in pixels of the image."""

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """(H, W) or (H, W, 3) uint8."""

    def predict(self, draft: Draft, mask_input: F32 | None = None) -> Answer:
        """The best mask for one prompt."""


def choose_targets(root: Path, per_set: int, seed: int) -> dict[str, list[dict[str, object]]]:
    """At most `per_set` records a set; where a set is trained on, only held-out cases."""
    rows = json.loads((root / "index.json").read_text(encoding="utf-8"))
    held_out = {case_of(r) for r in real_cases(root, train=False)}
    groups: dict[str, list[dict[str, object]]] = defaultdict(list)
    for r in rows:
        if r["set"] != "btcv_imis" or case_of(r) in held_out:
            groups[str(r["set"])].append(r)
    out = {}
    for i, name in enumerate(sorted(groups)):
        rng, items = np.random.default_rng([seed, i]), groups[name]
        keep = sorted(rng.permutation(len(items))[:per_set].tolist())
        out[name] = [items[k] for k in keep]
    return out


def jitter(
    rng: np.random.Generator, box: tuple[float, ...], shape: tuple[int, int], share: float = 0.1
) -> tuple[float, float, float, float]:
    """Each edge moved uniformly by up to +-share of the side, clipped to the image."""
    x0, y0, x1, y1 = box
    mx = rng.uniform(-share, share, 2) * (x1 - x0 + 1)
    my = rng.uniform(-share, share, 2) * (y1 - y0 + 1)
    h, w = shape
    return (
        float(np.clip(x0 + mx[0], 0, w - 2)),
        float(np.clip(y0 + my[0], 0, h - 2)),
        float(np.clip(x1 + mx[1], 1, w - 1)),
        float(np.clip(y1 + my[1], 1, h - 1)),
    )


def evaluate(
    segmenter: Segmenter, root: Path, per_set: int = 150, seed: int = 0, clicks: int = 5
) -> dict[str, dict[str, float]]:
    """Per set: n, the mean Dice of each way of prompting (see `_one`), and NSDs."""
    table: dict[str, dict[str, float]] = {}
    for name, records in choose_targets(root, per_set, seed).items():
        sums: dict[str, list[float]] = defaultdict(list)
        current = ""
        image: npt.NDArray[np.uint8] = np.zeros((1, 1), np.uint8)
        for k, r in enumerate(records):
            if r["image"] != current:
                current = str(r["image"])
                image = _read(root / current)
                segmenter.set_image(image)
            truth = _read(root / str(r["mask"])) == r["label_value"]
            rng = np.random.default_rng([seed, 17, k])
            for key, value in _one(segmenter, truth, r, rng, clicks).items():
                sums[key].append(value)
        table[name] = {"n": len(records), **{k: float(np.mean(v)) for k, v in sums.items()}}
    keys = [k for k in next(iter(table.values())) if k != "n"]
    table["mean of sets"] = {
        "n": sum(t["n"] for t in table.values()),
        **{k: float(np.mean([t[k] for t in table.values()])) for k in keys},
    }
    return table


def _one(
    segmenter: Segmenter,
    truth: Mask,
    record: dict[str, object],
    rng: np.random.Generator,
    clicks: int,
) -> dict[str, float]:
    box = tuple(float(v) for v in record["box_xyxy"])  # type: ignore[attr-defined]
    tight = (box[0], box[1], box[2], box[3])
    shape = (truth.shape[0], truth.shape[1])
    first = segmenter.predict(Draft(box=tight))
    ellipse = ellipse_in(tight, shape)
    out = {
        "box": dice(first.mask, truth),
        "box_nsd": nsd(first.mask, truth),
        "ellipse": dice(ellipse, truth),
        "ellipse_nsd": nsd(ellipse, truth),
    }
    moved = segmenter.predict(Draft(box=jitter(rng, tight, shape)))
    out["jitter"] = dice(moved.mask, truth)
    centre = centre_point(truth.astype(np.uint8))
    point = segmenter.predict(Draft(points=[centre], labels=[1]))
    out["point"], out["point_nsd"] = dice(point.mask, truth), nsd(point.mask, truth)
    out["mask_fed"] = dice(segmenter.predict(Draft(box=tight), first.low).mask, truth)
    draft, answer = Draft(box=tight), first
    for i in range(clicks):
        guess = answer.mask.astype(np.uint8)
        marks = Draft()
        if not correct(rng, marks, truth.astype(np.uint8), guess, deep=True):
            break
        (x, y), label = marks.points[0], marks.labels[0]
        draft.add(((x - 0.5) / 2, (y - 0.5) / 2), label)
        answer = segmenter.predict(draft, answer.low)
        if i == 0:
            out["click1"] = dice(answer.mask, truth)
    out.setdefault("click1", out["box"])
    if clicks:
        out[f"click{clicks}"] = dice(answer.mask, truth)
    return out


def _read(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as im:
        return np.asarray(im if im.mode in ("L", "RGB") else im.convert("RGB"), dtype=np.uint8)


def format_table(table: dict[str, dict[str, float]]) -> str:
    """Markdown: one row a set."""
    keys = [k for k in next(iter(table.values())) if k != "n"]
    lines = ["| set | n | " + " | ".join(keys) + " |", "|---" * (len(keys) + 2) + "|"]
    for name, row in table.items():
        cells = " | ".join(f"{row[k]:.3f}" for k in keys)
        lines.append(f"| {name} | {row['n']:.0f} | {cells} |")
    rows = [t for n, t in table.items() if n != "mean of sets"]
    above = sum(t["box"] > t["ellipse"] for t in rows)
    lines.append(f"\nabove the ellipse on {above} of {len(rows)} sets")
    return "\n".join(lines)
