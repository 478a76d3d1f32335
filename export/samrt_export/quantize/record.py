"""What the manifest says about int8: its ``calibration.int8`` and ``calibration.int8-weights``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from samrt_export.precision.search import in_words
from samrt_export.quantize.search import TARGET, Found
from samrt_export.verify import VerificationRecord

if TYPE_CHECKING:
    from samrt_export.quantize.options import QuantizeOptions

__all__ = ["int8_entry", "weights_entry"]


def int8_entry(
    found: Found, left_alone: Mapping[str, str], options: QuantizeOptions,
    kernels: VerificationRecord,
) -> dict[str, Any]:  # fmt: skip
    """The entry, JSON-ready; the caller adds the pictures.

    ``layers`` are int8, each with its method, scale, migration and error; ``excluded`` are
    float32, each with its reason: returned for their error, or never candidates. Besides:
    ``sensitivities`` of units where they were measured, the ``rounds`` of the search, its
    ``target``, and how far the integer kernels of ONNX Runtime are from the graph itself.
    """
    reasons = {
        name: "returned to float32: alone in int8 it moves the answers too much"
        for item in found.sensitivities
        for name in item.layers
        if name not in {choice.layer.name for choice in found.kept}
    }
    window = options.window
    return {
        "format": 1,
        "method": "static, symmetric; clips and migration by measured output error, "
        "bias correction, layers by sensitivity",
        "options": {
            "method": options.method,
            "convs": options.convs,
            "exclude": list(options.exclude),
            "smoothing": options.smoothing,
            "bias_correction": options.bias_correction,
            "window": window if window is None or isinstance(window, str) else list(window),
        },
        "layers": [choice.as_dict() for choice in found.kept],
        "returned": len(found.returned),
        "excluded": [
            {"node": name, "reason": reason} for name, reason in {**reasons, **left_alone}.items()
        ],
        "sensitivities": [
            {"unit": item.unit, "error": _number(item.error)} for item in found.sensitivities
        ],
        "rounds": list(found.rounds),
        "target": asdict(TARGET),
        "kernels_against_graph": in_words(kernels),
    }


def weights_entry(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Any]:
    """The entry of int8 weights; `before` and `after` are bytes of each role's files."""
    return {
        "format": 1,
        "method": "weights only, symmetric, one scale per output; arithmetic in float32",
        "bytes": {role: {"fp32": before[role], "int8-weights": after[role]} for role in before},
    }


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
