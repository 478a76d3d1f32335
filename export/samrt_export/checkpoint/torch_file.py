"""Files of ``torch.save``: checked as an archive first, then loaded as weights only.

Nothing is unpickled before the list of names in the pickle is known to be harmless, and no
tensor is read before the sizes that the archive claims are known to fit the file.
"""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from samrt.quoting import one_line
from samrt_export.checkpoint.errors import CheckpointError, listing, shown
from samrt_export.checkpoint.pickle_scan import check_globals

__all__ = ["is_legacy", "is_zip", "load_legacy", "load_zip"]

_MAX_PICKLE = 64 * 1024 * 1024
_LEGACY_PICKLES = 4  # magic number, protocol version, sizes of C types, the object
_LOCAL_HEADER = 30
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    ValueError,
)
_RESAVE = "download or save it again"


def is_zip(head: bytes) -> bool:
    """Whether a file starts like the archives that ``torch.save`` writes since version 1.6."""
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    """Whether a file starts like those of ``torch.save`` before version 1.6, a magic number."""
    return head[:1] == b"\x80" and head[2:15] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def load_zip(path: Path) -> Mapping[object, object]:
    """Load the dictionary of a zip-format checkpoint; tensors are mapped from the file, not read.

    Raises:
        CheckpointError: damaged, not written by ``torch.save``, or more than tensors in it.
    """
    pickled = _checked_pickle(path)
    check_globals(io.BytesIO(pickled), path.name)
    return _load(path, mmap=True)


def load_legacy(path: Path) -> Mapping[object, object]:
    """Load the dictionary of a checkpoint in the format before torch 1.6; tensors are read.

    Raises:
        CheckpointError: damaged, or more than tensors in it.
    """
    with path.open("rb") as stream:
        head = io.BytesIO(stream.read(_MAX_PICKLE))
    for _ in range(_LEGACY_PICKLES):
        check_globals(head, path.name)
    return _load(path, mmap=False)


def _load(path: Path, *, mmap: bool) -> Mapping[object, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd pickle protocols
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as exc:  # whatever a hostile file makes of torch's reader
        reason = shown(one_line(exc))
        raise CheckpointError(
            f"{path.name} cannot be loaded as weights only ({reason}): {_RESAVE}, with "
            "torch.save(model.state_dict(), path)"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path.name} holds a {type(content).__name__}, expected a dictionary of tensors: "
            "save it with torch.save(model.state_dict(), path)"
        )
    return content


def _checked_pickle(path: Path) -> bytes:
    """The pickle inside an archive whose every entry is stored as it is and fits the file."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries, size)
            pickles = [e for e in entries if e.filename.split("/")[1:] == ["data.pkl"]]
            if any(e.filename.split("/")[1:] == ["constants.pkl"] for e in entries):
                raise CheckpointError(
                    f"{path.name} is a TorchScript archive, code and weights in one; expected a "
                    "state dict: load it with torch.jit.load where you trust it and save "
                    "torch.save(model.state_dict(), path)"
                )
            if len(pickles) != 1:
                raise CheckpointError(
                    f"{path.name} is a zip archive but not a checkpoint: it holds no single "
                    f"data.pkl but {listing([e.filename for e in entries], 3) or 'nothing'}"
                )
            if pickles[0].file_size > _MAX_PICKLE:
                raise CheckpointError(
                    f"{path.name} has a pickle of {pickles[0].file_size} bytes, expected at most "
                    f"{_MAX_PICKLE}: save the state dict alone"
                )
            return archive.read(pickles[0])
    except CheckpointError:
        raise
    except _ZIP_ERRORS as exc:
        raise CheckpointError(
            f"{path.name} is damaged: {shown(exc)}; the file may be cut short, {_RESAVE}"
        ) from exc


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path.name} is damaged: it names an entry twice; {_RESAVE}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise CheckpointError(
                f"{path.name} is refused: its entry {shown(entry.filename)} is compressed or "
                f"encrypted, which torch.save never does; unpack it or {_RESAVE}"
            )
        end = entry.header_offset + _LOCAL_HEADER + entry.file_size
        if entry.file_size != entry.compress_size or end > size:
            raise CheckpointError(
                f"{path.name} is damaged: its entry {shown(entry.filename)} claims "
                f"{entry.file_size} bytes of a file of {size}; {_RESAVE}"
            )
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise CheckpointError(
            f"{path.name} is damaged: its entries claim {total} bytes of a file of {size}; "
            f"{_RESAVE}"
        )
