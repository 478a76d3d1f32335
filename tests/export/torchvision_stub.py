"""A stand-in for the few torchvision functions that `segment_anything` imports.

The original package is a test oracle only, and torchvision is a large dependency for a resize and
a non-maximum suppression.  `install()` puts the stand-in into `sys.modules` where torchvision is
missing; the functions follow torchvision's documented behaviour:

- `resize` of a PIL image is `Image.resize` with BILINEAR, which antialiases when shrinking;
- `to_pil_image` takes (H, W), (H, W, 1) and (H, W, 3) uint8 arrays;
- `batched_nms` keeps, per category and by falling score, boxes whose IoU with every kept box is at
  most the threshold.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to `size` = (height, width), bilinear."""
    height, width = size
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def to_pil_image(picture: NDArray[np.uint8]) -> Image.Image:
    """A uint8 array of one or three channels as a PIL image."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise TypeError(f"expected (H, W[, C]) uint8, got {picture.shape} {picture.dtype}")
    return Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)


def box_area(boxes: Tensor) -> Tensor:
    """(B, 4) XYXY to (B) areas."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """(A, 4) and (B, 4) XYXY to (A, B) intersection over union."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (box_area(first)[:, None] + box_area(second)[None, :] - shared)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices kept, by falling score; boxes of different categories do not compete."""
    order = scores.argsort(descending=True, stable=True)
    boxes, groups = boxes[order], idxs.to(order.device)[order]
    # The IoU is float32 and the threshold double, as in torchvision's kernel: 4/5 is above 0.8.
    rivals = box_iou(boxes, boxes).double() > iou_threshold
    rivals &= groups[:, None] == groups[None, :]
    alive = torch.ones(len(order), dtype=torch.bool)
    for k in range(len(order)):
        if alive[k]:
            alive[k + 1 :] &= ~rivals[k, k + 1 :]
    return order[alive]


def install() -> None:
    """Make `import torchvision...` work for `segment_anything`; nothing if torchvision is there."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    members = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": resize, "to_pil_image": to_pil_image},
    }
    for name, functions in members.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        for key, function in functions.items():
            setattr(module, key, function)
        sys.modules[name] = module
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
