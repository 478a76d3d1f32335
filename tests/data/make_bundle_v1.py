"""Make ``bundle_v1.samrt``: a bundle of schema version 1 with a very small model.

Run ``python tests/data/make_bundle_v1.py FOLDER`` (needs the ``onnx`` package). The committed
bundle is never changed once its schema version is released: it stands for all bundles that
users have written with that version.

The model has random weights and segments nothing, but all of its inputs matter: masks are blobs
around the prompted place whose shape depends on the image, on every coordinate and label (that
of padding included, as in SAM), and on the mask input.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from samrt.bundle import write_bundle

FRAME, LOW, MASKS, WIDE, FINE, HIDDEN = 64, 32, 4, 8, 2, 16
OPSET = 17

Specs = Mapping[str, Sequence[int | str]]


class Graph:
    """Collects nodes and constants of one model."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        return self.const(self.rng.standard_normal(shape) * scale)

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, inputs: Specs, outputs: Specs) -> bytes:
        def infos(specs: Specs) -> list[onnx.ValueInfoProto]:
            make = helper.make_tensor_value_info
            return [make(name, TensorProto.FLOAT, shape) for name, shape in specs.items()]

        graph = helper.make_graph(
            self.nodes, "fixture", infos(inputs), infos(outputs), self.constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        content: bytes = proto.SerializeToString()
        return content


ENCODER_IN: Specs = {"image": [1, 3, FRAME, FRAME]}
ENCODER_OUT: Specs = {
    "image_embeddings": [1, WIDE, LOW // 2, LOW // 2],
    "high_res_s2": [1, FINE, LOW, LOW],
}
DECODER_IN: Specs = {
    **ENCODER_OUT,
    "point_coords": ["N", "P", 2],
    "point_labels": ["N", "P"],
    "mask_input": ["N", 1, LOW, LOW],
    "has_mask_input": ["N"],
}
DECODER_OUT: Specs = {"low_res_masks": ["N", MASKS, LOW, LOW], "iou_predictions": ["N", MASKS]}


def encoder() -> bytes:
    """Two strided convolutions."""
    g = Graph(1)
    wide = g.op("Conv", "image", g.weight(WIDE, 3, 4, 4, scale=0.1), strides=[4, 4])
    g.op("Tanh", wide, out="image_embeddings")
    fine = g.op("Conv", "image", g.weight(FINE, 3, 2, 2, scale=0.2), strides=[2, 2])
    g.op("Tanh", fine, out="high_res_s2")
    return g.model(ENCODER_IN, ENCODER_OUT)


def decoder() -> bytes:
    """Prompt token -> weights of the image maps, plus a paraboloid around the prompted place."""
    g = Graph(2)
    last = g.const([-1], np.int64)
    half = g.op("Add", "point_coords", g.const(0.5))
    xy = g.op("Div", half, g.const(FRAME))
    label = g.op("Unsqueeze", "point_labels", last)
    rows = g.op("Concat", xy, label, g.op("Mul", xy, label), axis=-1)
    hidden = g.op("MatMul", rows, g.weight(5, HIDDEN, scale=0.7))
    hidden = g.op("Tanh", g.op("Add", hidden, g.weight(HIDDEN)))
    token = g.op("ReduceSum", hidden, g.const([1], np.int64), keepdims=0)
    score = g.op("Add", g.op("MatMul", token, g.weight(HIDDEN, MASKS, scale=0.3)), g.weight(MASKS))
    g.op("Sigmoid", score, out="iou_predictions")

    weights = g.op("MatMul", token, g.weight(HIDDEN, MASKS * (WIDE + FINE), scale=0.04))
    weights = g.op("Reshape", weights, g.const([-1, MASKS, WIDE + FINE], np.int64))
    scales = g.const([1, 1, 2, 2])
    wide = g.op("Resize", "image_embeddings", "", scales, mode="nearest")
    maps = g.op("Concat", wide, "high_res_s2", axis=1)
    maps = g.op("Reshape", maps, g.const([1, WIDE + FINE, LOW * LOW], np.int64))
    texture = g.op("MatMul", weights, maps)
    texture = g.op("Reshape", texture, g.const([-1, MASKS, LOW, LOW], np.int64))

    weight = g.op("Clip", label, g.const(0.0), g.const(1.0))
    axis = g.const([1], np.int64)
    total = g.op("ReduceSum", weight, axis, keepdims=1)
    centre = g.op("ReduceSum", g.op("Mul", xy, weight), axis, keepdims=1)
    centre = g.op("Div", centre, g.op("Max", total, g.const(1.0)))
    grid = (np.arange(LOW) + 0.5) / LOW
    ys, xs = np.meshgrid(grid, grid, indexing="ij")
    places = g.const(np.stack([xs, ys], -1).reshape(1, LOW * LOW, 2))
    offset = g.op("Sub", places, centre)
    square = g.op("ReduceSum", g.op("Mul", offset, offset), g.const([2], np.int64), keepdims=0)
    square = g.op("Reshape", square, g.const([-1, 1, LOW, LOW], np.int64))
    radii = g.const(np.array([0.05, 0.02, 0.06, 0.12]).reshape(1, MASKS, 1, 1))
    blob = g.op("Mul", g.op("Sub", radii, square), g.const(60.0))

    gate = g.op("Reshape", "has_mask_input", g.const([-1, 1, 1, 1], np.int64))
    earlier = g.op("Mul", g.op("Mul", "mask_input", gate), g.const(0.5))
    g.op("Add", g.op("Add", blob, texture), earlier, out="low_res_masks")
    return g.model(DECODER_IN, DECODER_OUT)


def artifact(role: str, inputs: Specs, outputs: Specs) -> dict[str, object]:
    """Return the manifest entry of one file."""

    def specs(items: Specs) -> list[dict[str, object]]:
        return [{"name": n, "dtype": "float32", "shape": s} for n, s in items.items()]

    return {
        "role": role,
        "file": f"{role}.onnx",
        "format": "onnx",
        "precision": "fp32",
        "opset": OPSET,
        "inputs": specs(inputs),
        "outputs": specs(outputs),
    }


MANIFEST = {
    "schema_version": 1,
    "name": "fixture",
    "family": "fixture",
    "variant": "fixture-v1",
    "precision": "fp32",
    "input": {
        "size": [FRAME, FRAME],
        "resize": {"kind": "longest_side", "interpolation": "bilinear_antialias"},
        "pad": {"mode": "right_bottom", "value": 0.0, "when": "after_normalize"},
        "normalize": {
            "kind": "mean_std",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "scale": 1.0,
        },
        "channel_order": "RGB",
        "dtype": "float32",
    },
    "prompts": {
        "box": True,
        "points": True,
        "negative_points": True,
        "mask": True,
        "box_and_points": True,
        "box_transform": "scale",
        "max_points": None,
        "padding_point": True,
    },
    "output": {
        "low_res_size": [LOW, LOW],
        "num_masks": MASKS,
        "multimask_indices": [1, 2, 3],
        "single_mask_index": 0,
        "mask_choice": "predicted_iou",
        "threshold": 0.0,
        "threshold_space": "logits",
        "resize": {"kind": "two_step", "interpolation": "bilinear"},
        "stability_offset": 1.0,
    },
    "artifacts": [
        artifact("encoder", ENCODER_IN, ENCODER_OUT),
        artifact("decoder", DECODER_IN, DECODER_OUT),
    ],
    "source": {
        "checkpoint_sha256": None,
        "url": None,
        "license": "Apache-2.0",
        "intended_use": "tests of samrt; random weights",
    },
    "producer": {"samrt": "0.1.0", "onnx": onnx.__version__},
    "calibration": None,
    "parity": None,
}


def main() -> None:
    """Write the bundle into the folder named on the command line."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "bundle_v1.samrt"
    files = {"encoder.onnx": encoder(), "decoder.onnx": decoder()}
    bundle = write_bundle(target, MANIFEST, files)
    sys.stdout.write(f"{bundle.path}: {bundle.model_id}\n")


if __name__ == "__main__":
    main()
