"""Time and memory of every model family on the CPU, with random weights.

    python benchmarks/families.py [--family NAME ...] [--variant SIZE ...] [--heavy] [--crop]
        [--verify] [--runs 5] [--threads 2] [--json OUT]

Each family is exported from a seeded checkpoint of its published shape (time and memory do not
depend on the values; no download is needed).  Encoding and decoding are then measured in a new
process for each family: the picture is 4:3 (768 x 1024), the prompt a box, answers must be finite
and the masks neither empty nor full.  Peak memory is the kernel's figure of that process, which
only loads the bundle, encodes and decodes; the export has a process of its own, whose peak is
given as well; with --verify that includes the comparison with the checkpoint.  With --crop,
families that allow `--crop-padding` are exported a second time for this shape; the table then
gives the time ratio and how far the masks are from the exact ones.
The graph that `segment_anything` exports for its decoder is measured by `decoder_forms.py`.
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
from machine import commit, peak_mb
from samrt.environment import environment

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (("sam", "vit_l"), ("sam", "vit_h"))
SHAPE = (768, 1024)
BOXES = [(300.0, 200.0, 700.0, 560.0), (80.0, 90.0, 420.0, 600.0), (500.0, 100.0, 990.0, 700.0)]
POINTS = [(512.0, 380.0), (200.0, 300.0), (800.0, 500.0)]


def picture() -> Any:
    """A drawn slice with discs, edges and noise: (768, 1024, 3) uint8."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    image = 60 + 40 * np.sin(x / 90) * np.cos(y / 70)
    for _ in range(14):
        cx, cy, r, level = rng.uniform([0, 0, 30, 20], [SHAPE[1], SHAPE[0], 180, 230])
        image = np.where((x - cx) ** 2 + (y - cy) ** 2 * 1.4 < r * r, level, image)
    image = image[..., None] * np.float32([1.0, 0.95, 0.9]) + rng.normal(0, 6, (*SHAPE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def do_export(name: str, variant: str, out: Path, crop: bool, verify: bool) -> dict[str, Any]:
    """Export in this process; with `verify` compared with the network, as `samrt export` does."""
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    state = seeded_state(name, variant)
    held = peak_mb()
    start = time.perf_counter()
    chosen = name if name in ("medsam", "samed") else None
    export(state, out, family=chosen, verify=verify, crop_padding=SHAPE if crop else None)
    files = sum(p.stat().st_size for p in out.iterdir())
    return {
        "export_s": time.perf_counter() - start,
        "export_peak_mb": peak_mb(),
        "export_verified": verify,
        "checkpoint_in_memory_mb": held,
        "bundle_mb": files / 1e6,
    }


def prompts_of(engine: samrt.Predictor) -> list[samrt.Prompt]:
    """Boxes and clicks, as far as the model takes them."""
    spec = engine._model.bundle.manifest.prompts
    if not (spec.box or spec.points):
        return [samrt.Prompt.empty()]
    found = [samrt.Prompt(box=b) for b in BOXES] if spec.box else []
    if spec.points:
        found += [samrt.Prompt(point_coords=[p], point_labels=[1]) for p in POINTS]
    return found


def do_measure(bundle: Path, runs: int, threads: int, answers: Path) -> dict[str, Any]:
    """Encode and decode in this process; the masks go into `answers`."""
    image = picture()
    start = time.perf_counter()
    with samrt.load(bundle, threads=threads) as engine:
        load = time.perf_counter() - start
        encode: list[float] = []
        for turn in range(runs + 1):
            embedding = engine.encode(image)
            if turn or runs == 1:
                encode.append(float(embedding.timings.encode_ms))
        peak = peak_mb()
        prompts = prompts_of(engine)
        found = [engine.decode(embedding, [p])[0] for p in prompts]
        one: list[float] = []
        for turn in range(23):
            answer = engine.decode(embedding, prompts[:1])[0]
            if turn >= 3:
                one.append(float(answer.timings.as_dict()["decode_prompt_ms"]))
        many: list[float] = []
        for _ in range(4):
            begin = time.perf_counter()
            engine.decode(embedding, prompts[:1] * 16)
            many.append((time.perf_counter() - begin) * 1e3)
    for answer in found:
        if not np.isfinite(answer.logits).all():
            raise SystemExit(f"{bundle.name}: logits that are not finite")
    np.savez(answers, **{str(i): a.logits for i, a in enumerate(found)})
    return {
        "load_s": load,
        "encode_median_ms": statistics.median(encode),
        "encode_min_ms": min(encode),
        "encode_runs": len(encode),
        "decode_one_ms": statistics.median(one),
        "sixteen_prompts_with_masks_ms": min(many),
        "encode_peak_mb": peak,
        "peak_mb": peak_mb(),
    }


def child(*words: str) -> dict[str, Any]:
    """Run this script for one step in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def deviation(exact: Path, cropped: Path) -> dict[str, float]:
    """Masks of the cropped encoder against the exact ones: IoU, and flipped pixels."""
    ious, flips = [], []
    with np.load(exact) as a, np.load(cropped) as b:
        for key in a.files:
            for want, have in zip(a[key] > 0, b[key] > 0, strict=True):
                h = min(want.shape[0], have.shape[0])
                want, have = want[:h], have[:h]
                union = int((want | have).sum())
                flips.append(float((want != have).mean()))
                if 0.001 < want.mean() < 0.999:
                    ious.append(int((want & have).sum()) / max(1, union))
    return {
        "mask_iou_mean": float(np.mean(ious)) if ious else float("nan"),
        "mask_iou_worst": min(ious, default=float("nan")),
        "masks": len(ious),
        "flipped_mean": float(np.mean(flips)),
    }


def main() -> int:
    """Export and measure, one process each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", nargs="*", help="these only")
    parser.add_argument("--variant", nargs="*", help="these sizes only (vit_h)")
    parser.add_argument("--heavy", action="store_true", help="ViT-L and ViT-H as well")
    parser.add_argument("--crop", action="store_true", help="also with --crop-padding 768x1024")
    parser.add_argument(
        "--verify", action="store_true", help="compare each export with its network; takes long"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here; rows of old runs stay")
    parser.add_argument("--step", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        kind, name, variant, folder, crop = args.step
        if kind == "export":
            result = do_export(name, variant, Path(folder), crop == "crop", args.verify)
        else:
            answers = Path(folder).with_suffix(".npz")
            result = do_measure(Path(folder), args.runs, args.threads, answers)
        print(json.dumps(result))
        return 0
    from samrt_export.families import FAMILIES

    jobs = [
        (name, variant)
        for name, family in FAMILIES.items()
        for variant in family.variants
        if (not args.family or name in args.family)
        and (not args.variant or variant in args.variant)
        and (args.heavy or (name, variant) not in HEAVY)
    ]
    rows: dict[str, Any] = {}
    if args.json and args.json.exists():
        rows = json.loads(args.json.read_text("utf-8"))["families"]
    print("| family | bundle MB | encode ms (min) | peak MB | decode ms | 16 prompts ms | crop |")
    print("|---|--:|--:|--:|--:|--:|---|")
    for name, variant in jobs:
        runs = str(args.runs if (name, variant) not in HEAVY else 1)
        forms = ["exact"] + ["crop"] * (args.crop and FAMILIES[name].croppable)
        with tempfile.TemporaryDirectory(prefix="samrt-families-") as folder:
            found: dict[str, Any] = {}
            for form in forms:
                out = Path(folder) / f"{form}.samrt"
                step = [name, variant, str(out), form]
                found[form] = child("--step", "export", *step, *["--verify"] * args.verify)
                more = ["--runs", runs, "--threads", str(args.threads)]
                found[form].update(child("--step", "measure", *step, *more))
            if "crop" in found:
                base = Path(folder)
                found["crop"].update(deviation(base / "exact.npz", base / "crop.npz"))
        rows[f"{name} {variant}"] = found
        print(line(name, variant, found), flush=True)
        if args.json:
            record = {"environment": environment(), "threads": args.threads, "commit": commit(),
                      "image": list(SHAPE), "families": rows}  # fmt: skip
            args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


def line(name: str, variant: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    exact, crop = found["exact"], found.get("crop")
    note = "–"
    if crop:
        ratio = crop["encode_min_ms"] / exact["encode_min_ms"]
        note = f"{ratio:.2f} × the time, IoU {crop['mask_iou_mean']:.3f}"
    return (
        f"| {name} {variant} | {exact['bundle_mb']:.0f} | {exact['encode_median_ms']:.0f} "
        f"({exact['encode_min_ms']:.0f}) | {exact['peak_mb']:.0f} | {exact['decode_one_ms']:.1f} | "
        f"{exact['sixteen_prompts_with_masks_ms']:.0f} | {note} |"
    )


if __name__ == "__main__":
    sys.exit(main())
