"""Time of the C++ kernels against what segment-anything does: Pillow, NumPy, PyTorch.

    python benchmarks/kernels.py [--runs 30] [--threads 2] [--json FILE] [--only TEXT]

Every row first proves that both ways give the same answer: bytes and normalised floats bit for
bit (the reference's PyTorch to one rounding), masks wherever the logit is not within 1e-4 of the
threshold. Then both are timed in turn, one run of each after the other, so that a busy machine
slows both. All runs are in one process with the same number of threads. The clock covers the call
alone: arrays exist before, results are freed after. Without PyTorch, NumPy takes its place.

PyTorch's OpenMP threads go on spinning for some milliseconds after a call, in what is ours to time,
so they are told to sleep (OMP_WAIT_POLICY=PASSIVE, unless it is set otherwise): that changes the
reference's times less than they vary.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from machine import commit
from samrt import _kernels, _kernels_runs, reference, reference_runs
from samrt.environment import environment

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch is loaded

torch: Any = None
torch_functional: Any = None
if importlib.util.find_spec("torch"):
    torch = importlib.import_module("torch")
    torch_functional = importlib.import_module("torch.nn.functional")

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FRAME = 1024
LOW = 256

Call = Callable[[], Any]


@dataclass
class Case:
    """Two ways to the same answer."""

    name: str
    ours: Call
    theirs: Call
    check: Callable[[Any, Any], str]  # says how equal; raises if not equal enough
    target: float | None = None  # times faster


def fitted(height: int, width: int) -> tuple[int, int]:
    """Size with the longest side at FRAME, as segment-anything rounds it."""
    scale = FRAME / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def sam_plan(height: int, width: int) -> dict[str, Any]:
    """How segment-anything resizes and normalises a picture."""
    return {
        "out_size": (FRAME, FRAME), "resized": fitted(height, width),
        "interpolation": "bilinear_antialias", "mean": MEAN, "std": STD,
    }  # fmt: skip


# --- preprocess ---------------------------------------------------------------------------


def preprocess_reference(image: NDArray[np.uint8]) -> Any:
    """Resize with Pillow, then a float tensor that is normalised and padded."""
    height, width = fitted(*image.shape[:2])
    pixels = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    padding = (FRAME - height, FRAME - width)
    if torch is None:
        values = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (MEAN, STD))
        return np.pad((values - mean) / std, ((0, 0), (0, 0), (0, padding[0]), (0, padding[1])))
    tensor = torch.as_tensor(pixels).permute(2, 0, 1).contiguous()[None]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return torch_functional.pad((tensor - mean) / std, (0, padding[1], 0, padding[0]))


def preprocess_case(height: int, width: int, target: float, threads: int) -> Case:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    plan = sam_plan(height, width)

    def ours() -> Any:
        return _kernels.preprocess(image, threads=threads, **plan)

    def check(got: Any, expected: Any) -> str:
        exact = reference.preprocess(image, **plan)
        np.testing.assert_array_equal(got, exact)
        np.testing.assert_allclose(got, np.asarray(expected), rtol=0, atol=5e-7)
        return "bit-exact"

    h, w = fitted(height, width)
    title = f"preprocess {height}x{width} -> {h}x{w}"
    return Case(title, ours, lambda: preprocess_reference(image), check, target)


# --- postprocess --------------------------------------------------------------------------


def decoder_like() -> NDArray[np.float32]:
    """Two objects on a flat background, the usual output of a mask decoder."""
    y, x = np.mgrid[:LOW, :LOW] / LOW
    near = np.minimum(np.hypot(y - 0.4, x - 0.3) - 0.2, np.hypot(y - 0.7, x - 0.7) - 0.11)
    ripple = np.random.default_rng(1).normal(0, 0.3, (LOW, LOW))
    return np.asarray((np.clip(-60 * near, -17, 12) + ripple)[None], np.float32)


def noise() -> NDArray[np.float32]:
    """The worst case: every output sample is near an edge of the mask."""
    return np.asarray(np.random.default_rng(2).normal(0, 5, (1, LOW, LOW)), np.float32)


def upscaled_reference(logits: NDArray[np.float32], out: tuple[int, int]) -> Any:
    """Two interpolations; PyTorch's if there is one."""
    crop = fitted(*out)
    if torch is None:
        return reference.upscale_logits(logits, frame=(FRAME, FRAME), crop=crop, out=out)
    options: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    values = torch.from_numpy(logits)[None]
    values = torch_functional.interpolate(values, (FRAME, FRAME), **options)
    values = values[..., : crop[0], : crop[1]]
    return torch_functional.interpolate(values, out, **options)[0]


def postprocess_case(
    title: str,
    logits: NDArray[np.float32],
    out: tuple[int, int],
    target: float | None,
    threads: int,
) -> Case:
    sizes: dict[str, Any] = {"frame": (FRAME, FRAME), "crop": fitted(*out), "out": out}

    def ours() -> Any:
        return _kernels.masks_from_logits(logits, threshold=0.0, threads=threads, **sizes)

    def check(got: Any, expected: Any) -> str:
        exact = np.asarray(upscaled_reference(logits, out))
        worst = np.abs(_kernels.upscale_logits(logits, **sizes) - exact).max()
        if worst > 1e-4:
            raise AssertionError(f"{title}: logits differ by {worst}, more than 1e-4")
        sure = np.abs(exact) > 1e-4
        np.testing.assert_array_equal(got[sure], np.asarray(expected)[sure])
        return f"logits to {worst:.0e}"

    name = f"postprocess {out[0]}x{out[1]}, {title}"
    return Case(name, ours, lambda: upscaled_reference(logits, out) > 0.0, check, target)


# --- masks straight to run lengths, as everything mode makes them -------------------------


def runs_reference(logits: NDArray[np.float32], out: tuple[int, int]) -> _kernels_runs.MaskRuns:
    """Full-size logits, then stability, masks, areas, boxes and run lengths one after the other."""
    full = np.asarray(upscaled_reference(logits, out))
    inner, outer = ((full > level).sum(axis=(1, 2)) for level in (1.0, -1.0))
    masks = full > 0.0
    areas, boxes = reference.mask_stats(masks)
    stability = np.asarray(inner / np.maximum(outer, 1), np.float32)
    return _kernels_runs.MaskRuns(stability, areas, boxes, list(map(reference.rle_encode, masks)))


def runs_case(count: int, out: tuple[int, int], threads: int) -> Case:
    one = decoder_like()[0]
    logits = np.stack([np.roll(one, (9 * k, 17 * k), (0, 1)) for k in range(count)])
    sizes: dict[str, Any] = {"frame": (FRAME, FRAME), "crop": fitted(*out), "out": out}

    def check(got: _kernels_runs.MaskRuns, expected: _kernels_runs.MaskRuns) -> str:
        twin = reference_runs.mask_runs(logits, **sizes)
        equal(tuple(got[:3]), tuple(twin[:3]))
        equal(tuple(got.counts), tuple(twin.counts))
        np.testing.assert_allclose(got.stability, expected.stability, rtol=0, atol=1e-4)
        sure = np.abs(np.asarray(upscaled_reference(logits, out))) > 1e-4
        for ours, theirs, certain in zip(got.counts, expected.counts, sure, strict=True):
            mask, wanted = (reference.rle_decode(runs, out) for runs in (ours, theirs))
            np.testing.assert_array_equal(mask[certain], wanted[certain])
        return "equal to its twin"

    return Case(
        f"mask_runs, {count} masks {out[0]}x{out[1]}",
        lambda: _kernels_runs.mask_runs(logits, threads=threads, **sizes),
        lambda: runs_reference(logits, out),
        check,
    )


# --- the other kernels --------------------------------------------------------------------


def equal(got: Any, expected: Any) -> str:
    """Equality of arrays or of tuples of arrays."""
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)
    return "equal"


def close(got: Any, expected: Any) -> str:
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    return "within 1e-4"


def other_cases(threads: int) -> list[Case]:
    out = (3000, 4000)
    mask = _kernels.masks_from_logits(
        decoder_like(), frame=(FRAME, FRAME), crop=fitted(*out), out=out
    )
    counts = _kernels.rle_encode(mask[0])
    deep = np.random.default_rng(3).integers(0, 4096, (2000, 2500), dtype=np.uint16)
    ct = {"window": (200, 3000), **sam_plan(2000, 2500)}
    logits = np.concatenate([noise()] * 3)
    size = "3000x4000"
    return [
        Case(
            "preprocess_window 2000x2500 uint16",
            lambda: _kernels.preprocess_window(deep, threads=threads, **ct),
            lambda: reference.preprocess_window(deep, **ct),
            close,
        ),
        Case(
            "stability, 3 masks 256x256",
            lambda: _kernels.stability(logits),
            lambda: reference.stability(logits),
            equal,
        ),
        Case(
            f"mask_stats {size}",
            lambda: _kernels.mask_stats(mask),
            lambda: reference.mask_stats(mask),
            equal,
        ),
        Case(
            f"rle_encode {size}",
            lambda: _kernels.rle_encode(mask[0]),
            lambda: reference.rle_encode(mask[0]),
            equal,
        ),
        Case(
            f"rle_decode {size}",
            lambda: _kernels.rle_decode(counts, out),
            lambda: reference.rle_decode(counts, out),
            equal,
        ),
    ]


def all_cases(threads: int) -> list[Case]:
    return [
        preprocess_case(512, 512, 8, threads),
        preprocess_case(3000, 4000, 8, threads),
        preprocess_case(1024, 1024, 4, threads),
        postprocess_case("decoder-like", decoder_like(), (1024, 1024), 10, threads),
        postprocess_case("decoder-like", decoder_like(), (3000, 4000), 10, threads),
        postprocess_case("noise", noise(), (1024, 1024), None, threads),
        postprocess_case("noise", noise(), (3000, 4000), None, threads),
        *other_cases(threads),
        runs_case(4, (1024, 1024), threads),
    ]


# --- timing -------------------------------------------------------------------------------


def milliseconds(call: Call) -> float:
    start = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - start
    del result
    return elapsed * 1e3


def measure(case: Case, runs: int) -> dict[str, Any]:
    """Check, warm up, then time in turn."""
    equality = case.check(case.ours(), case.theirs())
    for _ in range(3):
        case.ours(), case.theirs()
    ours, theirs = [], []
    for _ in range(runs):
        theirs.append(milliseconds(case.theirs))
        ours.append(milliseconds(case.ours))
    row: dict[str, Any] = {
        "name": case.name, "equality": equality, "target": case.target, "runs": runs,
    }  # fmt: skip
    for label, times in (("ours", ours), ("reference", theirs)):
        low, _, high = statistics.quantiles(times, n=4)
        row[label] = {
            "median_ms": statistics.median(times), "min_ms": min(times),
            "quartiles_ms": [low, high], "times_ms": [round(t, 4) for t in times],
        }  # fmt: skip
    row["ratio"] = row["reference"]["median_ms"] / row["ours"]["median_ms"]
    row["ratio_of_minima"] = row["reference"]["min_ms"] / row["ours"]["min_ms"]
    row["reached"] = None if case.target is None else row["ratio"] >= case.target
    return row


def describe(threads: int) -> dict[str, Any]:
    """Everything needed to judge the figures."""
    about = environment()
    about["reference"] = "Pillow, NumPy" + ("" if torch is None else ", PyTorch")
    about["instruction_set"] = _kernels.instruction_set()
    about["threads"] = threads
    about["omp_wait_policy"] = os.environ["OMP_WAIT_POLICY"]
    about["commit"] = commit()
    about["load_average"] = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return about


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    cpu, versions = about["cpu"], about["versions"]
    print(f"{cpu['model']} ({platform.machine()}), {about['cpus_usable']} usable CPUs,")
    print(f"  flags {' '.join(cpu['flags'])}; kernels use {about['instruction_set']}")
    shown = ("samrt", "python", "numpy", "pillow", "torch")
    print("  " + ", ".join(f"{name} {versions.get(name)}" for name in shown))
    print(f"  commit {about['commit']}, {about['threads']} threads both sides,", end=" ")
    print(f"reference: {about['reference']}, load {about['load_average']}")
    print()
    print("| kernel | reference ms | ours ms | ratio | min ratio | target | answer |")
    print("|---|--:|--:|--:|--:|--:|---|")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}x"
        mark = {None: "", True: " ok", False: " MISSED"}[row["reached"]]
        print(
            f"| {row['name']} | {row['reference']['median_ms']:.2f} "
            f"| {row['ours']['median_ms']:.3f} | {row['ratio']:.1f}x "
            f"| {row['ratio_of_minima']:.1f}x | {target}{mark} | {row['equality']} |"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="timed runs per row (default 30)")
    parser.add_argument("--threads", type=int, default=2, help="threads on both sides (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has this text")
    options = parser.parse_args(arguments)
    if options.runs < 2 or options.threads < 1:
        parser.error("--runs must be at least 2 and --threads at least 1")
    if torch is not None:
        torch.set_num_threads(options.threads)
    cases = [case for case in all_cases(options.threads) if options.only in case.name]
    if not cases:
        parser.error(f"no row has {options.only!r} in its name")
    about = describe(options.threads)
    rows = [measure(case, options.runs) for case in cases]
    print_table(rows, about)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
