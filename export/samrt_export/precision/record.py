"""What the manifest says about a float16 conversion: its `calibration.fp16`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from samrt.imaging.read import LoadedImage
from samrt.preprocess import ImageSource
from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.precision.ranges import Ranges
from samrt_export.precision.search import TARGET, Found, in_words
from samrt_export.verify import VerificationRecord

__all__ = ["add_to_digest", "calibration_entry", "growth_in_words"]


class Hash(Protocol):
    """A digest of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


_LARGEST = 12
_JUMP, _NOTABLE = 10.0, 0.02


def calibration_entry(
    found: Found,
    ranges: Mapping[str, Ranges],
    graphs: Mapping[str, FloatGraph],
    growth: Mapping[str, Mapping[str, float]],
    in_runtime: VerificationRecord,
) -> dict[str, Any]:
    """The entry, JSON-ready; the caller adds what was asked for and the pictures.

    Per role: `nodes` in each precision, `islands` with kinds, nodes, figures and reasons, the
    `largest` tensors, the relative `error_growth` from block to block. Besides: error
    `contributions` of blocks where they were measured, the `rounds` of the search, its `target`,
    and how ONNX Runtime's CPU provider does, which computes such graphs in float32.
    """
    roles = {}
    for role, half in found.halves.items():
        top = sorted(ranges[role].abs_max.items(), key=lambda item: -item[1])[:_LARGEST]
        roles[role] = {
            "nodes": {"fp16": half.half_nodes, "fp32": half.float_nodes, "casts": half.casts},
            "islands": [island.as_dict() for island in found.islands[role]],
            "tensors": len(ranges[role].abs_max),
            "runs": ranges[role].runs,
            "largest": [{"tensor": name, "abs_max": _number(value)} for name, value in top],
            "error_growth": [
                {"group": group, "error": _number(error)} for group, error in growth[role].items()
            ],
        }
    return {
        "format": 1,
        "method": "ranges of all tensors, sums inside nodes, error of blocks",
        "roles": roles,
        "contributions": [
            {"role": c.role, "group": c.group, "error": _number(c.error)}
            for c in found.contributions
        ],
        "rounds": list(found.rounds),
        "target": asdict(TARGET),
        "onnxruntime_cpu": in_words(in_runtime),
    }


def growth_in_words(growth: Mapping[str, Mapping[str, float]]) -> str:
    """Where the error explodes first: to infinity, or by a factor of ten to a notable size."""
    last = ""
    for role, groups in growth.items():
        before = 0.0
        for group, error in groups.items():
            if math.isinf(error):
                return f"the first infinity comes from {role} {group}"
            if error > _NOTABLE and error > _JUMP * before > 0.0:
                return f"the error grows from {before:.1e} to {error:.1e} in {role} {group}"
            before, last = error, f"{role} {group}"
    return f"the error grows without a jump, up to {last}"


def add_to_digest(digest: Hash, picture: ImageSource) -> None:
    """Add the pixels of a picture, with their shape and type."""
    array = np.asarray(picture.source if isinstance(picture, LoadedImage) else picture)
    digest.update(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
