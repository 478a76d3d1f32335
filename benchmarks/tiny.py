"""Speed, memory and size of the embedded model, as a user meets them.

    python benchmarks/tiny.py [--threads 2] [--runs 30] [--json OUT]

Before anything is timed the answer is asserted: the box of the example's kidney must give a mask
that agrees with the drawing's own truth (IoU at least 0.8).  Encoder, decoder and the whole call
are timed in one process after five warm-up rounds.  A cold start is a new `samrt infer` process
each time, reading the file and writing mask and overlay included; its peak memory is the kernel's
figure for that process.  Nothing is excluded but the file system's cache, which is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import samrt
from machine import where

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "examples" / "ct_phantom.png"
BOX = (318.0, 293.0, 382.0, 375.0)
Row = dict[str, dict[str, float]]


def summary(values_ms: list[float]) -> dict[str, float]:
    """Median, minimum and maximum in ms."""
    return {
        "median_ms": statistics.median(values_ms),
        "min_ms": min(values_ms),
        "max_ms": max(values_ms),
        "runs": len(values_ms),
    }


def check_answer(engine: samrt.Predictor) -> float:
    """IoU of the kidney's mask with the drawing's own label; raises below 0.8."""
    sys.path.insert(0, str(ROOT / "examples"))
    from ct_phantom import make_phantom  # type: ignore[import-not-found]

    truth = make_phantom().organs["kidney_left"]
    engine.set_image(IMAGE)
    found = engine.predict(box=BOX, multimask_output=False).masks[0]
    iou = float((found & truth).sum() / (found | truth).sum())
    if iou < 0.8:
        raise SystemExit(f"wrong answer: IoU {iou:.3f} on the phantom's kidney, expected >= 0.8")
    return iou


def repeat(call: Callable[[], Any], whole: str, stages: Iterable[str], runs: int) -> Row:
    """Times in ms of a call, named `whole`, and of stages of its answer; five warm-up rounds."""
    found: dict[str, list[float]] = {name: [] for name in (*stages, whole)}
    for turn in range(runs + 5):
        start = time.perf_counter()
        answer = call()
        elapsed = (time.perf_counter() - start) * 1e3
        if turn >= 5:
            found[whole].append(elapsed)
            for name in stages:
                found[name].append(float(answer.timings[f"{name}_ms"]))
    return {name: summary(values) for name, values in found.items()}


def warm(engine: samrt.Predictor, runs: int) -> Row:
    """One process: whole images, prompts on one image, many prompts."""
    prompts = [samrt.Prompt(box=BOX)] * 16

    def box() -> samrt.Prediction:
        return engine.predict(box=BOX, multimask_output=False)

    def picture() -> samrt.Prediction:
        engine.set_image(IMAGE)
        return box()

    def batch() -> Any:
        return engine.predict_batch(prompts, multimask_output=False)

    return {
        **repeat(picture, "file_to_mask", ("preprocess", "encode"), runs),
        **repeat(box, "box_to_mask", ("decode_prompt", "postprocess"), runs),
        **repeat(batch, "sixteen_boxes", (), runs),
    }


def cold(threads: int, runs: int) -> dict[str, Any]:
    """New `samrt infer` processes: wall time and peak resident memory of the process.

    As where samrt is installed: Python finds byte code, which pip writes. Here a first process,
    which does not count, writes it into a folder of its own, whatever the caller's environment.
    """
    walls, peak = [], 0
    box = ",".join(f"{v:g}" for v in BOX)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "samrt",
            "infer",
            str(IMAGE),
            "--box",
            box,
            "--threads",
            str(threads),
        ]
        command += ["-o", folder, "--force"]
        child = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        child.pop("PYTHONDONTWRITEBYTECODE", None)
        subprocess.run(command, env=child, stdout=subprocess.DEVNULL, check=True)
        for _ in range(runs):
            start = time.perf_counter()
            with subprocess.Popen(command, env=child, stdout=subprocess.DEVNULL) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            walls.append((time.perf_counter() - start) * 1e3)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
            peak = max(peak, usage.ru_maxrss)
    return {**summary(walls), "peak_rss_mb": peak / 1024}


def main() -> None:
    """Print the table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", type=Path)
    for name in ("arena", "spinning"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help="see load")
    args = parser.parse_args()
    about = where()
    # First: a child's peak memory counts what its parent held when it was started.
    start = cold(args.threads, max(5, args.runs // 3))
    with samrt.load(
        "tiny", threads=args.threads, arena=args.arena, spinning=args.spinning
    ) as engine:
        iou = check_answer(engine)
        info = engine.info
        table = warm(engine, args.runs)
    bundle = sum(p.stat().st_size for p in Path(info.path).iterdir())
    record = {
        "model": info.model_id,
        "backend": f"{info.backend_effective} {info.backend_version}",
        "threads": info.threads,
        "image": f"{IMAGE.name} 512x512",
        "iou_with_drawing": iou,
        "stages": table,
        "cold_start": start,
        "bundle_mb": bundle / 1e6,
        "this_process_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **about,
    }
    print(f"{record['model']}, {record['backend']}, {info.threads} threads, {record['image']}")
    print(f"IoU with the drawing {iou:.3f}; bundle {record['bundle_mb']:.2f} MB\n")
    print("| what | median ms | min ms |\n|---|--:|--:|")
    for name, row in {**table, "cold samrt infer": start}.items():
        print(f"| {name} | {row['median_ms']:.1f} | {row['min_ms']:.1f} |")
    print(f"\npeak memory of a cold samrt infer: {start['peak_rss_mb']:.0f} MB")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
