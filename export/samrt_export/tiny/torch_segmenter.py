"""A trained checkpoint as a `Segmenter`, in PyTorch: what the exported bundle must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from samrt_export.tiny.data import MEAN, STD
from samrt_export.tiny.evaluate import Answer
from samrt_export.tiny.model import Tiny, TinyConfig
from samrt_export.tiny.prompts import Draft, pack

F32 = npt.NDArray[np.float32]


def load_checkpoint(path: Path, average: bool = True) -> Tiny:
    """The averaged (or the raw) weights of a training checkpoint, in eval mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    fields: dict[str, Any] = dict(state["config"])
    model = Tiny(TinyConfig(**fields))
    model.load_state_dict(state["average" if average else "model"])
    return model.eval()


def preprocess(image: npt.NDArray[np.uint8], size: int) -> tuple[Tensor, tuple[int, int]]:
    """SAM's rule: longest side to `size` (Pillow bilinear), mean and std, zeros right and below."""
    scale = size / max(image.shape[:2])
    h, w = (int(v * scale + 0.5) for v in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
    if resized.ndim == 2:
        resized = np.repeat(resized[..., None], 3, axis=2)
    out = np.zeros((size, size, 3), np.float32)
    out[:h, :w] = (resized.astype(np.float32) - MEAN) / STD
    return torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))[None], (h, w)


class TorchSegmenter:
    """Encodes once, decodes per prompt."""

    def __init__(
        self, model: Tiny, size: int = 512, choose: tuple[int, ...] = (0, 1, 2, 3),
        refine_steps: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.size, self.choose = model, size, choose
        self.refine_steps = refine_steps
        self.maps: tuple[Tensor, ...] = ()
        self.shape, self.valid = (1, 1), (1, 1)

    @torch.no_grad()
    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """(H, W) or (H, W, 3) uint8."""
        x, self.valid = preprocess(image, self.size)
        self.shape = (image.shape[0], image.shape[1])
        self.maps = self.model.encoder(x)

    @torch.no_grad()
    def predict(self, draft: Draft, mask_input: F32 | None = None) -> Answer:
        """The mask with the highest predicted IoU among `choose`."""
        coords, labels = pack([draft])
        coords *= self.size / max(self.shape)
        half = self.size // 2
        mask = torch.zeros(1, 1, half, half)
        if mask_input is not None:
            mask = torch.from_numpy(mask_input)[None, None]
        has = torch.tensor([0.0 if mask_input is None else 1.0])
        asked = torch.from_numpy(coords), torch.from_numpy(labels)
        low, iou, k = self._ask(*asked, mask, has)
        for _ in range(self.refine_steps):
            low, iou, k = self._ask(*asked, low[:, k : k + 1], torch.ones(1))
        h, w = self.valid
        up = F.interpolate(low[:, k : k + 1], (self.size, self.size), mode="bilinear")
        up = F.interpolate(up[:, :, :h, :w], self.shape, mode="bilinear")
        return Answer((up[0, 0] > 0).numpy(), low[0, k].numpy(), float(iou[0, k]))

    def _ask(
        self, coords: Tensor, labels: Tensor, mask: Tensor, has: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """Logits, scores, and which mask has the highest score."""
        low, iou = self.model.decoder(*self.maps, coords, labels, mask, has)
        return low, iou, max(self.choose, key=lambda i: float(iou[0, i]))
