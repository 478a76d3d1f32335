"""A bundle behind samrt's public API as a `Segmenter`: what is shipped is what is measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from samrt import Predictor
from samrt_export.tiny.evaluate import Answer
from samrt_export.tiny.prompts import Draft

F32 = npt.NDArray[np.float32]


class BundleSegmenter:
    """`multimask`: the best of the candidates by predicted IoU, else the model's single answer."""

    def __init__(
        self, predictor: Predictor, *, multimask: bool = False, refine_steps: int = 0
    ) -> None:
        self.predictor, self.multimask, self.refine_steps = predictor, multimask, refine_steps

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """(H, W) or (H, W, 3) uint8."""
        self.predictor.set_image(image)

    def predict(self, draft: Draft, mask_input: F32 | None = None) -> Answer:
        """The mask with the highest predicted IoU."""
        found = self.predictor.predict(
            np.array(draft.points) if draft.points else None,
            np.array(draft.labels) if draft.points else None,
            box=draft.box,
            mask_input=mask_input,
            multimask_output=self.multimask,
            refine_steps=self.refine_steps,
        )
        k = found.best
        return Answer(found.masks[k].copy(), found.logits[k].copy(), float(found.scores[k]))
