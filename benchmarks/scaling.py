"""How time and memory grow: with the picture, the prompts, the threads, the encoder's frame.

    python benchmarks/scaling.py [--model tiny] [--backend NAME] [--threads 2] [--runs 9]
        [--only pictures,prompts,threads,frames] [--frames 256,512,768] [--json OUT]
        [--plot OUT.svg]

Each point is a process of its own.  Pictures are noise-free drawings as PNG, 256 x 256 to
4096 x 4096 (16.8 megapixels); prompts are boxes on a picture of 512 x 512, 1 to 1024 in one call,
of which the decoder takes `chunk_size` (16) at a time; threads are those of one engine, and
workers are threads that send pictures to it; frames are input sizes of SAM ViT-B's encoder with
random weights, exported for each (minutes; not part of the default).  Before a point is timed,
its answer is checked: the mask of the drawn disc has an IoU of 0.7 with the disc, and many prompts
in one call give the masks of single calls.  Memory is the kernel's peak of the process; "results"
is what the answers themselves hold.
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
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDES = (256, 512, 1024, 2048, 4096)
PROMPTS = (1, 4, 16, 64, 256, 1024)
SWEEPS = ("pictures", "prompts", "threads", "frames")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#333333")


def drawing(side: int) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """A grey disc on a shaded ground, (side, side) uint8, and the box around it."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    image = 40 + 50 * y + 20 * np.sin(9 * x)
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


def median_of(calls: Any, runs: int) -> float:
    """Median ms after two warm-up calls."""
    times = []
    for turn in range(runs + 2):
        start = time.perf_counter()
        calls()
        if turn >= 2:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def one_picture(engine: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """File to mask of a picture; stages apart."""
    side = job["at"]
    image, box = drawing(side)
    path = folder / "picture.png"
    Image.fromarray(image).save(path, compress_level=1)
    del image
    stages: dict[str, list[float]] = {}
    for turn in range(job["runs"] + 2):
        start = time.perf_counter()
        engine.set_image(path)
        answer = engine.predict(box=box, multimask_output=False)
        whole = (time.perf_counter() - start) * 1e3
        if turn >= 2:
            stages.setdefault("end_to_end", []).append(whole)
            for name, value in answer.timings.as_dict().items():
                stages.setdefault(name.removesuffix("_ms"), []).append(float(value or 0.0))
    found = iou(answer.masks[0], disc(side))
    if job["model"] == "tiny" and found < 0.7:
        raise SystemExit(f"wrong mask at {side}: IoU {found:.2f}")
    return {"ms": {name: statistics.median(v) for name, v in stages.items()}, "iou": found}


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
    runs = max(3, min(job["runs"], 400 // count))
    whole = median_of(lambda: engine.predict_batch(prompts, multimask_output=False), runs)
    return {"ms": {"end_to_end": whole, "per_prompt": whole / count}, "results_mb": held / 1e6}


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
    image, _ = drawing(side)
    colour = np.repeat(image[..., None], 3, -1)
    runs = 3 if side > 512 else job["runs"]
    encode, decode = [], []
    for turn in range(runs + 1):
        embedding = engine.encode(colour)
        answer = engine.decode(embedding, [some_boxes(1, side)[0]], multimask_output=False)[0]
        if turn:
            encode.append(float(embedding.timings.encode_ms))
            decode.append(float(answer.timings.decode_prompt_ms))
    return {"ms": {"encode": statistics.median(encode), "decode_prompt": statistics.median(decode)}}


POINTS = {"pictures": one_picture, "prompts": many_prompts, "threads": throughput,
          "frames": one_frame}  # fmt: skip


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One point, in this process."""
    import samrt
    from samrt.bench.host import peak_rss_bytes

    with tempfile.TemporaryDirectory() as name:
        if job["sweep"] == "frames":
            from samrt_export import export
            from samrt_export.seeded import seeded_state

            size = (job["at"], job["at"])
            if not job.get("bundle"):
                export(seeded_state("sam", "vit_b"), job["write"], image_size=size, verify=False)
                return {}
        model = job.get("bundle") or job["model"]
        threads = job["at"][0] if job["sweep"] == "threads" else job["threads"]
        with samrt.load(model, backend=job["backend"], threads=threads) as engine:
            found = POINTS[job["sweep"]](engine, job, Path(name))
            info = engine.info
    peak = peak_rss_bytes()
    return {
        **found, "at": job["at"], "peak_mb": None if peak is None else peak / 1e6,
        "model": info.model_id, "backend": info.backend_effective,
    }  # fmt: skip


def ask(job: dict[str, Any]) -> dict[str, Any]:
    """Run `work` in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(args: argparse.Namespace, cpus: int) -> dict[str, Any]:
    """All points of the sweeps that were asked for."""
    counts = [2**k for k in range(int(math.log2(cpus)) + 1)]
    at: dict[str, Any] = {
        "pictures": SIDES, "prompts": PROMPTS, "frames": args.frames,
        "threads": [(t, w) for t in counts for w in counts],
    }  # fmt: skip
    base = {name: getattr(args, name) for name in ("model", "backend", "threads", "runs")}
    sweeps: dict[str, Any] = {}
    for sweep in args.only:
        sweeps[sweep] = []
        for point in at[sweep]:
            print(f"{sweep}: {point}", file=sys.stderr, flush=True)
            job = {**base, "sweep": sweep, "at": point}
            with tempfile.TemporaryDirectory() as folder:
                if sweep == "frames":
                    bundle = str(Path(folder) / "frame.samrt")
                    ask({**job, "write": bundle})
                    job["bundle"] = bundle
                sweeps[sweep].append(ask(job))
    return sweeps


def table(sweeps: dict[str, Any]) -> str:
    """One Markdown table per sweep."""
    parts = []
    for sweep, points in sweeps.items():
        names = list(points[0].get("ms", {}))
        head = [sweep, *(f"{name} ms" for name in names), "peak MB"]
        head += ["results MB"] * ("results_mb" in points[0])
        head += ["per second"] * ("per_second" in points[0])
        lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
        for point in points:
            label = point["at"]
            if sweep == "threads":
                label = f"{label[0]} threads, {label[1]} workers"
            cells = [str(label), *(f"{point['ms'][name]:.2f}" for name in names)]
            cells.append("-" if point["peak_mb"] is None else f"{point['peak_mb']:.0f}")
            cells += [f"{point[k]:.1f}" for k in ("results_mb", "per_second") if k in point]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def svg(sweeps: dict[str, Any]) -> str:
    """Log-log lines of the sweeps over a number: time in ms, and memory in MB dashed."""
    drawn = [name for name in sweeps if name != "threads" and len(sweeps[name]) > 1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {470 * len(drawn)} 360">',
        "<style>text{font:12px sans-serif;fill:#222}.s{font-size:11px;fill:#555}</style>",
        f'<rect width="{470 * len(drawn)}" height="360" fill="#fff"/>',
    ]
    for index, sweep in enumerate(drawn):
        parts += panel(sweep, sweeps[sweep], 470 * index)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(sweep: str, points: list[dict[str, Any]], left: int) -> list[str]:
    """One pair of axes."""
    lines = {name: [p["ms"][name] for p in points] for name in points[0]["ms"]}
    memory = [p["peak_mb"] or 1.0 for p in points]
    xs = [math.log10(p["at"]) for p in points]
    logs = [math.log10(max(v, 1e-3)) for values in [*lines.values(), memory] for v in values]
    low, high = math.floor(max(min(logs), -2)), math.ceil(max(logs))

    def place(x: float, value: float) -> str:
        y = 300 - 250 * (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return f"{left + 50 + 250 * (x - xs[0]) / (xs[-1] - xs[0]):.1f},{y:.1f}"

    parts = [f'<text x="{left + 50}" y="24" font-weight="bold">{escape(sweep)}</text>']
    for power in range(low, high + 1):
        y = 300 - 250 * (power - low) / (high - low)
        parts.append(f'<path d="M{left + 50} {y:.1f}h250" stroke="#ddd"/>')
        parts.append(f'<text class="s" x="{left + 44}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{10.0**power:g}</text>")  # fmt: skip
    for x, point in zip(xs, points, strict=True):
        px = place(x, 1.0).split(",")[0]
        parts.append(f'<text class="s" x="{px}" y="318" text-anchor="middle">{point["at"]}</text>')
    rows = [(name, values, "", COLOURS[i % 6]) for i, (name, values) in enumerate(lines.items())]
    for i, (name, values, dash, colour) in enumerate([*rows, ("peak MB", memory, "5 3", "#333")]):
        path = " ".join(place(x, v) for x, v in zip(xs, values, strict=True))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
                     f'stroke-dasharray="{dash}"/>')  # fmt: skip
        y = 60 + 20 * i
        parts.append(f'<path d="M{left + 312} {y - 4}h16" stroke="{colour}" stroke-width="2" '
                     f'stroke-dasharray="{dash}"/>')  # fmt: skip
        unit = "" if name == "peak MB" else " ms"
        parts.append(f'<text class="s" x="{left + 332}" y="{y}">{escape(name + unit)}</text>')
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", type=lambda t: t.split(","), default=list(SWEEPS[:3]))
    parser.add_argument(
        "--frames", type=lambda t: [int(v) for v in t.split(",")], default=[256, 512, 768]
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(json.loads(args.worker))))
        return 0
    if unknown := set(args.only) - set(SWEEPS):
        parser.error(f"unknown sweeps {sorted(unknown)}: choose from {', '.join(SWEEPS)}")
    from samrt.bench.host import host, state

    about = {"host": host(), "state": state(), "threads": args.threads}
    sweeps = measure(args, about["host"]["cpus_usable"])
    print(table(sweeps))
    if args.json:
        record = {**about, "sweeps": sweeps}
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if args.plot:
        args.plot.write_text(svg(sweeps), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
