"""The decoder graph of SAM ViT-B beside the one that `segment_anything` exports, same weights.

    python benchmarks/decoder_forms.py [--threads 2] [--runs 40] [--batch 16] [--json OUT]

The original is exported by its own `utils/onnx.py` and torch's tracing exporter, once as it is
(masks enlarged to 1024 x 1024) and once cut off at the low-resolution masks.  Before anything is
timed, all graphs must give the same logits for a box (1e-4 of their spread).  The runs of the
graphs alternate in one process; medians are compared.  Wall time and processor time are both
given: where other programs share the machine, the second is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx.utils
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from peer_models import SIDE, export_decoder, original_decoder
from samrt.environment import environment
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.decoder import emit_decoder, hoist, hoisted_shapes
from samrt_export.nets.decoder import DecoderConfig, MaskDecoder, PromptConfig, PromptEncoder

Feeds = dict[str, NDArray[Any]]
TOLERANCE = 1e-4


def export_original(sam: Any, folder: Path) -> tuple[Path, Path]:
    """The original's graph, whole and cut off at the low-resolution masks."""
    whole, cut = folder / "whole.onnx", folder / "cut.onnx"
    export_decoder(sam, whole)
    inputs = ["image_embeddings", *boxes(1)]
    onnx.utils.extract_model(str(whole), str(cut), inputs, ["low_res_masks", "iou_predictions"])
    return whole, cut


def our_graphs(sam: Any) -> tuple[bytes, bytes]:
    """What the encoder graph adds, and the decoder graph."""
    prompts, decoder = PromptEncoder(PromptConfig()), MaskDecoder(DecoderConfig())
    prompts.load_state_dict(sam.prompt_encoder.state_dict())
    decoder.load_state_dict(sam.mask_decoder.state_dict())
    shapes = hoisted_shapes(prompts, decoder)
    first, second = GraphBuilder("hoisted"), GraphBuilder("decoder")
    embedding = first.op("Identity", first.input("embedding", (1, 256, 64, 64)))
    for name, tensor in hoist(first, prompts, decoder, embedding).items():
        first.output(tensor, name, shapes[name])
    emit_decoder(second, prompts, decoder, shapes)
    return first.model("0").SerializeToString(), second.model("0").SerializeToString()


def session(model: bytes | str, threads: int) -> ort.InferenceSession:
    """A session whose idle threads sleep, so that a shared machine disturbs it less."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def boxes(count: int) -> Feeds:
    """`count` boxes as prompts without masks."""
    corners = np.random.default_rng(1).uniform(50, 950, (count, 2, 2)).astype(np.float32)
    return {
        "point_coords": np.sort(corners, axis=1),
        "point_labels": np.tile(np.float32([2, 3]), (count, 1)),
        "mask_input": np.zeros((count, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }


def measure(calls: dict[str, tuple[ort.InferenceSession, Feeds]], runs: int) -> dict[str, Any]:
    """Medians of alternating runs, ms."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 3):
        for name, (run, feeds) in calls.items():
            start, used = time.perf_counter(), time.process_time()
            run.run(None, feeds)
            if turn >= 3:
                wall[name].append((time.perf_counter() - start) * 1e3)
                processor[name].append((time.process_time() - used) * 1e3)
    return {
        name: {
            "wall_ms": statistics.median(wall[name]),
            "processor_ms": statistics.median(processor[name]),
        }
        for name in calls
    }


def main() -> int:
    """Assert the answers, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    sam = original_decoder()
    image = np.random.default_rng(0).standard_normal((1, 256, 64, 64)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = (session(str(p), args.threads) for p in export_original(sam, Path(folder)))
    hoisted, decoder = (session(model, args.threads) for model in our_graphs(sam))
    names = [output.name for output in hoisted.get_outputs()]
    features = {"image_embeddings": image}
    features.update(zip(names, hoisted.run(None, {"embedding": image}), strict=True))
    one, many = boxes(1), boxes(args.batch)
    plain = {"image_embeddings": image, **one}
    calls = {
        "samrt": (decoder, {**features, **one}),
        "original, low-resolution masks": (cut, plain),
        "original": (whole, {**plain, "orig_im_size": np.float32([SIDE, SIDE])}),
    }
    logits = [run.run(["low_res_masks"], feeds)[0] for run, feeds in calls.values()]
    worst = max(float(np.abs(found - logits[0]).max()) for found in logits[1:])
    if worst > TOLERANCE * float(logits[0].std()):
        raise SystemExit(f"the graphs disagree: {worst:g} at a spread of {logits[0].std():g}")
    result = measure(calls, args.runs)
    batch = f"samrt, {args.batch} boxes in one call"
    result.update(measure({batch: (decoder, {**features, **many})}, max(3, args.runs // 8)))
    first = result["samrt"]
    for name, figures in result.items():
        ratios = [first[key] / figures[key] for key in ("wall_ms", "processor_ms")]
        print(
            f"{name:32} {figures['wall_ms']:8.1f} ms  {figures['processor_ms']:8.1f} ms of "
            f"processor;  samrt / this {ratios[0]:.2f}, {ratios[1]:.2f}"
        )
    print(f"largest difference of logits {worst:.1e} at a spread of {logits[0].std():.2f}")
    if args.json:
        record = {"environment": environment(), "threads": args.threads, "decoder": result}
        args.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
