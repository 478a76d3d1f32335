"""The whole engine against a pipeline written out with the plain reference functions.

The reference side shares nothing with the predictor: it reads the manifest's JSON, uses
``samrt.reference`` (NumPy and Pillow) for pixels, and ONNX Runtime directly for the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import samrt
from samrt import reference

INPUT_ATOL = 2e-6
LOGITS_ATOL = 2e-4

SIZES = [(48, 80), (80, 48), (64, 64), (150, 97), (33, 200), (1, 7), (300, 400)]
RULES: dict[str, dict[str, Any]] = {
    "sam": {},
    "stretch": {
        "input.resize.kind": "stretch",
        "input.pad.mode": "none",
    },
    "bicubic, 0..1, pad first": {
        "input.resize.interpolation": "bicubic",
        "input.pad": {"mode": "right_bottom", "value": 128.0, "when": "before_normalize"},
        "input.normalize": {
            "kind": "mean_std",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "scale": 1 / 255,
        },
    },
    "min-max, BGR, area": {
        "input.resize.interpolation": "area",
        "input.normalize": {"kind": "min_max"},
        "input.channel_order": "BGR",
    },
    "nearest, whole-numbered boxes": {
        "input.resize.interpolation": "nearest",
        "prompts.box_transform": "truncate",
    },
    "probability": {"output.threshold": 0.6, "output.threshold_space": "probability"},
    "direct": {"output.resize": {"kind": "direct", "interpolation": "bilinear"}},
    "floats, six rows, bicubic": {
        "input.resize": {"kind": "stretch", "interpolation": "bilinear", "rounding": "none"},
        "input.pad.mode": "none",
        "input.normalize.divisor": 255.0,
        "prompts.pad_to": 6,
        "prompts.padding_point": False,
        "output.resize": {"kind": "direct", "interpolation": "bicubic"},
    },
    "spline, nearest": {
        "input.resize": {
            "kind": "stretch",
            "interpolation": "bspline_antialias",
            "rounding": "truncate",
        },
        "input.pad.mode": "none",
        "input.normalize": {"kind": "min_max"},
        "output.resize": {"kind": "two_step", "interpolation": "nearest"},
    },
    "antialiased floats, boxes by the longest side": {
        "input.resize.interpolation": "bilinear_antialias",
        "input.resize.rounding": "none",
        "prompts.box_transform": "truncate_longest",
    },
}


@dataclass
class Expected:
    """What the reference pipeline finds for one box with points."""

    tensor: NDArray[np.float32]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    full: NDArray[np.float32]
    masks: NDArray[np.bool_]


class Plain:
    """The pipeline of one bundle, step by step."""

    def __init__(self, path: Path) -> None:
        self.doc = json.loads((path / "manifest.json").read_text("utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.encoder, self.decoder = (
            ort.InferenceSession(str(path / f"{role}.onnx"), options, providers=providers)
            for role in ("encoder", "decoder")
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        frame = self.doc["input"]["size"]
        if self.doc["input"]["resize"]["kind"] == "stretch":
            return frame[0], frame[1]
        scale = frame[0] / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def tensor(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        rule = self.doc["input"]
        frame, normalize, pad = rule["size"], rule["normalize"], rule["pad"]
        h, w = self.resized(*image.shape[:2])
        name, rounding = rule["resize"]["interpolation"], rule["resize"].get("rounding", "nearest")
        colour = np.stack([image] * 3, -1) if image.ndim == 2 else image
        divisor = np.float32(normalize.get("divisor", 1.0))
        if rounding == "none":
            colour = reference.resize_floats(colour.astype(np.float32) / divisor, (h, w), name)
        else:
            colour = reference.resize(colour, (h, w), name, rounding) / divisor
        if rule["channel_order"] == "BGR":
            colour = colour[:, :, ::-1]
        values = colour.astype(np.float64)
        full = np.full((*frame, 3), float(pad.get("value", 0.0)))
        before = pad.get("when") == "before_normalize"
        if before:
            full[:h, :w] = values
            values = full
        if normalize["kind"] == "mean_std":
            values = values * normalize.get("scale", 1.0) - np.array(normalize["mean"])
            values = values / np.array(normalize["std"])
        else:
            values = (values - values.min()) / max(values.max() - values.min(), 1e-8)
        if before:
            full = values
        else:
            full[:h, :w] = values
        tensor: NDArray[np.float32] = full.transpose(2, 0, 1)[None].astype(np.float32)
        return tensor

    def __call__(
        self,
        image: NDArray[np.uint8],
        box: tuple[float, float, float, float],
        points: list[tuple[float, float, int]],
    ) -> Expected:
        height, width = image.shape[:2]
        h, w = self.resized(height, width)
        tensor = self.tensor(image)
        names = [o.name for o in self.encoder.get_outputs()]
        features = dict(zip(names, self.encoder.run(names, {"image": tensor}), strict=True))
        rows = [(x * w / width, y * h / height, label) for x, y, label in points]
        corners = [(box[0] * w / width, box[1] * h / height, 2)]
        corners += [(box[2] * w / width, box[3] * h / height, 3)]
        transform = self.doc["prompts"]["box_transform"]
        if transform == "truncate_longest":
            factor = self.doc["input"]["size"][0] / max(height, width)
            corners = [(box[0] * factor, box[1] * factor, 2), (box[2] * factor, box[3] * factor, 3)]
        if transform != "scale":
            corners = [(int(x), int(y), label) for x, y, label in corners]
        filling = [(0, 0, -1)] * (self.doc["prompts"].get("pad_to", 0) - len(rows + corners))
        table = np.array([rows + corners + filling], np.float32)
        low = self.doc["output"]["low_res_size"]
        outputs = self.decoder.run(
            ["low_res_masks", "iou_predictions"],
            {
                **features,
                "point_coords": table[:, :, :2],
                "point_labels": table[:, :, 2],
                "mask_input": np.zeros((1, 1, *low), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
            },
        )
        logits, scores = outputs[0][0, 1:], outputs[1][0, 1:]
        full, masks = self.masks(logits, (h, w), (height, width))
        return Expected(tensor, logits, scores, full, masks)

    def masks(
        self, logits: NDArray[np.float32], inner: tuple[int, int], out: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        rule = self.doc["output"]
        frame = tuple(self.doc["input"]["size"])
        if rule["resize"]["kind"] == "direct":
            low = tuple(rule["low_res_size"])
            inner = (
                max(1, int(inner[0] * low[0] / frame[0] + 0.5)),
                max(1, int(inner[1] * low[1] / frame[1] + 0.5)),
            )
            frame = low
        if rule["threshold_space"] == "probability":
            logits = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
        full: NDArray[np.float32] = reference.upscale_logits(
            logits, frame=frame, crop=inner, out=out, interpolation=rule["resize"]["interpolation"]
        )
        return full, full > rule["threshold"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_engine_equals_reference(
    load_edited: Callable[..., samrt.Predictor],
    picture: Callable[..., NDArray[np.uint8]],
    rule: str,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = load_edited(RULES[rule])
    plain = Plain(Path(predictor.info.path))
    image = picture(*size, 0 if size == (64, 64) else 3)
    height, width = size
    box = (0.1 * width, 0.2 * height, 0.8 * width, 0.95 * height)
    points = [(0.4 * width, 0.5 * height, 1), (0.05 * width, 0.9 * height, 0)]
    expected = plain(image, box, points)

    seen: list[NDArray[np.float32]] = []
    run = predictor._model.run_encoder

    def noted(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        seen.append(tensor)
        return run(tensor)

    monkeypatch.setattr(predictor._model, "run_encoder", noted)
    predictor.set_image(image)
    coords, labels = [p[:2] for p in points], [p[2] for p in points]
    got = predictor.predict(coords, labels, box=box, return_logits=True)

    atol = LOGITS_ATOL
    np.testing.assert_allclose(seen[0], expected.tensor, rtol=1e-6, atol=INPUT_ATOL)
    np.testing.assert_allclose(got.logits, expected.logits, atol=atol)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    assert got.mask_logits is not None
    np.testing.assert_allclose(got.mask_logits, expected.full, atol=atol)
    limit = plain.doc["output"]["threshold"]
    clear = np.abs(expected.full - limit) > atol
    np.testing.assert_array_equal(got.masks[clear], expected.masks[clear])
    areas, boxes = reference.mask_stats(got.masks)
    np.testing.assert_array_equal(got.areas_px, areas)
    np.testing.assert_array_equal(got.boxes, boxes)
    logit = np.log(limit / (1 - limit)) if "probability" in rule else limit
    np.testing.assert_allclose(got.stability, reference.stability(got.logits, logit, 1.0))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_the_answer(
    bundle_path: Path, picture: Callable[..., NDArray[np.uint8]], threads: int
) -> None:
    image = picture(150, 97)
    with samrt.load(bundle_path, threads=1) as one, samrt.load(bundle_path, threads=threads) as n:
        one.set_image(image)
        n.set_image(image)
        a, b = one.predict(box=(10, 10, 60, 90)), n.predict(box=(10, 10, 60, 90))
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)
    assert (a.masks != b.masks).mean() < 1e-3
