"""Low-resolution logits on disk: one NPZ per run, to be fed back as mask input.

The file holds ``logits`` ``(N, M, h, w)`` float32 for ``N`` prompts with ``M`` masks each,
``scores`` and ``stability`` ``(N, M)`` float32, ``original_size`` ``(2,)`` int64 as ``(H, W)``,
and ``meta``, a JSON text. It is read without pickle, so nothing in it is executed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import PromptError
from samrt.types import Prediction, Size

__all__ = ["load_mask_inputs", "pack_logits"]

_MAX_BYTES = 1024 * 1024 * 1024
_NAMES = ("logits", "scores")


def pack_logits(
    predictions: Sequence[Prediction], original_size: Size, meta: Mapping[str, Any]
) -> bytes:
    """Return the bytes of the NPZ file for the answers of one run."""
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        logits=np.stack([p.logits for p in predictions]),
        scores=np.stack([p.scores for p in predictions]),
        stability=np.stack([p.stability for p in predictions]),
        original_size=np.array(original_size, dtype=np.int64),
        meta=np.array(json.dumps(meta, allow_nan=False)),
    )
    return buffer.getvalue()


def load_mask_inputs(
    path: str | PathLike[str], count: int, image_size: Size
) -> list[NDArray[np.float32]]:
    """Read the best mask of each prompt of an earlier run, as mask inputs for ``count`` prompts.

    A file of one prompt serves all of them; otherwise the numbers must be the same, and the
    order is kept. The best mask is the one with the highest score.

    Returns:
        ``count`` arrays ``(h, w)`` float32.

    Raises:
        PromptError: missing, damaged or foreign file, another image size, or another number of
            prompts.
    """
    name = str(Path(path))
    arrays = _read(Path(path), name)
    logits, scores = arrays["logits"], arrays["scores"]
    size = arrays.get("original_size")
    if size is not None and size.tolist() != list(image_size):
        raise PromptError(
            f"{name} belongs to an image of size (H, W) {size.tolist()}, "
            f"this one has {list(image_size)}: use the file of this image"
        )
    if len(logits) not in (1, count):
        raise PromptError(
            f"{name} holds masks of {len(logits)} prompts, this run has {count}: "
            "give the same prompts in the same order, or a file of one prompt"
        )
    best = [logits[i, int(np.argmax(scores[i]))] for i in range(len(logits))]
    return best if len(best) == count else best * count


def _read(path: Path, name: str) -> dict[str, NDArray[Any]]:
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise PromptError(f"mask input {name} {what}")
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MAX_BYTES:
                raise PromptError(f"mask input {name} unpacks to more than 1 GiB")
        with np.load(path, allow_pickle=False) as archive:
            wanted = (*_NAMES, "original_size")
            arrays = {key: archive[key] for key in wanted if key in archive.files}
    except PromptError:
        raise
    except Exception as exc:  # a damaged archive may end in any exception of its reader
        reason = getattr(exc, "strerror", None) or " ".join(str(exc).split())
        raise PromptError(f"mask input {name} cannot be read as NPZ: {reason}") from exc
    _check(arrays, name)
    return arrays


def _check(arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    hint = "give the .logits.npz file of an earlier run"
    missing = [key for key in _NAMES if key not in arrays]
    if missing:
        raise PromptError(f"mask input {name} holds no {' and no '.join(missing)}: {hint}")
    logits, scores = arrays["logits"], arrays["scores"]
    if logits.ndim != 4 or logits.size == 0 or scores.shape != logits.shape[:2]:
        raise PromptError(
            f"mask input {name} has logits of shape {logits.shape} and scores of shape "
            f"{scores.shape}, expected (N, M, h, w) and (N, M): {hint}"
        )
    if logits.dtype != np.float32 or scores.dtype != np.float32:
        raise PromptError(f"mask input {name} is {logits.dtype}, expected float32: {hint}")
    if not (np.isfinite(logits).all() and np.isfinite(scores).all()):
        raise PromptError(f"mask input {name} holds NaN or infinity: {hint}")
