"""A simulated user who corrects a mask click by click.

Each click goes to the pixel deepest inside what is wrong, missed or extra, as in the evaluation of
Sofiiuk et al. 2021 (arXiv 2102.06583): the Euclidean distance to the nearest right pixel (or the
edge of the image) is largest there. The first click of a mask that does not exist yet is thus the
point deepest inside the target. Needs SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from samrt.evaluation.metrics import overlap
from samrt.predictor import Predictor
from samrt.types import ImageEmbedding, Prompt

__all__ = ["Curve", "clicks_needed", "next_click", "run_clicks"]

Mask = NDArray[np.bool_]


def next_click(truth: Mask, guess: Mask, taken: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """The next correction.

    Args:
        truth, guess: ``(H, W)`` bool, not equal.
        taken: ``(x, y)`` of earlier clicks, not to be repeated.

    Returns:
        ``(x, y, label)`` with label 1 where something is missed and 0 where there is too much.
        Of equally deep pixels the first in row-major order, of both kinds the missed one.
    """
    missed, extra = _depth(truth & ~guess, taken), _depth(guess & ~truth, taken)
    label = 1 if missed[0] >= extra[0] else 0
    _, x, y = missed if label else extra
    return x, y, label


def _depth(region: Mask, taken: Sequence[tuple[int, int]]) -> tuple[float, int, int]:
    """Depth, x and y of the deepest pixel; depth 0 if there is none."""
    rows = np.flatnonzero(region.any(axis=1))
    if not rows.size:
        return 0.0, 0, 0
    from scipy.ndimage import distance_transform_edt

    columns = np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    part = region[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    depth = distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    for x, y in taken:
        if top <= y < top + part.shape[0] and left <= x < left + part.shape[1]:
            depth[y - top, x - left] = 0.0
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return float(depth[row, column]), column + left, row + top


@dataclass(slots=True)
class Curve:
    """What became of a mask.

    Attributes:
        dice, iou: after each click; a mask that is exactly right keeps its figures.
        points: ``[x, y, label]`` of each click.
        decode_ms: time of each answer, prompt decoder and postprocessing.
    """

    dice: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    points: list[list[int]] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)


def run_clicks(
    engine: Predictor, embedding: ImageEmbedding, truth: Mask, count: int, refine_steps: int = 0
) -> Curve:
    """Answer ``count`` clicks; the model's own best mask is shown to the user after each.

    The logits of that mask are given back to the model with the next click, if it takes masks.
    """
    curve = Curve()
    guess = np.zeros_like(truth)
    logits = None
    for _ in range(count):
        if curve.points and np.array_equal(guess, truth):
            curve.dice.append(1.0)
            curve.iou.append(1.0)
            continue
        taken = [(p[0], p[1]) for p in curve.points]
        curve.points.append(list(next_click(truth, guess, taken)))
        prompt = Prompt(
            point_coords=[p[:2] for p in curve.points],
            point_labels=[p[2] for p in curve.points],
            mask_input=logits,
        )
        answer = engine.decode(embedding, prompt, refine_steps=refine_steps)[0]
        guess = answer.masks[answer.best]
        if engine.manifest.prompts.mask:
            logits = answer.logits[answer.best]
        found = overlap(guess, truth)
        curve.dice.append(found[0])
        curve.iou.append(found[1])
        times = answer.timings
        curve.decode_ms.append((times.decode_prompt_ms or 0.0) + (times.postprocess_ms or 0.0))
    return curve


def clicks_needed(values: Sequence[float], goal: float) -> int:
    """Number of clicks until ``goal`` is reached; all of them if it never is (NoC)."""
    return next((i + 1 for i, v in enumerate(values) if v >= goal), len(values))
