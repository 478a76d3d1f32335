"""Forms of a SAM ViT encoder's graph: time and memory on ONNX Runtime's CPU.

    python benchmarks/vit_encoder.py [--preset sam_vit_b] [--forms plain,whole,tiled] [--runs 3]
        [--depth 12] [--size 1024] [--threads 2] [--json OUT]

Forms, all of the same network with the same random weights:

    plain    windows padded before the projections, relative positions added to the scores
    padded   windows padded before the projections, relative positions folded into q and k
    biased   whole and edge windows apart, relative positions added to the scores
    whole    whole and edge windows apart, folded: what `emit_vit` writes
    tiled    `emit_vit(..., tiled=True)`
    fused    `whole`, its softmax(q k^T) v replaced by ONNX Runtime's MultiHeadAttention

The outputs are compared with the first form's before anything is timed.  The forms take turns in
one process, so that a busy machine slows them alike; `cpu` is the processor time of all threads.
Peak memory is the kernel's figure for a process of its own that loads one form and runs it once,
weights included.  Memory arena and spinning are off, as in samrt's encoder sessions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort

FORMS = ("plain", "padded", "biased", "whole", "tiled", "fused")


def writers() -> dict[str, type]:
    """The emitters of the forms that are not `emit_vit`'s own."""
    from samrt_export.graphs import vit_attention as va

    class Biased(va.AttentionWriter):
        def _mix(self, q, k, v, attn, queries, window):  # type: ignore[no-untyped-def]
            g, (count, heads, rows, columns) = self.g, queries
            keys = window[0] * window[1]
            along_h, along_w = va.relative(g, q, attn, attn.tables, (rows, columns))
            q = g.shape(q, [count, heads, rows * columns, -1])
            k, v = (g.shape(part, [count, heads, keys, -1]) for part in (k, v))
            scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
            scores = g.shape(scores, [count, heads, -1, *window])
            scores = g.op("Add", scores, g.shape(along_h, [count, heads, -1, window[0], 1]))
            scores = g.op("Add", scores, g.shape(along_w, [count, heads, -1, 1, window[1]]))
            scores = g.shape(scores, [count, heads, rows * columns, keys])
            return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)

    class Fused(va.AttentionWriter):
        def _mix(self, q, k, v, attn, queries, window):  # type: ignore[no-untyped-def]
            g, (count, heads, rows, columns) = self.g, queries
            keys, d = window[0] * window[1], attn.head_dim
            along_h, along_w = va.relative(g, q, attn, attn.tables, (rows, columns))
            q = g.op("Concat", q, along_h, along_w, axis=-1)
            k = g.op("Concat", k, self._code(count, heads, window), axis=-1)
            parts = []
            for part, tokens in ((q, rows * columns), (k, keys), (v, keys)):
                part = g.shape(part, [count, heads, tokens, -1])
                part = g.op("Transpose", part, perm=[0, 2, 1, 3])
                parts.append(g.shape(part, [count, tokens, -1]))
            options = {"domain": "com.microsoft", "num_heads": heads, "scale": 1.0}
            mixed = g.op("MultiHeadAttention", *parts, **options)
            return g.op("Transpose", g.shape(mixed, [count, -1, heads, d]), perm=[0, 2, 1, 3])

    def padded_emit(self, x, attn, cut):  # type: ignore[no-untyped-def]
        """Pad the tokens, project all of them, drop the padding at the end."""
        g, dim = self.g, attn.dim
        (rows, columns), (wh, ww), (h, w) = cut.counts, cut.window, cut.grid
        x = g.shape(x, [h, w, dim])
        if cut.pads:
            spare = [cut.padded[0] - h, cut.padded[1] - w]
            x = g.op("Pad", x, g.constant([0, 0, 0, *spare, 0], "int64"))
        x = g.op("Transpose", g.shape(x, [rows, wh, columns, ww, dim]), perm=[0, 2, 1, 3, 4])
        factor = np.repeat(np.float32([attn.scale, 1, 1]), dim)
        x = g.shape(x, [rows * columns, wh * ww, dim])
        x = g.linear(x, attn.qkv_weight * factor[:, None], attn.qkv_bias * factor)
        x = g.shape(x, [rows * columns, wh, ww, 3, attn.heads, attn.head_dim])
        x = g.op("Transpose", x, perm=[3, 0, 4, 1, 2, 5])
        shape = [rows * columns, attn.heads, wh, ww, attn.head_dim]
        q, k, v = (g.shape(part, shape) for part in g.split_op("Split", 3, x, axis=0))
        x = self._mix(q, k, v, attn, shape[:4], cut.window)
        x = g.shape(g.op("Transpose", x, perm=[0, 2, 1, 3]), [rows * columns, wh * ww, dim])
        x = g.shape(g.linear(x, attn.proj_weight, attn.proj_bias), [rows, columns, wh, ww, dim])
        x = g.shape(g.op("Transpose", x, perm=[0, 2, 1, 3, 4]), [*cut.padded, dim])
        if cut.pads:
            x = g.op("Slice", x, *(g.constant(v, "int64") for v in ([0, 0], [h, w], [0, 1])))
        return g.shape(x, [1, h * w, dim])

    return {
        "plain": type("Plain", (Biased,), {"emit": padded_emit}),
        "padded": type("Padded", (va.AttentionWriter,), {"emit": padded_emit}),
        "biased": Biased,
        "fused": Fused,
    }


@contextmanager
def written_by(form: str) -> Iterator[None]:
    """Let `emit_vit` use a form's emitter."""
    writer = writers().get(form)
    if writer is None:
        yield
        return
    with mock.patch("samrt_export.graphs.vit.AttentionWriter", writer):
        yield


def write_forms(
    folder: Path, preset: str, size: int | None, depth: int | None, forms: list[str]
) -> tuple[int, int]:
    """Write each form as FORM.onnx with the same random weights; returns the frame's size."""
    import torch

    from samrt_export import graph
    from samrt_export.graph import GraphBuilder
    from samrt_export.graphs.vit import emit_vit
    from samrt_export.nets.vit import VIT_PRESETS, ImageEncoderViT

    cfg = VIT_PRESETS[preset]
    if size is not None:
        cfg = replace(cfg, image_size=(size, size))
    if depth is not None:
        cfg = replace(
            cfg, depth=depth, global_blocks=tuple(filter(depth.__gt__, cfg.global_blocks))
        )
    graph.EXTERNAL_FROM_BYTES = 64 << 20  # models of many bytes in one message take many copies
    torch.manual_seed(0)
    encoder = ImageEncoderViT(cfg).eval()
    with torch.no_grad():
        for key, value in encoder.named_parameters():
            if "rel_" in key or "pos_embed" in key:
                value.normal_(0, 0.3)
        for form in forms:
            g = GraphBuilder("encoder")
            g.input("image", (1, 3, *cfg.image_size))
            with written_by(form):
                embedding = emit_vit(g, encoder, "image", tiled=form == "tiled")
            g.output(embedding, "image_embeddings", (1, cfg.out_chans, *cfg.grid))
            if form == "fused":  # not in the standard: the checker of `write` would refuse it
                weights = [onnx.numpy_helper.from_array(a, n) for n, a in g.arrays.items()]
                model = g._proto(weights, "0")
                model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
                onnx.save(model, folder / f"{form}.onnx")
            else:
                g.write(folder / f"{form}.onnx", "0")
    return cfg.image_size


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def picture(size: tuple[int, int]) -> dict[str, Any]:
    return {"image": np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)}


def peak_mb(path: Path, size: tuple[int, int], threads: int) -> float:
    """Peak resident memory of a process that runs a form once."""
    command = [sys.executable, __file__, "--once", str(path), "--size", "x".join(map(str, size))]
    done = subprocess.run(
        [*command, "--threads", str(threads)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def once(path: Path, size: tuple[int, int], threads: int) -> None:
    open_session(path, threads).run(None, picture(size))
    status = Path("/proc/self/status").read_text("ascii")  # ru_maxrss includes the parent's
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure(
    folder: Path, forms: list[str], size: tuple[int, int], threads: int, runs: int
) -> dict[str, dict[str, float]]:
    """Per form: load time, wall and processor time per image, difference from the first form."""
    feed, sessions, results = picture(size), {}, {}
    reference = None
    for form in forms:
        start = time.perf_counter()
        sessions[form] = open_session(folder / f"{form}.onnx", threads)
        load = time.perf_counter() - start
        answer = sessions[form].run(None, feed)[0]
        reference = answer if reference is None else reference
        error = float(np.sqrt(np.mean((answer - reference) ** 2)) / reference.std())
        if error > 1e-4:
            raise SystemExit(f"{form} differs from {forms[0]}: relative error {error:.1e}")
        results[form] = {"load_s": load, "error": error, "nodes": 0.0}
    wall: dict[str, list[float]] = {form: [] for form in forms}
    busy: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(runs):
        for form, session in sessions.items():
            start, cpu = time.perf_counter(), time.process_time()
            session.run(None, feed)
            wall[form].append(time.perf_counter() - start)
            busy[form].append(time.process_time() - cpu)
    for form in forms:
        model = onnx.load(folder / f"{form}.onnx", load_external_data=False)
        results[form].update(
            wall_median_s=statistics.median(wall[form]), wall_min_s=min(wall[form]),
            cpu_median_s=statistics.median(busy[form]), cpu_min_s=min(busy[form]),
            nodes=float(len(model.graph.node)),
        )  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="sam_vit_b")
    parser.add_argument("--forms", default="plain,whole,tiled", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--size", help="side of the frame; the preset's own by default")
    parser.add_argument("--depth", type=int, help="blocks; the preset's own by default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        height, width = map(int, args.size.split("x"))
        once(args.once, (height, width), args.threads)
        return
    forms = args.forms.split(",")
    if unknown := set(forms) - set(FORMS):
        parser.error(f"unknown forms {sorted(unknown)}: expected some of {', '.join(FORMS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_forms(
            folder, args.preset, int(args.size) if args.size else None, args.depth, forms
        )
        results = measure(folder, forms, size, args.threads, args.runs)
        for form in forms:
            results[form]["peak_mb"] = peak_mb(folder / f"{form}.onnx", size, args.threads)
    columns = ("load_s", "wall_median_s", "wall_min_s", "cpu_median_s", "cpu_min_s", "peak_mb")
    print(f"{args.preset} {size}, {args.threads} threads, {args.runs} runs")
    print(f"{'form':8}{'nodes':>7}{'error':>9}" + "".join(f"{c:>15}" for c in columns))
    for form, row in results.items():
        head = f"{form:8}{row['nodes']:7.0f}{row['error']:9.1e}"
        print(head + "".join(f"{row[column]:15.2f}" for column in columns))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
