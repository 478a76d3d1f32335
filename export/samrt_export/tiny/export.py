"""Checkpoint to bundle, and the proof that the bundle is the network that was trained."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from samrt import Predictor, load
from samrt._version import __version__
from samrt.backends.operators import OPERATORS
from samrt.bundle import Bundle, write_bundle
from samrt_export.families.rules import ALL_PROMPTS
from samrt_export.graph import GraphBuilder
from samrt_export.manifests import artifact
from samrt_export.tiny.bundle_segmenter import BundleSegmenter
from samrt_export.tiny.data import MEAN, STD
from samrt_export.tiny.onnx_graph import cpu_graphs, graphs
from samrt_export.tiny.prompts import Draft, tight_box
from samrt_export.tiny.synth import generate
from samrt_export.tiny.torch_segmenter import TorchSegmenter, load_checkpoint
from samrt_export.weights import WeightStore

INTENDED_USE = (
    "General interactive segmentation on medical and microscopy images: demonstration, software "
    "testing, annotation aid. Not for clinical use."
)
LICENSE = "Apache-2.0 (the project's own weights)"
IOU_FLOOR = 0.98


def export_tiny(checkpoint: Path, out: Path, *, overwrite: bool = False) -> Bundle:
    """Write the bundle `out` from a training checkpoint, with its parity records.

    The graphs are written a second time in samrt's own operators for ONNX Runtime (the CPU form,
    same weights file), and both forms are compared with the checkpoint.

    Raises:
        ValueError: the exported bundle differs from the checkpoint by more than the half precision
            of the stored weights explains (mean mask IoU below 0.98).
        BackendError: the library of samrt's operators is not there to compare the CPU form.
    """
    model = load_checkpoint(checkpoint)
    size = model.cfg.image_size
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    with tempfile.TemporaryDirectory() as name:
        folder, parts, files = Path(name), [], {}
        pairs = zip(
            ("encoder", "decoder"), graphs(model, size), cpu_graphs(model, size), strict=True
        )
        for role, canonical, own in pairs:
            with WeightStore(folder / f"{role}.onnx.data") as store:
                for graph, file in ((canonical, f"{role}.onnx"), (own, f"{role}.cpu.onnx")):
                    written = graph.write(folder / file, __version__, store)
                    files.update({path.name: path for path in written})
                    parts.append(_artifact(role, graph, [path.name for path in written]))
            parts[-1] |= {"runtime": "onnxruntime", "operators": OPERATORS}
        manifest = make_manifest(parts, size, model.cfg.num_masks, digest)
        write_bundle(out, manifest, files, overwrite=overwrite)
        records = {}
        for form in ("canonical", "cpu"):
            with load(out, form=form) as predictor:
                record = parity(TorchSegmenter(model, size), predictor)
            if record["mask_iou_mean"] < IOU_FLOOR:
                raise ValueError(
                    f"the bundle's {form} form differs from {checkpoint}: mean mask IoU "
                    f"{record['mask_iou_mean']:.4f}, expected at least {IOU_FLOOR}"
                )
            records[form] = record
        manifest["parity"] = {
            **records["canonical"], "other_forms": {"cpu": {"fp32": records["cpu"]}},
        }  # fmt: skip
        return write_bundle(out, manifest, files, overwrite=True)


def _artifact(role: str, graph: GraphBuilder, files: list[str]) -> dict[str, Any]:
    """An entry of the manifest: the model file, then its data files."""

    def tensors(values: Any) -> dict[str, list[int | str]]:
        return {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in values
        }

    entry = artifact(role, files[0], graph.opset, tensors(graph.inputs), tensors(graph.outputs))
    entry["data"] = [{"file": name, "bytes": 1, "sha256": "0" * 64} for name in files[1:]]
    return entry


def make_manifest(
    artifacts: list[dict[str, Any]], size: int, masks: int, digest: str
) -> dict[str, Any]:
    """The manifest document, parity left empty."""
    return {
        "schema_version": 1,
        "name": "tiny",
        "family": "tiny",
        "variant": "tiny-v1",
        "precision": "fp32",
        "input": {
            "size": [size, size],
            "resize": {"kind": "longest_side", "interpolation": "bilinear_antialias"},
            "pad": {"mode": "right_bottom", "value": 0.0, "when": "after_normalize"},
            "normalize": {
                "kind": "mean_std",
                "mean": [float(round(v, 4)) for v in MEAN.tolist()],
                "std": [float(round(v, 4)) for v in STD.tolist()],
                "scale": 1.0,
            },
            "channel_order": "RGB",
            "dtype": "float32",
        },
        "prompts": dict(ALL_PROMPTS),
        "output": {
            "low_res_size": [size // 2, size // 2],
            "num_masks": masks,
            "multimask_indices": list(range(1, masks)),
            "single_mask_index": 0,
            "mask_choice": "predicted_iou",
            "single_mask": "best",
            "threshold": 0.0,
            "threshold_space": "logits",
            "resize": {"kind": "two_step", "interpolation": "bilinear"},
            "stability_offset": 1.0,
        },
        "artifacts": artifacts,
        "source": {
            "checkpoint_sha256": digest,
            "url": None,
            "license": LICENSE,
            "intended_use": INTENDED_USE,
        },
        "producer": {"samrt": __version__, "torch": torch.__version__, "onnx": onnx.__version__},
        "calibration": None,
        "parity": None,
    }


def parity(reference: TorchSegmenter, predictor: Predictor, images: int = 12) -> dict[str, Any]:
    """Bundle against checkpoint on seeded procedural images, box prompts."""
    engine = BundleSegmenter(predictor, multimask=False)
    ious: list[float] = []
    errors: list[float] = []
    for seed in range(images):
        sample = generate(np.random.default_rng([2024, seed]), 512)
        for segmenter in (reference, engine):
            segmenter.set_image(sample.image)
        for layer in sample.layers:
            for name in np.unique(layer[layer > 0])[:3]:
                draft = Draft(box=tight_box((layer == name).astype(np.uint8)))
                a, b = reference.predict(draft), engine.predict(draft)
                union = int((a.mask | b.mask).sum())
                ious.append(int((a.mask & b.mask).sum()) / union if union else 1.0)
                errors.append(float(np.abs(a.low - b.low).max()))
    return {
        "against": "PyTorch float32 checkpoint (weights are stored as float16)",
        "images": f"{images} procedural images, seed 2024",
        "prompts": len(ious),
        "mask_iou_mean": float(np.mean(ious)),
        "mask_iou_worst": float(np.min(ious)),
        "logit_error_max": float(np.max(errors)),
    }
