"""The manifest's rules of every published family, as its original code works.

Kept apart from the exporter's registry on purpose: these are checked against vectors of the
original code, pixel by pixel, and the registry can be compared with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rules = dict[str, Any]

SAM_MEAN_STD: Rules = {
    "kind": "mean_std", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
}  # fmt: skip
IMAGENET: Rules = {
    "kind": "mean_std", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    "divisor": 255.0,
}  # fmt: skip
UNIT: Rules = {
    "kind": "mean_std", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "divisor": 255.0,
}  # fmt: skip
RIGHT_BOTTOM: Rules = {"mode": "right_bottom", "value": 0.0, "when": "after_normalize"}
NO_PAD: Rules = {"mode": "none"}

PROMPTS: Rules = {
    "box": True, "points": True, "negative_points": True, "mask": True, "box_and_points": True,
    "box_transform": "scale", "max_points": None, "padding_point": True,
}  # fmt: skip
BOX_ONLY: Rules = {
    **PROMPTS, "points": False, "negative_points": False, "mask": False, "box_and_points": False,
}  # fmt: skip
NO_PROMPTS: Rules = {**BOX_ONLY, "box": False, "padding_point": False}


def picture(side: int, kind: str, interpolation: str, normalize: Rules, **resize: Any) -> Rules:
    return {
        "size": [side, side],
        "resize": {"kind": kind, "interpolation": interpolation, **resize},
        "pad": RIGHT_BOTTOM if kind == "longest_side" else NO_PAD,
        "normalize": normalize,
        "channel_order": "RGB",
        "dtype": "float32",
    }


def masks(low: int, kind: str = "two_step", interpolation: str = "bilinear", **more: Any) -> Rules:
    return {
        "low_res_size": [low, low],
        "num_masks": 4,
        "multimask_indices": [1, 2, 3],
        "single_mask_index": 0,
        "mask_choice": "predicted_iou",
        "threshold": 0.0,
        "threshold_space": "logits",
        "resize": {"kind": kind, "interpolation": interpolation},
        "stability_offset": 1.0,
        **more,
    }


SAM: Rules = {
    "input": picture(1024, "longest_side", "bilinear_antialias", SAM_MEAN_STD),
    "prompts": PROMPTS,
    "output": masks(256),
}
EFFICIENT_SAM: Rules = {
    "input": picture(1024, "stretch", "bilinear", IMAGENET, rounding="none"),
    "prompts": {
        **PROMPTS, "mask": False, "padding_point": False, "pad_to": 6,
    },
    "output": masks(256, "direct", "bicubic", single_mask="best_candidate"),
}  # fmt: skip

RULES: Mapping[str, Rules] = {
    "sam_vit_b": SAM,
    "sam_vit_l": SAM,
    "sam_vit_h": SAM,
    "mobile_sam": SAM,
    "edge_sam": SAM,
    "sam_lora_vitb": SAM,
    "medsam": {
        "input": picture(
            1024, "stretch", "bspline_antialias", {"kind": "min_max"}, rounding="truncate"
        ),
        "prompts": BOX_ONLY,
        "output": masks(256, "direct", threshold=0.5, threshold_space="probability"),
    },
    "lite_medsam": {
        "input": picture(256, "longest_side", "area", {"kind": "min_max"}),
        "prompts": {**BOX_ONLY, "box_transform": "truncate_longest"},
        "output": masks(256, "direct"),
    },
    "sam_med2d": {
        "input": picture(256, "stretch", "nearest", SAM_MEAN_STD),
        "prompts": PROMPTS,
        "output": masks(64, multimask="best"),
    },
    "efficient_sam_ti": EFFICIENT_SAM,
    "efficient_sam_s": EFFICIENT_SAM,
    "medical_sam_adapter": {
        "input": picture(1024, "stretch", "bilinear_antialias", UNIT),
        "prompts": PROMPTS,
        "output": masks(256, "two_step", "nearest", multimask_indices=[0, 1, 2]),
    },
    "samed": {
        "input": picture(
            512, "stretch", "bspline_corners", UNIT, rounding="none", via=[[224, 224]]
        ),
        "prompts": NO_PROMPTS,
        "output": {
            **masks(128), "kind": "classes", "num_masks": 9,
            "multimask_indices": [1, 2, 3, 4, 5, 6, 7, 8], "single_mask": "best_candidate",
        },
    },
    "sam2.1_hiera_t": {
        "input": picture(1024, "stretch", "bilinear_antialias", IMAGENET, rounding="none"),
        # Its graph adds SAM 2's padding point and puts the answer for one mask at index 0.
        "prompts": {**PROMPTS, "padding_point": False},
        "output": masks(256, "direct", logit_limit=32.0),
    },
}  # fmt: skip


def manifest_document(family: str) -> Rules:
    """A whole manifest with these rules and nominal model files."""
    rules = RULES[family]
    low, count = rules["output"]["low_res_size"], rules["output"]["num_masks"]
    embedding = {"image_embeddings": [1, 256, 16, 16]}
    inputs: dict[str, list[int | str]] = {**embedding}
    if any(rules["prompts"][name] for name in ("box", "points", "mask")):
        inputs |= {"point_coords": ["N", "P", 2], "point_labels": ["N", "P"]}
    if rules["prompts"]["mask"]:
        inputs |= {"mask_input": ["N", 1, *low], "has_mask_input": ["N"]}
    outputs = {"low_res_masks": ["N", count, *low], "iou_predictions": ["N", count]}
    files = {
        "encoder": ({"image": [1, 3, *rules["input"]["size"]]}, embedding),
        "decoder": (inputs, outputs),
    }
    return {
        "schema_version": 1, "name": "rules", "family": family, "variant": family,
        "precision": "fp32", **rules,
        "artifacts": [
            {
                "role": role, "file": f"{role}.onnx", "format": "onnx", "precision": "fp32",
                "bytes": 1, "sha256": "0" * 64, "inputs": tensors(taken), "outputs": tensors(made),
            }
            for role, (taken, made) in files.items()
        ],
        "source": {"license": "none", "intended_use": "tests"},
        "producer": {},
    }  # fmt: skip


def tensors(shapes: Mapping[str, Any]) -> list[Rules]:
    return [{"name": n, "dtype": "float32", "shape": list(s)} for n, s in shapes.items()]
