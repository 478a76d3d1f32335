"""Everything mode beside the generator of `segment_anything`, same weights, embedding ready.

    python benchmarks/everything.py [--points 16] [--threads 2] [--runs 2] [--sweep] [--json OUT]

The decoder is SAM's own, which ViT-B, ViT-L, ViT-H and MobileSAM share, with random weights in
MobileSAM's checkpoint layout: time does not depend on values, no download is needed.  The picture
is 1024 x 1024, embedded once; both programs start from that embedding: what is timed is the
prompts, the decoder, resizing, filters, suppression and run lengths.  Each runs in a process of
its own, in turn; torch has the same number of threads.  The original's resizing of the picture
(some 10 ms) is included in its time, its encoder is not.  Thresholds are set so that about a third
of the masks pass each filter, and box suppression at 1.0 keeps them all: masks of random weights
have the same box.  Before the times are compared the masks must be the same: IoU of at least 0.99
for every single one.

--sweep also measures samrt alone against the number of points and the prompts per decoder call,
each in a process of its own, with peak memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from machine import Others, peak_mb, where

SIDE, LEAST_IOU = 1024, 0.99
POINTS_SWEEP, BATCH_SWEEP = (1, 4, 8, 16, 32), (1, 2, 4, 8, 16, 64)
COMMON: dict[str, Any] = {
    "stability_score_offset": 0.1,
    "box_nms_thresh": 1.0,
    "output_mode": "uncompressed_rle",
}


def picture() -> NDArray[np.uint8]:
    """A drawing with discs, waves and noise, (SIDE, SIDE, 3)."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    image = np.repeat((60 + 40 * np.sin(x / 90) * np.cos(y / 70))[..., None], 3, axis=2)
    for _ in range(20):
        cx, cy, radius = rng.uniform([0, 0, 20], [SIDE, SIDE, 150])
        image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def prepare(folder: Path, threads: int) -> None:
    """Export the model and embed the picture; runs in a process of its own."""
    import samrt
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    export(seeded_state("mobile_sam"), folder / "model.samrt", verify=False)
    with samrt.load(folder / "model.samrt", backend="onnxruntime", threads=threads) as engine:
        embedding = engine.encode(picture())
        embedding.save(folder / "embedding.npz")
        # Unfiltered masks of a coarse grid say which thresholds let a third through.
        generator = samrt.AutomaticMaskGenerator(
            engine, points_per_side=6, pred_iou_thresh=0.0, stability_score_thresh=0.0, **COMMON
        )
        masks = generator.find(embedding).masks
        chosen = {
            "pred_iou_thresh": gap(masks.scores),
            "stability_score_thresh": gap(masks.stability),
        }
    (folder / "thresholds.json").write_text(json.dumps(chosen), "utf-8")


def gap(values: NDArray[np.float32], share: float = 2 / 3) -> float:
    """The middle of the widest gap between values near a quantile."""
    ordered = np.unique(values.astype(np.float64))
    place = int(share * (len(ordered) - 1))
    low = max(0, place - 3)
    widest = low + int(np.argmax(np.diff(ordered[low : place + 4])))
    return float(ordered[widest] + ordered[widest + 1]) / 2


def ours(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """samrt in this process."""
    import samrt

    with samrt.load(folder / "model.samrt", backend="onnxruntime", threads=args.threads) as engine:
        embedding = samrt.ImageEmbedding.load(folder / "embedding.npz")
        generator = samrt.AutomaticMaskGenerator(
            engine, points_per_side=args.points, points_per_batch=args.batch, **options(folder)
        )
        engine.decode(embedding, samrt.Prompt(point_coords=[(9, 9)], point_labels=[1]))
        found, figures = timed(lambda: generator.find(embedding), args.runs)
        run_bytes = sum(counts.nbytes for counts in found.masks.counts)
        records = list(found.records("uncompressed_rle"))
        return {
            **figures,
            "run_lengths_mb": run_bytes / 1e6,
            "points_per_batch": generator.options.points_per_batch,
            "stages_ms": dict(found.timings_ms),
            "records": records,
        }


def original(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """`segment_anything` in this process."""
    import torch

    torch.set_num_threads(args.threads)
    generator = original_generator(folder, args.points)
    image = picture()
    generator.predictor.set_image(image)
    records, figures = timed(lambda: generator.generate(image), args.runs)
    return {
        **figures,
        "points_per_batch": generator.points_per_batch,
        "records": records,
    }


def original_generator(folder: Path, points: int) -> Any:
    """The original's generator around SAM's decoder and an encoder that knows the answer."""
    import torch

    import samrt
    from peer_models import original_decoder
    from samrt_export.seeded import seeded_state

    known = samrt.ImageEmbedding.load(folder / "embedding.npz").features["image_embeddings"]
    tensor = torch.from_numpy(known.copy())

    class Known(torch.nn.Module):
        def forward(self, image: Any) -> Any:
            return tensor

    sam = original_decoder(seeded_state("mobile_sam"), Known())
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator(sam, points_per_side=points, **options(folder))


def options(folder: Path) -> dict[str, Any]:
    thresholds = json.loads((folder / "thresholds.json").read_text("utf-8"))
    return {**COMMON, **thresholds}


def timed(call: Callable[[], Any], runs: int) -> tuple[Any, dict[str, Any]]:
    """The last result, and time and memory of the runs."""
    start_mb, times, used, others = peak_mb(), [], [], Others()
    for _ in range(runs):
        start, spent = time.perf_counter(), time.process_time()
        found = call()
        times.append(time.perf_counter() - start)
        used.append(time.process_time() - spent)
    return found, {
        "wall_s": statistics.median(times),
        "wall_s_all": times,
        "processor_s": statistics.median(used),
        "others": others.share(),
        "peak_mb": peak_mb(),
        "peak_mb_before": start_mb,
    }


def in_process(folder: Path, part: str, args: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """Run one part in a new process and read what it has found."""
    wanted = {"points": args.points, "threads": args.threads, "runs": args.runs, **changes}
    words = [f"--{name}={value}" for name, value in wanted.items()]
    command = [sys.executable, __file__, f"--part={part}", f"--folder={folder}", *words]
    subprocess.run(command, check=True)
    if part == "prepare":
        return {}
    found: dict[str, Any] = json.loads((folder / f"{part}.json").read_text("utf-8"))
    return found


def worst_iou(theirs: list[dict[str, Any]], mine: list[dict[str, Any]]) -> float:
    """Smallest IoU of masks paired by point and predicted IoU; 0 if their numbers differ."""
    from samrt.imaging import rle_to_mask

    if len(theirs) != len(mine) or not mine:
        return 0.0

    def key(record: dict[str, Any]) -> tuple[float, float, float]:
        x, y = record["point_coords"][0]
        return (round(x, 3), round(y, 3), record["predicted_iou"])

    worst = 1.0
    for a, b in zip(sorted(theirs, key=key), sorted(mine, key=key), strict=True):
        first, second = rle_to_mask(a["segmentation"]), rle_to_mask(b["segmentation"])
        union = int((first | second).sum())
        worst = min(worst, int((first & second).sum()) / union if union else 1.0)
    return worst


def sweep(folder: Path, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """samrt alone: points, and prompts per call on an 8 x 8 grid."""
    rows: dict[str, list[dict[str, Any]]] = {"points": [], "batches": []}
    for side in POINTS_SWEEP:
        row = in_process(folder, "ours", args, points=side, runs=1)
        rows["points"].append({"points": side * side, **without_records(row)})
    for batch in BATCH_SWEEP:
        row = in_process(folder, "ours", args, points=8, runs=1, batch=batch)
        rows["batches"].append({"points": 64, **without_records(row)})
    for name, lines in rows.items():
        print(f"\n{name}:")
        for line in lines:
            print(
                f"  {line['points']:5} points, {line['points_per_batch']:3} per call: "
                f"{line['wall_s']:7.2f} s, {1e3 * line['wall_s'] / line['points']:6.1f} ms each, "
                f"peak {line['peak_mb']:.0f} MB, {line['masks']} masks in "
                f"{line['run_lengths_mb']:.0f} MB of run lengths"
            )
    return rows


def without_records(row: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in row.items() if k != "records"}, "masks": len(row["records"])}


def main() -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=16, help="points per side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--batch", type=int, help="prompts per decoder call of samrt")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("prepare", "ours", "original"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "prepare":
        prepare(args.folder, args.threads)
        return 0
    if args.part:
        found = (ours if args.part == "ours" else original)(args.folder, args)
        (args.folder / f"{args.part}.json").write_text(json.dumps(found), "utf-8")
        return 0
    about = where()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_process(folder, "prepare", args)
        mine = in_process(folder, "ours", args, **({"batch": args.batch} if args.batch else {}))
        theirs = in_process(folder, "original", args)
        worst = worst_iou(theirs["records"], mine["records"])
        if worst < LEAST_IOU:
            raise SystemExit(
                f"not the same masks: {len(theirs['records'])} and {len(mine['records'])}, "
                f"smallest IoU {worst:.3f}"
            )
        rows = sweep(folder, args) if args.sweep else None
    record = {
        **about,
        "picture": [SIDE, SIDE],
        "points": args.points**2,
        "threads": args.threads,
        "smallest_iou": worst,
        "samrt": without_records(mine),
        "segment_anything": without_records(theirs),
        "wall_ratio": mine["wall_s"] / theirs["wall_s"],
        "processor_ratio": mine["processor_s"] / theirs["processor_s"],
        "sweep": rows,
    }
    print(f"{args.points**2} points, {len(mine['records'])} masks, smallest IoU {worst:.4f}")
    for label, row in (("samrt", mine), ("segment_anything", theirs)):
        print(
            f"{label:18} {row['wall_s']:7.2f} s  {row['processor_s']:7.2f} s of processor  "
            f"peak {row['peak_mb']:6.0f} MB ({row['peak_mb_before']:.0f} before)"
        )
    print(f"samrt / segment_anything: {record['wall_ratio']:.3f} of the time")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
