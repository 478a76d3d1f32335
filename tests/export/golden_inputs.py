"""Encoder inputs of the golden vectors, made as the README beside them says.

Every function takes an image (H, W, 3) uint8 RGB and returns (1, 3, S, S) float32.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
F32 = NDArray[np.float32]
SAM_MEAN = np.array([123.675, 116.28, 103.53])
SAM_STD = np.array([58.395, 57.12, 57.375])
FRAME = 1024


def sam(image: Picture) -> F32:
    """Longest side to 1024 (Pillow, bilinear), mean and std, zeros right and below."""
    height, width = image.shape[:2]
    scale = FRAME / max(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    resized = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    planes = torch.from_numpy(resized).permute(2, 0, 1).float()
    mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (SAM_MEAN, SAM_STD))
    pads = (0, FRAME - size[0], 0, FRAME - size[1])
    return np.asarray(F.pad((planes - mean) / std, pads)[None])


def medsam(image: Picture) -> F32:
    """Cubic to 1024 x 1024 (scikit-image, antialiased), truncated to uint8, min to max."""
    transform = importlib.import_module("skimage.transform")
    resized = transform.resize(
        image, (FRAME, FRAME), order=3, preserve_range=True, anti_aliasing=True
    ).astype(np.uint8)
    low, high = resized.min(), resized.max()
    return planar((resized - low) / np.clip(high - low, 1e-8, None))


def sam_med2d(image: Picture) -> F32:
    """Mean and std, then to 256 x 256 by the nearest pixel above and to the left."""
    normal = (image - SAM_MEAN) / SAM_STD
    rows, columns = (np.arange(256) * side // 256 for side in image.shape[:2])
    return planar(normal[rows][:, columns])


def efficient_sam(image: Picture) -> F32:
    """0 to 1, bilinear to 1024 x 1024 without antialiasing, ImageNet's mean and std."""
    planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255)[None]
    planes = F.interpolate(planes, (FRAME, FRAME), mode="bilinear")
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return np.asarray((planes - mean) / std)


def medical_sam_adapter(image: Picture) -> F32:
    """1024 x 1024 (Pillow, bilinear), 0 to 1."""
    resized = Image.fromarray(image).resize((FRAME, FRAME), Image.Resampling.BILINEAR)
    return planar(np.array(resized).astype(np.float32) / np.float32(255))


def samed(image: Picture) -> F32:
    """One channel, 0 to 1, cubic to 224 x 224, cubic to 512 x 512, three times."""
    ndimage = importlib.import_module("scipy.ndimage")
    grey = image[:, :, 0].astype(np.float32) / 255
    small = ndimage.zoom(grey, [224 / side for side in grey.shape], order=3)
    large = ndimage.zoom(small, 512 / 224, order=3)
    return planar(np.repeat(large[:, :, None], 3, axis=2))


def planar(image: NDArray[np.floating]) -> F32:
    """(S, S, 3) to (1, 3, S, S) float32."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


RECIPES: dict[str, Callable[[Picture], F32]] = {
    "sam_vit_b": sam,
    "sam_vit_l": sam,
    "sam_vit_h": sam,
    "medsam": medsam,
    "sam_med2d": sam_med2d,
    "efficient_sam_ti": efficient_sam,
    "efficient_sam_s": efficient_sam,
    "medical_sam_adapter": medical_sam_adapter,
    "samed": samed,
}
