"""How time and memory grow: picture, prompts, threads, everything mode, the encoder's frame.

    python benchmarks/scaling.py [--model tiny] [--backend NAME] [--threads 2] [--runs 9]
        [--only pictures,prompts,threads,everything,everything_pictures,frames]
        [--frames 256,512,768,1024] [--json OUT] [--plot OUT.svg]

Each point is a process of its own.  Pictures are noise-free drawings as PNG, 256 x 256 to
4096 x 4096 (16.8 megapixels); prompts are boxes on a picture of 512 x 512, 1 to 1024 in one call,
of which the decoder takes `chunk_size` (16) at a time; threads are those of one engine, and
workers are threads that send pictures to it.  Everything mode asks about a grid of points: its
side grows on a picture of 512 x 512, then the picture with a grid of 8 x 8.  Frames are input
sizes of the encoder of SAM ViT-B with random weights, exported for each (a minute or two).  Before
a point is timed, its answer is checked: the mask of the drawn disc has an IoU of 0.7 with the disc
(random weights: no such check), and many prompts in one call give the masks of single calls.
Memory is the kernel's peak of the process; "results" is what the answers themselves hold.  All
sweeps take about six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from machine import Others, commit, peak_mb
from scaling_plot import svg, table

SIDES = (256, 512, 1024, 2048, 4096)
PROMPTS = (1, 4, 16, 64, 256, 1024)
GRIDS = (4, 8, 16, 32)
GRID_OF_PICTURES = 8
LEAST_IOU = 0.7


def drawing(side: int, crowd: bool = False) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """A grey disc on a shaded ground, (side, side) uint8, and the box around it.

    A crowd is 5 x 5 smaller discs, those under the grey one left out of sight.
    """
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    image = 40 + 50 * y + 20 * np.sin(9 * x)
    if crowd:
        near = np.hypot(x % 0.2 - 0.1, y % 0.2 - 0.1)
        image[near < 0.04 + 0.02 * np.floor(5 * x) % 3] = 130
    inside = (x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.2**2
    image[inside] = 190
    box = (0.25 * side, 0.35 * side, 0.65 * side, 0.75 * side)
    return np.clip(image, 0, 255).astype(np.uint8), box


def disc(side: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    return np.asarray((x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.2**2)


def some_boxes(count: int, side: int) -> list[Any]:
    """Boxes of many places and sizes."""
    import samrt

    rng = np.random.default_rng(4)
    low = rng.uniform(0, 0.6, (count, 2)) * side
    corners = np.hstack([low, low + rng.uniform(0.1, 0.35, (count, 2)) * side])
    return [samrt.Prompt(box=row) for row in corners]


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def medians(call: Callable[[], dict[str, float]], runs: int, warm_up: int = 2) -> dict[str, float]:
    """Median ms of each stage that a call reports, and of the whole call as `end_to_end`."""
    times: dict[str, list[float]] = {"end_to_end": []}
    for turn in range(runs + warm_up):
        start = time.perf_counter()
        stages = call()
        whole = (time.perf_counter() - start) * 1e3
        if turn >= warm_up:
            for name, value in {"end_to_end": whole, **stages}.items():
                times.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in times.items()}


def check_disc(masks: list[NDArray[np.bool_]], job: dict[str, Any], side: int) -> float:
    """IoU of the disc with the mask that fits best; ends the run if that of `tiny` is too low."""
    found = max((iou(mask, disc(side)) for mask in masks), default=0.0)
    if job["model"] == "tiny" and found < LEAST_IOU:
        raise SystemExit(f"{job['sweep']} {job['at']}: wrong masks, IoU {found:.2f}")
    return found


def one_picture(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """File to mask of a picture; stages apart."""
    side = job["at"]
    image, box = drawing(side)
    path = folder / "picture.png"
    Image.fromarray(image).save(path, compress_level=1)
    del image
    kept: list[Any] = []

    def call() -> dict[str, float]:
        engine.set_image(path)
        kept[:] = [engine.predict(box=box, multimask_output=False)]
        stages = kept[0].timings.as_dict().items()
        return {name.removesuffix("_ms"): float(value or 0.0) for name, value in stages}

    times = medians(call, job["runs"])
    return {"ms": times, "iou": check_disc([kept[0].masks[0]], job, side)}


def many_prompts(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """So many boxes in one call."""
    count = job["at"]
    engine.set_image(np.repeat(drawing(512)[0][..., None], 3, -1))
    prompts = some_boxes(count, 512)
    answers = engine.predict_batch(prompts, multimask_output=False)
    for number in {0, count // 2, count - 1}:
        alone = engine.predict_batch([prompts[number]], multimask_output=False)[0]
        if iou(alone.masks[0], answers[number].masks[0]) < 0.999:
            raise SystemExit(f"prompt {number} of {count} is answered otherwise alone")
    held = sum(a.masks.nbytes + a.logits.nbytes for a in answers)
    del answers

    def call() -> dict[str, float]:
        engine.predict_batch(prompts, multimask_output=False)
        return {}

    times = medians(call, max(3, min(job["runs"], 400 // count)), warm_up=1)
    return {"ms": {**times, "per_prompt": times["end_to_end"] / count}, "results_mb": held / 1e6}


def everything(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All masks of a picture, its encoder included; stages apart."""
    import samrt

    grown = job["sweep"] == "everything"
    per_side, side = (job["at"], 512) if grown else (GRID_OF_PICTURES, job["at"])
    image, _ = drawing(side, crowd=True)
    generator = samrt.AutomaticMaskGenerator(engine, points_per_side=per_side)
    kept: list[Any] = []

    def call() -> dict[str, float]:
        kept[:] = [generator.find(image)]
        return dict(kept[0].timings_ms)

    runs = max(1, min(job["runs"], 400 // per_side**2))
    times = medians(call, runs, warm_up=1)
    found = kept[0]
    held = sum(counts.nbytes for counts in found.masks.counts)
    best = check_disc([found.mask(index) for index in range(len(found))], job, side)
    return {
        "ms": {**times, "per_point": times["end_to_end"] / per_side**2},
        "results_mb": held / 1e6, "masks": len(found), "iou": best,
    }  # fmt: skip


def throughput(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Pictures per second of several threads that share an engine."""
    image, box = drawing(512)
    path = folder / "picture.png"
    Image.fromarray(image).save(path)
    import samrt

    prompt, each = samrt.Prompt(box=box), max(4, job["runs"])

    def work() -> None:
        for _ in range(each):
            engine.decode(engine.encode(path), prompt, multimask_output=False)

    work()
    threads = [threading.Thread(target=work) for _ in range(job["at"][1])]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_second": each * job["at"][1] / (time.perf_counter() - start)}


def one_frame(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The encoder of a frame's size, and a box."""
    side = job["at"]
    colour = np.repeat(drawing(side)[0][..., None], 3, -1)
    box = some_boxes(1, side)[0]

    def call() -> dict[str, float]:
        embedding = engine.encode(colour)
        answer = engine.decode(embedding, box, multimask_output=False)[0]
        return {
            "encode": float(embedding.timings.encode_ms),
            "decode_prompt": float(answer.timings.decode_prompt_ms),
        }

    return {"ms": medians(call, 3 if side > 512 else job["runs"], warm_up=1)}


POINTS: dict[str, Callable[[Any, dict[str, Any], Path], dict[str, Any]]] = {
    "pictures": one_picture,
    "prompts": many_prompts,
    "threads": throughput,
    "everything": everything,
    "everything_pictures": everything,
    "frames": one_frame,
}


def write_frame(job: dict[str, Any]) -> dict[str, Any]:
    """Export the model of a frame's size; random weights, so there is nothing to verify."""
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    size = (job["at"], job["at"])
    export(seeded_state("sam", "vit_b"), job["write"], image_size=size, verify=False)
    return {}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One point, in this process."""
    import samrt

    if "write" in job:
        return write_frame(job)
    others = Others()
    threads = job["at"][0] if job["sweep"] == "threads" else job["threads"]
    with (
        tempfile.TemporaryDirectory() as name,
        samrt.load(job["model"], backend=job["backend"], threads=threads) as engine,
    ):
        found = POINTS[job["sweep"]](engine, job, Path(name))
        info = engine.info
    return {
        **found, "at": job["at"], "peak_mb": peak_mb(),
        "model": info.model_id, "backend": info.backend_effective,
        "others": others.share(),
    }  # fmt: skip


def ask(job: dict[str, Any]) -> dict[str, Any]:
    """Run `work` in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{job['sweep']} {job['at']} failed, see above")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def points_of(sweep: str, frames: list[int], cpus: int) -> list[Any]:
    """Where a sweep is measured."""
    counts = [2**k for k in range(int(math.log2(cpus)) + 1)]
    at: dict[str, list[Any]] = {
        "pictures": list(SIDES),
        "prompts": list(PROMPTS),
        "threads": [(threads, workers) for threads in counts for workers in counts],
        "everything": list(GRIDS),
        "everything_pictures": list(SIDES),
        "frames": frames,
    }
    return at[sweep]


def measure(args: argparse.Namespace, sweep: str, cpus: int) -> list[dict[str, Any]]:
    """All points of a sweep."""
    base = {name: getattr(args, name) for name in ("model", "backend", "threads", "runs")}
    found = []
    for point in points_of(sweep, args.frames, cpus):
        print(f"{sweep}: {point}", file=sys.stderr, flush=True)
        job = {**base, "sweep": sweep, "at": point}
        with tempfile.TemporaryDirectory() as folder:
            if sweep == "frames":
                bundle = str(Path(folder) / "frame.samrt")
                ask({**job, "write": bundle})
                job["model"] = bundle
            found.append(ask(job))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", type=lambda t: t.split(","), default=list(POINTS))
    parser.add_argument(
        "--frames", type=lambda t: [int(v) for v in t.split(",")], default=[256, 512, 768, 1024]
    )
    parser.add_argument("--json", type=Path, help="write here after each sweep")
    parser.add_argument("--plot", type=Path, help="the same as SVG")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(json.loads(args.worker))))
        return 0
    if unknown := set(args.only) - set(POINTS):
        parser.error(f"unknown sweeps {sorted(unknown)}: choose from {', '.join(POINTS)}")
    from samrt.bench.host import host, state

    machine = {**host(), "commit": commit()}
    record = {"host": machine, "state": state(), "threads": args.threads, "sweeps": {}}
    for sweep in args.only:
        record["sweeps"][sweep] = measure(args, sweep, machine["cpus_usable"])
        if args.json:
            args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        if args.plot:
            args.plot.write_text(svg(record), "utf-8")
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
