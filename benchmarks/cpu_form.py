"""The CPU form of the graphs against the canonical ones, both in ONNX Runtime.

    python benchmarks/cpu_form.py [--model mobile_sam sam:vit_b ...] [--runs 5] [--threads 2]
        [--json OUT]

Each model is exported with seeded weights (time and memory do not depend on the values; no download
is needed). First the answers: the masks of both forms on one picture, all prompts, must agree with
an IoU of 0.999 at least. Then both encode the same preprocessed picture in turns in one process,
wall time and processor time of each run, and decode one prompt and sixteen, in turns too. Peak
memory is the kernel's figure of a process of its own for each form, which loads the bundle and
encodes twice; load is the time to open the bundle there. The size of the bundle is given with and
without the second form.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import samrt
from families import picture, prompts_of
from machine import commit, peak_mb
from samrt.environment import environment
from samrt.geometry import place
from samrt.preprocess import load_image, preprocess

FORMS = ("canonical", "cpu")
LOWEST_IOU = 0.999


def export(model: str, out: Path, *, cpu_form: bool) -> float:
    """Write the bundle of a family with seeded weights; its size in MB."""
    import samrt_export
    from samrt_export.seeded import seeded_state

    name, _, variant = model.partition(":")
    chosen = name if name in ("medsam", "samed") else None
    state = seeded_state(name, variant or None)
    samrt_export.export(state, out, family=chosen, verify=False, cpu_form=cpu_form)
    return sum(path.stat().st_size for path in out.iterdir()) / 1e6


def engine_of(bundle: Path, form: str, threads: int) -> samrt.Predictor:
    """The bundle in one form, in ONNX Runtime."""
    return samrt.load(bundle, backend="onnxruntime", form=form, threads=threads)


def check(engines: dict[str, samrt.Predictor]) -> dict[str, float]:
    """Masks of both forms on one picture: their worst IoU, and the error of the embedding."""
    image, ious = picture(), []
    found = {form: engine.encode(image) for form, engine in engines.items()}
    key = next(iter(found["cpu"].features))
    want, have = (found[form].features[key].astype(np.float64) for form in FORMS)
    error = float(np.sqrt(np.mean((want - have) ** 2)) / want.std())
    for prompt in prompts_of(engines["cpu"]):
        answers = [engines[form].decode(found[form], [prompt])[0].masks for form in FORMS]
        for a, b in zip(*answers, strict=True):
            union = int((a | b).sum())
            ious.append(int((a & b).sum()) / union if union else 1.0)
    if min(ious) < LOWEST_IOU:
        raise SystemExit(f"masks of the two forms differ: worst IoU {min(ious):.6f}")
    return {"mask_iou_worst": min(ious), "masks": len(ious), "embedding_rms_rel": error}


def in_turns(engines: dict[str, samrt.Predictor], runs: int, threads: int) -> dict[str, Any]:
    """Wall and processor time (ms) of encoding, each form once per turn."""
    spec = engines["cpu"].manifest.input
    source = load_image(picture(), threads=threads)
    placement = place(source.size, spec.size, spec.resize_kind)
    tensor = preprocess(source, placement, spec, threads=threads)
    wall: dict[str, list[float]] = {form: [] for form in FORMS}
    busy: dict[str, list[float]] = {form: [] for form in FORMS}
    for turn in range(runs):
        for form in FORMS if turn % 2 else reversed(FORMS):
            start, used = time.perf_counter(), time.process_time()
            engines[form].model.run_encoder(tensor)
            wall[form].append((time.perf_counter() - start) * 1e3)
            busy[form].append((time.process_time() - used) * 1e3)
    ratios = [b / a for a, b in zip(wall["canonical"], wall["cpu"], strict=True)]
    used_ratios = [b / a for a, b in zip(busy["canonical"], busy["cpu"], strict=True)]
    return {
        "encode_ms": wall,
        "processor_ms": busy,
        "ratio_median": statistics.median(ratios),
        "ratio_of_minima": min(wall["cpu"]) / min(wall["canonical"]),
        "processor_ratio_median": statistics.median(used_ratios),
    }


def decoders_in_turns(engines: dict[str, samrt.Predictor], turns: int = 12) -> dict[str, Any]:
    """Wall time (ms) a prompt, alone and of sixteen in one call, each form once per turn."""
    embedding = engines["cpu"].encode(picture())
    prompt = prompts_of(engines["cpu"])[0]
    found: dict[str, Any] = {}
    for count in (1, 16) if engines["cpu"].manifest.prompts.takes_prompts else (1,):
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(turns if count == 1 else turns // 3):
            for form in FORMS:
                answer = engines[form].decode(embedding, [prompt] * count)[0]
                times[form].append(float(answer.timings.as_dict()["decode_prompt_ms"]))
        medians = {form: statistics.median(times[form]) for form in FORMS}
        found[str(count)] = {
            "decode_ms": times,
            "ratio_median": medians["cpu"] / medians["canonical"],
            "ratio_of_minima": min(times["cpu"]) / min(times["canonical"]),
        }
    return found


def alone(bundle: Path, form: str, threads: int) -> dict[str, float]:
    """Load and encode twice in this process."""
    start = time.perf_counter()
    with engine_of(bundle, form, threads) as engine:
        load = time.perf_counter() - start
        for _ in range(2):
            engine.encode(picture())
    return {"load_s": load, "peak_mb": peak_mb()}


def measure(model: str, runs: int, threads: int) -> dict[str, Any]:
    """All figures of one model."""
    with tempfile.TemporaryDirectory(prefix="samrt-cpu-form-") as folder:
        both = Path(folder) / "both.samrt"
        small = export(model, Path(folder) / "one.samrt", cpu_form=False)
        row: dict[str, Any] = {"bundle_mb": export(model, both, cpu_form=True)}
        row["bundle_mb_canonical_only"] = small
        row["alone"] = {}
        for form in FORMS:
            words = ["--step", str(both), form, "--threads", str(threads)]
            done = subprocess.run(
                [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
            )
            row["alone"][form] = json.loads(done.stdout.splitlines()[-1])
        engines = {form: engine_of(both, form, threads) for form in FORMS}
        row.update(check(engines))
        row.update(in_turns(engines, runs, threads))
        row["prompts"] = decoders_in_turns(engines)
        for engine in engines.values():
            engine.close()
    return row


def prompts(row: dict[str, Any], count: str) -> str:
    """Minima of both forms for one prompt or sixteen."""
    if count not in row["prompts"]:
        return "–"
    times = row["prompts"][count]["decode_ms"]
    return f"{min(times['canonical']):.1f} / {min(times['cpu']):.1f}"


def line(model: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    times, peak = row["encode_ms"], {form: row["alone"][form]["peak_mb"] for form in FORMS}
    median = {form: statistics.median(times[form]) for form in FORMS}
    return (
        f"| {model} | {median['canonical']:.0f} ({min(times['canonical']):.0f}) "
        f"| {median['cpu']:.0f} ({min(times['cpu']):.0f}) | {row['ratio_median']:.2f} "
        f"| {row['processor_ratio_median']:.2f} | {peak['canonical']:.0f} | {peak['cpu']:.0f} "
        f"| {row['bundle_mb_canonical_only']:.0f} | {row['bundle_mb']:.0f} "
        f"| {prompts(row, '1')} | {prompts(row, '16')} "
        f"| {row['mask_iou_worst']:.6f} |"
    )


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["mobile_sam", "sam:vit_b"],
                        help="FAMILY or FAMILY:VARIANT")  # fmt: skip
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here; rows of old runs stay")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(alone(Path(args.step[0]), args.step[1], args.threads)))
        return 0
    rows: dict[str, Any] = {}
    if args.json and args.json.exists():
        rows = json.loads(args.json.read_text("utf-8"))["models"]
    print("| model | canonical ms (min) | CPU form ms (min) | ratio | processor time "
          "| peak MB | peak MB, CPU form | bundle MB | with both "
          "| 1 prompt, min ms of both | one of 16 | worst IoU |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for model in args.model:
        rows[model] = measure(model, args.runs, args.threads)
        print(line(model, rows[model]), flush=True)
        if args.json:
            record = {"environment": environment(), "threads": args.threads, "commit": commit(),
                      "models": rows}  # fmt: skip
            args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
