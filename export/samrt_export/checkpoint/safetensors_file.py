"""Files in the safetensors format: the header is checked against the file before it is opened."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from samrt_export.checkpoint.errors import CheckpointError, listing, shown

__all__ = ["is_safetensors", "load_safetensors"]

_MAX_HEADER = 100 * 1000 * 1000
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_METADATA = "__metadata__"


def is_safetensors(head: bytes) -> bool:
    """Whether a file starts with a length and a JSON object."""
    return len(head) > 8 and head[8:9] == b"{"


def load_safetensors(path: Path) -> Mapping[object, object]:
    """Load the tensors of a safetensors file; they are mapped from the file, not read.

    Raises:
        CheckpointError: the safetensors package is missing, or the file is damaged.
    """
    _check_header(path)
    try:
        from safetensors import safe_open
    except ImportError as exc:
        raise CheckpointError(
            f"{path.name} is a safetensors file: pip install 'samrt[export]' to read it"
        ) from exc
    try:
        with safe_open(str(path), framework="pt", device="cpu") as archive:
            return {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except Exception as exc:  # whatever a hostile file makes of the package's reader
        raise CheckpointError(
            f"{path.name} is damaged: {shown(' '.join(str(exc).split()))}; download or save it "
            "again"
        ) from exc


def _check_header(path: Path) -> None:
    """Refuse a header that does not describe exactly the bytes of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise _damaged(path, f"its header claims {length} bytes, the file has {size}")
        text = stream.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _damaged(path, "its header is not valid JSON") from exc
    if not isinstance(header, dict):
        raise _damaged(path, f"its header is a {type(header).__name__}")
    room = size - 8 - length
    bad = [n for n, e in header.items() if n != _METADATA and not _fits(e, room)]
    if bad:
        raise _damaged(
            path, f"sizes in its header do not fit the {room} bytes of data: {listing(bad)}"
        )


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path.name} is damaged: {why}; download or save it again")


def _fits(entry: object, room: int) -> bool:
    """Whether an entry's offsets lie in the file and its shape fills them."""
    if not isinstance(entry, dict):
        return False
    unit = entry.get("dtype")
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or offsets is None or not isinstance(unit, str):
        return False
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= room:
        return False
    return unit not in _BYTES or math.prod(shape) * _BYTES[unit] == offsets[1] - offsets[0]


def _counts(value: object) -> list[int] | None:
    """A list of integers from 0 on, None if it is anything else."""
    if isinstance(value, list) and all(type(n) is int and n >= 0 for n in value):
        return value
    return None
