"""The manifest document of an exported bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from samrt._version import __version__

if TYPE_CHECKING:
    from samrt_export.loading import Loaded

Shape = Sequence[int | str]


def artifact(
    role: str, file: str, opset: int, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
) -> dict[str, Any]:
    """An entry of `artifacts`; size and hash are filled in when the bundle is written."""

    def rows(tensors: Mapping[str, Shape]) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": "float32", "shape": list(shape)}
            for name, shape in tensors.items()
        ]

    return {
        "role": role,
        "file": file,
        "format": "onnx",
        "precision": "fp32",
        "opset": opset,
        "bytes": 1,
        "sha256": "0" * 64,
        "inputs": rows(inputs),
        "outputs": rows(outputs),
    }


def document(
    loaded: Loaded,
    rules: Mapping[str, Any],
    artifacts: Sequence[Mapping[str, Any]],
    name: str,
    parity: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole document."""
    family, frame = loaded.family, loaded.frame
    return {
        "schema_version": 1,
        "name": name,
        "family": family.name,
        "variant": loaded.variant,
        "precision": "fp32",
        **rules,
        "artifacts": list(artifacts),
        "source": {
            "checkpoint_sha256": loaded.checkpoint.sha256,
            "url": None,
            "license": family.license,
            "intended_use": family.intended_use,
            "frame": {"mode": frame.mode, "size": list(frame.size), "whole": list(frame.whole)},
            "remarks": list(loaded.remarks),
        },
        "producer": {
            "samrt": __version__,
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        "calibration": None,
        "parity": dict(parity) if parity else None,
    }
