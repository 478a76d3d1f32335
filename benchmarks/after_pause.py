"""A click after a pause: how long it takes, with threads placed by samrt and without.

    python benchmarks/after_pause.py [--model tiny] [--pauses 0,0.05,0.3,1] [--runs 20] [--json OUT]
    python benchmarks/after_pause.py --results FILE        (prints a recorded table again)

Two copies of the model are open in one process: one whose threads samrt makes and keeps off the
caller's processor (samrt/backends/placement.py), one whose threads ONNX Runtime makes.  They answer
in turn, each after its own pause, once on a machine at rest and once with another program that
keeps one processor busy.  Both must give the same masks, or nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import samrt
from machine import Others, where
from samrt.backends import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "examples" / "ct_phantom.png"
BOX = (318.0, 293.0, 382.0, 375.0)
BUSY = "while True: pass"


def open_both(model: str, threads: int | None) -> dict[str, samrt.Predictor]:
    """The model with threads placed, and without."""
    placed = samrt.load(model, threads=threads, backend="onnxruntime")
    hire = onnxruntime.hire
    onnxruntime.hire = lambda options: None  # type: ignore[attr-defined]
    try:
        free = samrt.load(model, threads=threads, backend="onnxruntime")
    finally:
        onnxruntime.hire = hire  # type: ignore[attr-defined]
    engines = {"free": free, "placed": placed}
    answers = []
    for engine in engines.values():
        engine.set_image(IMAGE)
        answers.append(engine.predict(box=BOX, multimask_output=False).masks)
    if not answers[0].any() or (answers[0] != answers[1]).any():
        raise SystemExit("the two ways give different masks: nothing was timed")
    return engines


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Another program that takes one processor, or none."""
    if not busy:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(0.5)
        yield
    finally:
        other.kill()
        other.wait()


def measure(engines: dict[str, samrt.Predictor], pause: float, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each way's `set_image` and `predict`, each after a pause."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        for name, engine in engines.items():
            time.sleep(pause)
            start = time.perf_counter()
            engine.set_image(IMAGE)
            found[f"image {name}"].append((time.perf_counter() - start) * 1e3)
            time.sleep(pause)
            start = time.perf_counter()
            engine.predict(box=BOX, multimask_output=False)
            found[f"box {name}"].append((time.perf_counter() - start) * 1e3)
    return found


def table(document: dict[str, Any]) -> str:
    """A line per pause and neighbour: medians, slowest tenth, ratio."""
    lines = [
        "| pause | other program | picture, ms: free | placed | ratio "
        "| box, ms: free | placed | ratio |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in document["rows"]:
        cells = []
        for stage in ("image", "box"):
            free, placed = (row["times_ms"][f"{stage} {name}"] for name in ("free", "placed"))
            for times in (free, placed):
                slow = sorted(times)[len(times) * 9 // 10]
                cells.append(f"{statistics.median(times):.1f} ({slow:.1f})")
            cells.append(f"{statistics.median(placed) / statistics.median(free):.2f}")
        other = "one processor" if row["busy"] else "none"
        lines.append(f"| {row['pause_s']:g} s | {other} | " + " | ".join(cells) + " |")
    about = document["environment"]
    lines += [
        "",
        f"`{document['model']}`, {about['cpu']['model']}, {about['cpus_usable']} processors, "
        f"medians of {document['runs']} runs (slowest tenth), commit {document['commit']}.",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print, or print what was recorded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny", help="bundle name or path")
    parser.add_argument("--pauses", default="0,0.05,0.3,1", help="seconds, with commas")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=None, help="default: the model's")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--results", type=Path, metavar="FILE", help="print these, measure nothing")
    args = parser.parse_args(argv)
    if args.results:
        print(table(json.loads(args.results.read_text(encoding="utf-8"))))
        return 0
    document: dict[str, Any] = {**where(), "model": args.model, "runs": args.runs, "rows": []}
    engines = open_both(args.model, args.threads)
    for busy in (False, True):
        for pause in (float(text) for text in args.pauses.split(",")):
            with neighbour(busy):
                others = Others()
                times = measure(engines, pause, args.runs)
            document["rows"].append(
                {"pause_s": pause, "busy": busy, "times_ms": times, "others": others.share()}
            )
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(table(document))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
