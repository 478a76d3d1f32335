"""What zoom gains on small targets, and what it costs, per set of medical images.

    python benchmarks/zoom.py ../shared/data [--model tiny] [--per-set 60] [--json OUT]
    python benchmarks/zoom.py ../shared/data --rules       # the choice of the window's size

A target is small if it covers less than 1 % of its image.  Every one is asked for by its tight box
and by the same box with each edge moved by up to 10 % of the side, without zoom and with it; the
model's own choice of mask counts.  Dice and surface Dice (2 pixels) are averaged over the targets
of a set; the interval is the 95 % bootstrap interval of the mean difference of Dice.  Time is
that of a call from the pixels to the mask: with zoom each box costs a run of the encoder, without
it the first box of an image does.

With --rules only pictures that may be trained on are used, as what is chosen there is shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import samrt
from machine import commit
from samrt.environment import environment
from samrt_export.tiny.evaluate import jitter
from samrt_export.tiny.metrics import dice, nsd

SMALL, SEED = 0.01, 0
FACTORS, SIDES = (2.0, 3.0, 4.0), (96, 160, 224)
Record = dict[str, Any]
Pixels = NDArray[np.uint8]


def small_targets(root: Path, per_set: int, use: str | None) -> dict[str, list[Record]]:
    """At most ``per_set`` small targets of each set, drawn with a fixed seed."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in json.loads((root / "index.json").read_text("utf-8")):
        share = record["area_px"] / (record["width"] * record["height"])
        if share < SMALL and use in (None, record["use"]):
            groups[record["set"]].append(record)
    chosen = {}
    for number, name in enumerate(sorted(groups)):
        order = np.random.default_rng([SEED, number]).permutation(len(groups[name]))
        chosen[name] = [groups[name][k] for k in sorted(order[:per_set].tolist())]
    return chosen


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def boxes_of(record: Record, number: int) -> list[tuple[float, float, float, float]]:
    """The tight box as the index has it, far edges on the last pixels, and a loose one."""
    x0, y0, x1, y1 = (float(v) for v in record["box_xyxy"])
    shape = (record["height"], record["width"])
    loose = jitter(np.random.default_rng([SEED, 17, number]), (x0, y0, x1, y1), shape)
    return [(x0, y0, x1, y1), loose]


def cases(root: Path, records: list[Record]) -> Iterator[tuple[Pixels, Any, Record, int]]:
    """Image, truth, record, number; an image is read once."""
    current, image = "", np.zeros((1, 1), np.uint8)
    for number, record in enumerate(records):
        if record["image"] != current:
            current, image = record["image"], read(root / record["image"])
        yield image, read(root / record["mask"]) == record["label_value"], record, number


def measure(
    engine: samrt.Predictor, root: Path, records: list[Record], rules: dict[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """Figures of every target: name of the rule (``off`` among them) -> figure -> values."""
    table: dict[str, dict[str, list[float]]] = {n: defaultdict(list) for n in ("off", *rules)}
    current, embedding = "", None
    for image, truth, record, number in cases(root, records):
        prompts = [samrt.Prompt(box=box) for box in boxes_of(record, number)]
        start = time.perf_counter()
        if record["image"] != current or embedding is None:
            current, embedding = record["image"], engine.encode(image)
        plain = engine.decode(embedding, prompts[0], multimask_output=False)
        elapsed = time.perf_counter() - start
        plain += engine.decode(embedding, prompts[1:], multimask_output=False)
        note(table["off"], plain, truth, elapsed)
        for name, rule in rules.items():
            start = time.perf_counter()
            found = samrt.predict_zoomed(engine, image, prompts[0], zoom="on", rule=rule)
            elapsed = time.perf_counter() - start
            found += samrt.predict_zoomed(engine, image, prompts[1:], zoom="on", rule=rule)
            note(table[name], found, truth, elapsed)
    return table


def note(row: dict[str, list[float]], found: list[Any], truth: Any, elapsed: float) -> None:
    tight, loose = (answer.masks[answer.best] for answer in found)
    row["dice"].append(dice(tight, truth))
    row["nsd"].append(nsd(tight, truth))
    row["loose_dice"].append(dice(loose, truth))
    row["ms"].append(1e3 * elapsed)


def interval(differences: NDArray[np.float64]) -> list[float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(differences), (2000, len(differences)))
    return [float(v) for v in np.quantile(differences[draws].mean(axis=1), (0.025, 0.975))]


def compared(table: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """One set: without zoom, with it, the difference."""
    off, on = table["off"], table["on"]
    gains = np.array(on["dice"]) - np.array(off["dice"])
    return {
        "targets": len(gains),
        "off": {name: float(np.mean(values)) for name, values in off.items()},
        "on": {name: float(np.mean(values)) for name, values in on.items()},
        "gain": float(gains.mean()),
        "interval": interval(gains),
        "loose_gain": float(np.mean(on["loose_dice"]) - np.mean(off["loose_dice"])),
        "better": float((gains > 0.01).mean()),
        "worse": float((gains < -0.01).mean()),
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    print("| set | targets | Dice | with zoom | gain (95 %) | loose box | NSD | ms |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        off, on, (low, high) = row["off"], row["on"], row["interval"]
        print(
            f"| {name} | {row['targets']} | {off['dice']:.3f} | {on['dice']:.3f} "
            f"| {row['gain']:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"| {off['loose_dice']:.3f} to {on['loose_dice']:.3f} "
            f"| {off['nsd']:.3f} to {on['nsd']:.3f} | {off['ms']:.0f} to {on['ms']:.0f} |"
        )


def choose(engine: samrt.Predictor, root: Path, per_set: int) -> dict[str, Any]:
    """Dice per rule and set on pictures that may be trained on."""
    rules = {
        f"{factor:g} x, {side} px": samrt.ZoomRule(factor=factor, least_side=side)
        for factor in FACTORS
        for side in SIDES
    }
    sets = small_targets(root, per_set, "train-ok")
    found = {name: measure(engine, root, rows, rules) for name, rows in sets.items()}
    print("| rule | " + " | ".join(found) + " | mean | loose |\n" + "|---" * (len(found) + 3) + "|")
    table: dict[str, Any] = {}
    for rule in ("off", *rules):
        means = {name: float(np.mean(rows[rule]["dice"])) for name, rows in found.items()}
        loose = float(np.mean([np.mean(rows[rule]["loose_dice"]) for rows in found.values()]))
        table[rule] = {**means, "mean": float(np.mean(list(means.values()))), "loose": loose}
        cells = " | ".join(f"{value:.3f}" for value in table[rule].values())
        print(f"| {rule} | {cells} |", flush=True)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--per-set", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record: dict[str, Any] = {
        "environment": environment(),
        "commit": commit(),
        "small": SMALL,
        "per_set": args.per_set,
        "seed": SEED,
    }
    with samrt.load(args.model, threads=args.threads) as engine:
        record["model"] = engine.info.model_id
        if args.rules:
            record["rules"] = choose(engine, args.root, args.per_set)
        else:
            rule = {"on": samrt.ZoomRule()}
            sets = small_targets(args.root, args.per_set, None)
            rows = {n: compared(measure(engine, args.root, s, rule)) for n, s in sets.items()}
            record["sets"] = rows
            show(rows)
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
