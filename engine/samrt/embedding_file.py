"""Saving and loading of :class:`samrt.ImageEmbedding` as one ``.npz`` file.

Format, version 1: a zip archive of ``.npy`` members. ``meta`` is a 0-d unicode array that holds
a JSON object (``format`` = ``samrt-embedding``, ``version``, ``original_size``, ``input_size``,
``frame_size``, ``scale``, ``model_id``, ``warnings``, ``features``: the list of names, and
``sha256`` over the feature bytes in that order); ``feature_0``, ``feature_1``, … are float32
arrays ``(1, C, h, w)``. Members are never unpickled. Timings are not stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import BundleError, OutputError
from samrt.quoting import one_line
from samrt.types import ImageEmbedding, Size

__all__ = ["load_embedding", "save_embedding"]

_FORMAT = "samrt-embedding"
_VERSION = 1
_MAX_BYTES = 2 * 1024**3
_DAMAGE = (
    ValueError, KeyError, TypeError, OSError, EOFError, MemoryError, RecursionError,
    NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save_embedding(
    embedding: ImageEmbedding, path: str | PathLike[str], *, overwrite: bool = False
) -> None:
    """Write ``embedding`` to ``path`` exactly as named, completely or not at all.

    Raises:
        OutputError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists: choose another name or pass overwrite=True")
    arrays = list(embedding.features.values())
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "original_size": embedding.original_size,
        "input_size": embedding.input_size,
        "frame_size": embedding.frame_size,
        "scale": embedding.scale,
        "model_id": embedding.model_id,
        "warnings": embedding.warnings,
        "features": list(embedding.features),
        "sha256": _digest(arrays),
    }
    members: dict[str, Any] = {f"feature_{i}": array for i, array in enumerate(arrays)}
    members["meta"] = np.array(json.dumps(meta))
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **members)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(target)
    except OSError as exc:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise OutputError(f"cannot write embedding {target}: {exc.strerror or exc}") from exc


def load_embedding(path: str | PathLike[str]) -> ImageEmbedding:
    """Read an embedding; see :meth:`samrt.ImageEmbedding.load`.

    Raises:
        BundleError: no such file, not an embedding, another version, or damaged.
    """
    source = Path(path)
    if not source.is_file():
        raise BundleError(f"no embedding file {source}: write one with ImageEmbedding.save")
    try:
        with zipfile.ZipFile(source) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > _MAX_BYTES:
            raise BundleError(f"embedding {source} unpacks to {size} bytes, at most 2 GiB allowed")
        with np.load(source, allow_pickle=False) as data:
            if "meta" not in data:
                raise BundleError(f"{source} is an .npz file but not a samrt embedding")
            meta = json.loads(str(data["meta"][()]))
            if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
                raise BundleError(f"{source} is an .npz file but not a samrt embedding")
            if meta.get("version") != _VERSION:
                raise BundleError(
                    f"embedding {source} has version {meta.get('version')!r}, "
                    f"expected {_VERSION}: encode the image again"
                )
            arrays = [data[f"feature_{i}"] for i in range(len(meta["features"]))]
        return _build(meta, arrays)
    except BundleError:
        raise
    except _DAMAGE as exc:
        reason = one_line(exc, 200)
        raise BundleError(
            f"embedding {source} is damaged ({reason}): encode the image again"
        ) from exc


def _build(meta: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> ImageEmbedding:
    if any(array.dtype != np.float32 or array.ndim < 1 for array in arrays):
        raise ValueError("a feature is not a float32 array")
    if not all(isinstance(name, str) for name in meta["features"]):
        raise ValueError("a feature name is not text")
    if _digest(arrays) != meta["sha256"]:
        raise ValueError("sha256 of the features differs")
    sy, sx = (float(value) for value in meta["scale"])
    if not all(math.isfinite(value) and value > 0 for value in (sy, sx)):
        raise ValueError("scale is not positive")
    return ImageEmbedding(
        features=dict(zip(meta["features"], arrays, strict=True)),
        original_size=_size(meta["original_size"]),
        input_size=_size(meta["input_size"]),
        frame_size=_size(meta["frame_size"]),
        scale=(sy, sx),
        model_id=str(meta["model_id"]),
        warnings=tuple(str(text) for text in meta["warnings"]),
    )


def _size(value: Sequence[Any]) -> Size:
    height, width = value
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise ValueError(f"size {value!r} is not (H, W)")
    return (height, width)


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
