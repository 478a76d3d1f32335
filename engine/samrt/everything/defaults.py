"""Default thresholds of everything mode, per model family. The one place where they stand."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Thresholds", "thresholds_of"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a mask must reach.

    Attributes:
        pred_iou_thresh: predicted IoU above this.
        stability_score_thresh: stability of at least this.
        reason: why these.
    """

    pred_iou_thresh: float
    stability_score_thresh: float
    reason: str


SAM = Thresholds(
    0.88,
    0.95,
    "the defaults of segment-anything, chosen there for SAM with ViT-H; families trained with "
    "SAM's own losses share their scale",
)

BY_FAMILY: dict[str, Thresholds] = {
    "tiny": Thresholds(
        0.5,
        0.85,
        "its predicted IoU of a single point is seldom above 0.8 and its masks seldom reach a "
        "stability of 0.95: with SAM's thresholds nothing is found. Of the pairs that leave some "
        "20 masks for a CT slice, this one finds most labelled targets: "
        "benchmarks/everything_thresholds.py, results beside it",
    ),
}


def thresholds_of(family: str) -> Thresholds:
    """The thresholds of a model family (``Manifest.family``); SAM's for all without their own."""
    return BY_FAMILY.get(family, SAM)
