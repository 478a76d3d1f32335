"""Verification: is a bundle the network it was exported from?"""

from samrt.gate import THRESHOLDS, Thresholds
from samrt.verification.compare import Case, compare
from samrt.verification.figures import ArrayFigures, MaskFigures, compare_masks, hd95
from samrt.verification.record import MIN_INFORMATIVE, MaskSummary, VerificationRecord
from samrt_export.verify.crop import CropDeviation, crop_deviation
from samrt_export.verify.images import ImageCase, automatic_prompts, image_cases, image_files
from samrt_export.verify.store import parity_with, store_record

__all__ = [
    "MIN_INFORMATIVE",
    "THRESHOLDS",
    "ArrayFigures",
    "Case",
    "CropDeviation",
    "ImageCase",
    "MaskFigures",
    "MaskSummary",
    "Thresholds",
    "VerificationRecord",
    "automatic_prompts",
    "compare",
    "compare_masks",
    "crop_deviation",
    "hd95",
    "image_cases",
    "image_files",
    "parity_with",
    "store_record",
]
