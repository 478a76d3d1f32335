"""The manifest's `input`, `prompts` and `output` of every family.

Facts: the contracts of the original code, as tested against its outputs.
"""

from __future__ import annotations

from typing import Any

from samrt_export.families.base import Frame

Rules = dict[str, Any]
SAM_MEAN, SAM_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ALL_PROMPTS: Rules = {
    "box": True,
    "points": True,
    "negative_points": True,
    "mask": True,
    "box_and_points": True,
    "box_transform": "scale",
    "max_points": None,
    "padding_point": True,
}
BOX_ONLY: Rules = {
    **ALL_PROMPTS,
    "points": False,
    "negative_points": False,
    "mask": False,
    "box_and_points": False,
}


def picture(
    frame: Frame, resize: tuple[str, str], normalize: Rules, *, pad: bool = False, **more: Any
) -> Rules:
    """The `input` part; `more` goes into `resize`."""
    edge: Rules = {"mode": "none"}
    if pad:
        edge = {"mode": "right_bottom", "value": 0.0, "when": "after_normalize"}
    crop: Rules = {"cropped_from": list(frame.whole)} if frame.mode == "crop" else {}
    return {
        "size": list(frame.size),
        **crop,
        "resize": {"kind": resize[0], "interpolation": resize[1], **more},
        "pad": edge,
        "normalize": normalize,
        "channel_order": "RGB",
        "dtype": "float32",
    }


def mean_std(mean: list[float], std: list[float], divisor: float = 1.0) -> Rules:
    """(x / divisor - mean) / std."""
    more = {} if divisor == 1.0 else {"divisor": divisor}
    return {"kind": "mean_std", "mean": mean, "std": std, "scale": 1.0, **more}


def masks(
    frame: Frame,
    stride: int,
    *,
    count: int = 4,
    several: tuple[int, ...] = (1, 2, 3),
    resize: tuple[str, str] = ("two_step", "bilinear"),
    **more: Any,
) -> Rules:
    """The `output` part; low-resolution maps are 4 / stride of the frame."""
    return {
        "low_res_size": [side * 4 // stride for side in frame.size],
        "num_masks": count,
        "multimask_indices": list(several),
        "single_mask_index": 0,
        "mask_choice": "predicted_iou",
        "threshold": 0.0,
        "threshold_space": "logits",
        "resize": {"kind": resize[0], "interpolation": resize[1]},
        "stability_offset": 1.0,
        **more,
    }


def sam(frame: Frame) -> Rules:
    """SAM, MobileSAM, EdgeSAM, LoRA fine-tunes."""
    return {
        "input": picture(
            frame, ("longest_side", "bilinear_antialias"), mean_std(SAM_MEAN, SAM_STD), pad=True
        ),
        "prompts": dict(ALL_PROMPTS),
        "output": masks(frame, 16),
    }


def medsam(frame: Frame) -> Rules:
    """MedSAM: stretched, 0..1 over the image, probabilities cut after interpolation."""
    return {
        "input": picture(
            frame, ("stretch", "bspline_antialias"), {"kind": "min_max"}, rounding="truncate"
        ),
        "prompts": dict(BOX_ONLY),
        "output": masks(
            frame, 16, resize=("direct", "bilinear"), threshold=0.5, threshold_space="probability"
        ),
    }


def lite_medsam(frame: Frame) -> Rules:
    """LiteMedSAM: 256 pixels, 0..1 over the resized image, then padded; whole-numbered boxes."""
    return {
        "input": picture(frame, ("longest_side", "area"), {"kind": "min_max"}, pad=True),
        "prompts": {**BOX_ONLY, "box_transform": "truncate_longest"},
        "output": masks(frame, 4, resize=("direct", "bilinear")),
    }


def sam_med2d(frame: Frame) -> Rules:
    """SAM-Med2D: 256 pixels, stretched without interpolation; of several masks the best alone."""
    return {
        "input": picture(frame, ("stretch", "nearest"), mean_std(SAM_MEAN, SAM_STD)),
        "prompts": dict(ALL_PROMPTS),
        "output": masks(frame, 16, multimask="best"),
    }


def efficient_sam(frame: Frame) -> Rules:
    """EfficientSAM: no antialiasing, six prompt rows, bicubic masks.

    A background point has no embedding of its own there, its position alone counts.
    """
    return {
        "input": picture(
            frame,
            ("stretch", "bilinear"),
            mean_std(IMAGENET_MEAN, IMAGENET_STD, 255.0),
            rounding="none",
        ),
        "prompts": {
            **ALL_PROMPTS,
            "mask": False,
            "padding_point": False,
            "pad_to": 6,
        },
        "output": masks(frame, 16, resize=("direct", "bicubic")),
    }


def medical_sam_adapter(frame: Frame) -> Rules:
    """Medical SAM Adapter: 0..1 only; masks are the first mask tokens, enlarged by repetition."""
    return {
        "input": picture(
            frame, ("stretch", "bilinear_antialias"), mean_std([0.0] * 3, [1.0] * 3, 255.0)
        ),
        "prompts": dict(ALL_PROMPTS),
        "output": masks(frame, 16, several=(0, 1, 2), resize=("two_step", "nearest")),
    }


def sam2(frame: Frame) -> Rules:
    """SAM 2.1 on single images; its graph adds the padding point itself."""
    return {
        "input": picture(
            frame,
            ("stretch", "bilinear_antialias"),
            mean_std(IMAGENET_MEAN, IMAGENET_STD, 255.0),
            rounding="none",
        ),
        "prompts": {**ALL_PROMPTS, "padding_point": False},
        "output": masks(frame, 16, resize=("direct", "bilinear"), logit_limit=32.0),
    }


def samed(frame: Frame) -> Rules:
    """SAMed: no prompt; background and eight organs compete for every pixel."""
    return {
        "input": picture(
            frame,
            ("stretch", "bspline_corners"),
            mean_std([0.0] * 3, [1.0] * 3, 255.0),
            rounding="none",
            via=[[224, 224]],
        ),
        "prompts": {
            **BOX_ONLY,
            "box": False,
            "padding_point": False,
        },
        "output": masks(
            frame,
            16,
            count=9,
            several=tuple(range(1, 9)),
            kind="classes",
        ),
    }
