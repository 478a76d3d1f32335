"""What the precisions of a bundle have in common when they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnx import TensorProto

from samrt.bundle import MANIFEST_NAME, Bundle, write_bundle
from samrt_export.graph import GraphBuilder

__all__ = ["artifact_entry", "replace_bundle"]

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def artifact_entry(
    role: str, precision: str, file: str, builder: GraphBuilder, data: Iterable[str]
) -> dict[str, Any]:
    """The manifest's entry; sizes and hashes are filled in when the bundle is written."""

    def rows(values: Iterable[Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": v.name,
                "dtype": _DTYPES[v.type.tensor_type.elem_type],
                "shape": [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
            }
            for v in values
        ]

    entry: dict[str, Any] = {
        "role": role,
        "file": file,
        "format": "onnx",
        "precision": precision,
        "opset": builder.opset,
        "bytes": 1,
        "sha256": "0" * 64,
        "inputs": rows(builder.inputs),
        "outputs": rows(builder.outputs),
    }
    names = list(data)
    if names:
        entry["data"] = [{"file": name, "bytes": 1, "sha256": "0" * 64} for name in names]
    return entry


def replace_bundle(made: Bundle, target: Path) -> Bundle:
    """Move a finished bundle to its place in one step."""
    document = json.loads((made.path / MANIFEST_NAME).read_text("utf-8"))
    files: dict[str, Any] = {
        item.file: made.path / item.file
        for part in made.manifest.artifacts
        for item in part.all_files
    }
    return write_bundle(target, document, files, overwrite=True, move=True)
