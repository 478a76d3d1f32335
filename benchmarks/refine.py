"""What refining gains, and what it costs, per set of medical images.

    python benchmarks/refine.py ../shared/data [--model tiny] [--per-set 60] [--steps 0,1,2,3]
        [--train-ok] [--json OUT]
    python benchmarks/refine.py --results benchmarks/results/refine.json

Each target is asked for by its tight box, by the same box with each edge moved by up to 10 % of
the side, and by one point at its middle; the mask the model ranks highest counts.  Refined answers
come from decoder calls with the best mask of the call before as mask input.  Dice and surface Dice
(2 pixels) are averaged over the targets of a set, and the sets over all.  Time is that of one tight
box from the embedding to the mask, the median over all targets.  Cases that `tiny` was trained on
are left out.  With --train-ok only pictures that
may be trained on are used: for choices of what is shipped.  With --results the table of a file is
printed and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import samrt
from machine import commit
from samrt.environment import environment
from samrt_export.tiny.data import case_of, real_cases
from samrt_export.tiny.evaluate import jitter
from samrt_export.tiny.metrics import dice, nsd
from samrt_export.tiny.prompts import centre_point
from zoom import read

SEED = 0
FIGURES = ("dice", "nsd", "loose_dice", "point_dice")
Record = dict[str, Any]


def targets(root: Path, per_set: int, train_ok: bool) -> dict[str, list[Record]]:
    """At most ``per_set`` targets of each set, drawn with a fixed seed."""
    groups: dict[str, list[Record]] = defaultdict(list)
    trained = {(row["set"], case_of(row)) for row in real_cases(root, train=True)}
    for record in json.loads((root / "index.json").read_text("utf-8")):
        if (record["set"], case_of(record)) in trained:
            continue
        if record["use"] == "train-ok" or not train_ok:
            groups[record["set"]].append(record)
    chosen = {}
    for number, name in enumerate(sorted(groups)):
        order = np.random.default_rng([SEED, number]).permutation(len(groups[name]))
        chosen[name] = [groups[name][k] for k in sorted(order[:per_set].tolist())]
    return chosen


def prompts_of(record: Record, truth: NDArray[np.bool_], number: int) -> list[samrt.Prompt]:
    x0, y0, x1, y1 = (float(v) for v in record["box_xyxy"])
    loose = jitter(np.random.default_rng([SEED, 17, number]), (x0, y0, x1, y1), truth.shape)
    middle = centre_point(truth.astype(np.uint8))
    return [
        samrt.Prompt(box=(x0, y0, x1, y1)),
        samrt.Prompt(box=loose),
        samrt.Prompt(point_coords=[middle], point_labels=[1]),
    ]


def measure(
    engine: samrt.Predictor, root: Path, records: list[Record], steps: list[int]
) -> tuple[dict[int, dict[str, float]], dict[int, list[float]]]:
    """Mean figures and times by number of steps."""
    found: dict[int, dict[str, list[float]]] = {n: defaultdict(list) for n in steps}
    times: dict[int, list[float]] = {n: [] for n in steps}
    current = ""
    for number, record in enumerate(records):
        if record["image"] != current:
            current = record["image"]
            embedding = engine.encode(read(root / current))
        truth = read(root / record["mask"]) == record["label_value"]
        asked = prompts_of(record, truth, number)
        for count in steps:
            options: dict[str, Any] = {"multimask_output": False, "refine_steps": count}
            start = time.perf_counter()
            answers = engine.decode(embedding, asked[0], **options)
            times[count].append(1e3 * (time.perf_counter() - start))
            answers += engine.decode(embedding, asked[1:], **options)
            tight, loose, point = (answer.masks[answer.best] for answer in answers)
            values = (dice(tight, truth), nsd(tight, truth), dice(loose, truth), dice(point, truth))
            for name, value in zip(FIGURES, values, strict=True):
                found[count][name].append(value)
    means = {n: {k: float(np.mean(v)) for k, v in found[n].items()} for n in steps}
    return means, times


def show(rows: dict[str, dict[int, dict[str, float]]], steps: list[int]) -> None:
    print("| set | " + " | ".join(f"Dice, NSD: {n}" for n in steps) + " |")
    print("|---" + "|--:" * len(steps) + "|")
    for name, row in rows.items():
        cells = " | ".join(f"{row[n]['dice']:.3f}, {row[n]['nsd']:.3f}" for n in steps)
        print(f"| {name} | {cells} |")


def summary(record: Record) -> None:
    """Means of sets by number of steps."""
    print("| steps | tight box, Dice | NSD | loose box | centre point | ms a box |")
    print("|--:|--:|--:|--:|--:|--:|")
    for count, mean in record["mean"].items():
        cells = " | ".join(f"{mean[name]:.3f}" for name in FIGURES)
        print(f"| {count} | {cells} | {record['median_ms'][count]:.1f} |")
    print(f"\n{record['model']}, {record['threads']} threads, commit {record['commit']}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--per-set", type=int, default=60)
    parser.add_argument("--steps", default="0,1,2,3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train-ok", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.results is not None:
        summary(json.loads(args.results.read_text("utf-8")))
        return 0
    if args.root is None:
        parser.error("a folder with index.json, or --results")
    steps = [int(word) for word in args.steps.split(",")]
    engine = samrt.load(args.model, threads=args.threads)
    rows: dict[str, dict[int, dict[str, float]]] = {}
    times: dict[int, list[float]] = {n: [] for n in steps}
    for name, records in targets(args.root, args.per_set, args.train_ok).items():
        rows[name], spent = measure(engine, args.root, records, steps)
        for count in steps:
            times[count] += spent[count]
    sets = list(rows.values())
    mean = {n: {k: float(np.mean([r[n][k] for r in sets])) for k in FIGURES} for n in steps}
    show({**rows, "**mean of sets**": mean}, steps)
    record = {
        "model": engine.info.model_id,
        "precision": engine.info.precision_effective,
        "backend": f"{engine.info.backend_effective} {engine.info.backend_version}",
        "threads": engine.info.threads,
        "per_set": args.per_set,
        "seed": SEED,
        "mean": {str(n): mean[n] for n in steps},
        "sets": rows,
        "median_ms": {str(n): median(times[n]) for n in steps},
        "environment": environment(),
        "commit": commit(),
    }
    print()
    summary(record)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
