"""Comparing two models on the same pictures: how far apart are their answers, and is it enough?

``compare`` runs both, ``figures`` measures arrays and masks, ``record`` sums up and judges.
Needs numpy only, so that a machine without any exporting tools can prove its engines.
"""

from samrt.gate import THRESHOLDS, Thresholds
from samrt.verification.compare import Case, compare
from samrt.verification.figures import ArrayFigures, MaskFigures, compare_masks, hd95
from samrt.verification.record import MIN_INFORMATIVE, MaskSummary, VerificationRecord

__all__ = [
    "MIN_INFORMATIVE",
    "THRESHOLDS",
    "ArrayFigures",
    "Case",
    "MaskFigures",
    "MaskSummary",
    "Thresholds",
    "VerificationRecord",
    "compare",
    "compare_masks",
    "hd95",
]
