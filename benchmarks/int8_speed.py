"""Int8 against float32 of an encoder with random weights, in each runtime that is installed.

    python benchmarks/int8_speed.py --family mobile_sam --runs 6
    python benchmarks/int8_speed.py --family sam --variant vit_b --runs 2 --backend openvino

The int8 graph has the form that ``samrt quantize`` writes, with scales from one picture and no
layer returned to float32: it times kernels and says nothing about accuracy, but for the cosine of
the embedding, which is checked before the time is taken.  Encoders take turns, so that what else
the machine does hits both.  Printed are the fastest and the median run of each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from samrt.backends import get_backend
from samrt.backends.base import SessionOptions
from samrt.bundle import Bundle, available_models
from samrt.environment import environment
from samrt_export.precision import FloatGraph
from samrt_export.quantize import find_layers, to_int8
from samrt_export.quantize.calibrate import WatchingSession
from samrt_export.quantize.choose import choose
from samrt_export.quantize.statistics import Statistics, tensors_of

LEAST_COSINE = 0.95


def bundle_of(args: argparse.Namespace, folder: Path) -> Bundle:
    if args.bundle is not None:
        return Bundle.open(args.bundle)
    if args.family == "tiny":
        return Bundle.open(available_models()["tiny"])
    from samrt_export.exporter import export
    from samrt_export.seeded import seeded_state

    state = seeded_state(args.family, args.variant)
    return export(state, folder / "x.samrt", family=args.family, verify=False)


def int8_file(source: Path, image: Any, convs: Any, target: Path) -> tuple[Path, int]:
    """The int8 form of a graph, and how many layers it has."""
    graph = FloatGraph(source)
    layers, _ = find_layers(graph, convs=convs)
    statistics = Statistics(1)
    names = list(dict.fromkeys(n for layer in layers for n in tensors_of(layer)))
    watching = WatchingSession(graph, names, lambda v: statistics.add(layers, v, seed=0))
    with closing(watching) as session:
        session.run({"image": image})
    choices = [choose(graph, la, statistics, method="max", alphas=(0.0,)) for la in layers]
    return to_int8(graph, choices).write(target, "benchmark")[0], len(layers)


def measure(files: dict[str, Path], image: Any, backend: str, args: Any) -> dict[str, Any]:
    options = SessionOptions(threads=args.threads)
    sessions = {k: get_backend(backend).create(f, options) for k, f in files.items()}
    first = {k: next(iter(s.run({"image": image}).values())) for k, s in sessions.items()}
    a, b = (first[k].astype(np.float64).ravel() for k in ("fp32", "int8"))
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if not cosine >= LEAST_COSINE:
        raise SystemExit(f"{backend}: the int8 embedding is wrong, cosine {cosine:.4f}")
    times: dict[str, list[float]] = {k: [] for k in sessions}
    for _ in range(args.runs):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run({"image": image})
            times[name].append(1e3 * (time.perf_counter() - start))
    for session in sessions.values():
        session.close()
    best = {k: min(v) for k, v in times.items()}
    return {
        "backend": backend,
        "cosine": cosine,
        "best_ms": best,
        "median_ms": {k: float(np.median(v)) for k, v in times.items()},
        "ratio": best["int8"] / best["fp32"],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", default="tiny")
    parser.add_argument("--variant")
    parser.add_argument("--bundle", type=Path, help="an exported bundle, in place of --family")
    parser.add_argument("--convs", choices=("auto", "all", "none"), default="auto")
    parser.add_argument("--backend", action="append", help="default: onnxruntime and openvino")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as name:
        bundle = bundle_of(args, Path(name))
        artifact = bundle.artifact("encoder", "fp32")
        source = bundle.file_of(artifact)
        image = np.random.default_rng(0).standard_normal(artifact.inputs[0].shape)
        image = image.astype(np.float32)
        file, count = int8_file(source, image, args.convs, Path(name) / "int8.onnx")
        print(f"{bundle.manifest.family} {bundle.manifest.variant}: {count} layers in int8")
        for backend in args.backend or ["onnxruntime", "openvino"]:
            found = measure({"fp32": source, "int8": file}, image, backend, args)
            results.append(found)
            print(
                f"{backend}: fp32 {found['best_ms']['fp32']:.1f} ms (median "
                f"{found['median_ms']['fp32']:.1f}), int8 {found['best_ms']['int8']:.1f} ms "
                f"({found['median_ms']['int8']:.1f}), ratio {found['ratio']:.2f}, cosine "
                f"{found['cosine']:.4f}"
            )
    if args.json:
        record = {"model": bundle.model_id, "convs": args.convs, "layers": count,
                  "results": results, "environment": environment()}  # fmt: skip
        args.json.write_text(f"{json.dumps(record, indent=1)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
