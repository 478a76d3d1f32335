"""How far a bundle without the padding (`--crop-padding`) is from the exact model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from samrt import Predictor
from samrt.phantoms import PhantomCase
from samrt.selfcheck import supported_prompts
from samrt.verification.figures import MaskTally, compare_masks
from samrt.verification.record import MaskSummary

__all__ = ["CropDeviation", "crop_deviation", "shaped"]


@dataclass(frozen=True, slots=True)
class CropDeviation:
    """Masks of the cropped bundle against those of the exact model.

    Attributes:
        crop: `(S_h, S_w)` that is encoded.
        whole: `(S_h, S_w)` of the exact model's frame.
        pictures: built-in pictures, cut to the crop's shape.
        masks: the masks, all candidates of every prompt.
        same_choice: share of prompts for which both choose the same candidate.
        encode_ratio: time of the cropped encoder over that of the exact one, both in torch.
    """

    crop: tuple[int, int]
    whole: tuple[int, int]
    pictures: tuple[str, ...]
    masks: MaskSummary
    same_choice: float
    encode_ratio: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest, the figures most asked for at its top."""
        rest = asdict(self)
        return {
            "mask_iou_mean": self.masks.iou_mean,
            "mask_iou_worst": self.masks.iou_worst,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in rest.items()},
        }

    def in_words(self) -> str:
        """One line for people."""
        return (
            f"without the padding ({self.crop[0]}x{self.crop[1]} of {self.whole[0]}x"
            f"{self.whole[1]}): {self.encode_ratio:.2f} of the encoder's time; against the exact "
            f"model on {len(self.pictures)} built-in images: mask IoU mean "
            f"{self.masks.iou_mean:.4f}, worst {self.masks.iou_worst:.4f}, the same mask chosen in "
            f"{100 * self.same_choice:.0f} % of prompts"
        )


def shaped(case: PhantomCase, crop: tuple[int, int]) -> PhantomCase:
    """The picture cut at its right or lower side to the crop's aspect ratio.

    Prompts that would lie outside are left out.
    """
    height, width = case.image.shape[:2]
    keep_h = min(height, max(1, width * crop[0] // crop[1]))
    keep_w = min(width, max(1, height * crop[1] // crop[0]))
    image = np.ascontiguousarray(case.image[:keep_h, :keep_w])
    image.flags.writeable = False

    def inside(points: Any) -> bool:
        rows = np.asarray(points, np.float64).reshape(-1, 2)
        return bool((rows[:, 0] < keep_w).all() and (rows[:, 1] < keep_h).all())

    kept = []
    for prompt in case.prompts:
        parts = [v for v in (prompt.box, prompt.point_coords) if v is not None]
        if all(inside(part) for part in parts):
            kept.append(prompt)
    return PhantomCase(case.name, image, tuple(kept))


def crop_deviation(
    exact: Predictor,
    cropped: Predictor,
    cases: Sequence[PhantomCase],
    progress: Callable[[str], None] | None = None,
) -> CropDeviation:
    """Compare all masks on pictures of the crop's shape.

    Args:
        exact: the model with its whole frame.
        cropped: the same weights with the cropped frame, on the same backend.
        cases: pictures; each is cut to the crop's shape first.
        progress: is told what is being done.

    Raises:
        ValueError: no prompt is left to compare.
    """
    crop, whole = cropped.manifest.input.size, exact.manifest.input.size
    tally, names, same, prompts, spent = MaskTally(2), [], 0, 0, [0.0, 0.0]
    for case in (shaped(case, crop) for case in cases):
        asked = list(case.prompts)
        for model in (exact, cropped):
            asked = supported_prompts(asked, case.image.shape[:2], model.manifest.prompts)
        if not asked:
            continue
        if progress:
            progress(f"{case.name}: with and without the padding")
        names.append(case.name)
        embeddings = [model.encode(case.image) for model in (exact, cropped)]
        for turn, embedding in enumerate(embeddings):
            spent[turn] += embedding.timings.encode_ms or 0.0
        for number, prompt in enumerate(asked, 1):
            want = exact.decode(embeddings[0], prompt)[0]
            have = cropped.decode(embeddings[1], prompt)[0]
            prompts += 1
            same += want.best == have.best
            for index, (first, second) in enumerate(zip(want.masks, have.masks, strict=True)):
                tally.add(f"{case.name}/{number}/mask{index}", compare_masks(first, second))
    if not prompts:
        raise ValueError(f"no built-in picture has prompts inside {crop[0]}x{crop[1]}")
    return CropDeviation(
        crop, whole, tuple(names), MaskSummary.of(tally), same / prompts, spent[1] / spent[0]
    )
