"""Read a checkpoint file, or take over a state dict in memory: named tensors and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from samrt_export.checkpoint.errors import CheckpointError, listing
from samrt_export.checkpoint.safetensors_file import is_safetensors, load_safetensors
from samrt_export.checkpoint.torch_file import is_legacy, is_zip, load_legacy, load_zip
from samrt_export.checkpoint.unwrap import unwrap

__all__ = ["RawCheckpoint", "from_state_dict", "read_checkpoint"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER = "num_batches_tracked"
_HEAD = 64
_CHUNK = 1024 * 1024
_SHARED_AT_MOST = 8  # tensors may share storage, but not without bounds


@dataclass(frozen=True)
class RawCheckpoint:
    """The weights of a checkpoint as they were stored.

    Attributes:
        tensors: parameter name -> CPU tensor, in stored dtype and order; tensors of files are
            mapped from the file where its format allows.
        wrapper: what was taken off the names, such as ``model > module.``; ``none`` if nothing.
        ignored: entries beside the weights, such as ``optimizer`` or ``epoch``.
        format: ``pytorch``, ``safetensors`` or ``memory``.
        sha256: hex digest of the file; None for a state dict in memory.
        path: the file; None for a state dict in memory.
    """

    tensors: Mapping[str, torch.Tensor]
    wrapper: str
    ignored: tuple[str, ...]
    format: str
    sha256: str | None
    path: Path | None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name -> shape."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    @property
    def conversion(self) -> str | None:
        """What `float32` changes, for people: ``313 tensors from float16``; None if nothing."""
        dtypes = Counter(
            str(t.dtype).removeprefix("torch.")
            for t in self.tensors.values()
            if t.is_floating_point() and t.dtype != torch.float32
        )
        parts = [f"{count} tensors from {dtype}" for dtype, count in sorted(dtypes.items())]
        return f"converted to float32: {', '.join(parts)}" if parts else None

    def float32(self) -> dict[str, torch.Tensor]:
        """The tensors with floating-point ones as contiguous float32; copies only what differs.

        Raises:
            CheckpointError: a float64 value does not fit float32.
        """
        changed = {
            name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in self.tensors.items()
        }
        wide = [name for name, tensor in self.tensors.items() if tensor.dtype == torch.float64]
        lost = [name for name in wide if not _all_finite(changed[name])]
        if lost:
            raise CheckpointError(
                f"{len(lost)} tensors hold float64 values beyond the range of float32: "
                f"{listing(lost)}"
            )
        return changed


def read_checkpoint(path: str | PathLike[str]) -> RawCheckpoint:
    """Read a checkpoint written by ``torch.save`` or in the safetensors format.

    No code in the file is run. The format is told by the content, not by the name.

    Args:
        path: the file.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, or anything in it but finite
            tensors of float32, float16, bfloat16 or float64 and plain values beside them.
    """
    file = Path(path)
    try:
        kind, content = _load(file)
        digest = _sha256(file)
        size = file.stat().st_size
    except OSError as exc:
        raise CheckpointError(f"cannot read {file}: {exc.strerror or exc}") from exc
    return _checked(content, file.name, size, kind, digest, file)


def from_state_dict(state: Mapping[str, object]) -> RawCheckpoint:
    """Take over a state dict in memory, with the checks of a file; tensors go to the CPU.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    content: dict[object, object] = {key: _on_cpu(value) for key, value in state.items()}
    return _checked(content, "the state dict", None, "memory", None, None)


def _on_cpu(value: object) -> object:
    if isinstance(value, torch.Tensor) and value.device.type not in ("cpu", "meta"):
        return value.detach().cpu()
    return value


def _load(file: Path) -> tuple[str, Mapping[object, object]]:
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder, expected a checkpoint file")
    if not file.exists():
        raise CheckpointError(f"{file} does not exist, expected a checkpoint file")
    if not file.is_file():
        raise CheckpointError(f"{file} is not a regular file, expected a checkpoint file")
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise CheckpointError(f"{file.name} is empty, expected a checkpoint file")
    if is_zip(head):
        return "pytorch", load_zip(file)
    if is_legacy(head):
        return "pytorch", load_legacy(file)
    if is_safetensors(head):
        return "safetensors", load_safetensors(file)
    raise CheckpointError(
        f"{file.name} is not a checkpoint: it begins with {head[:8]!r}; expected a file of "
        f"torch.save or safetensors{_advice(head)}"
    )


def _advice(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "; this is a Git LFS pointer, fetch the file itself with git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "; this is a web page, the download failed"
    if head[:1] == b"\x80":
        return "; this is a bare pickle, save the weights with torch.save(model.state_dict(), path)"
    return ""


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _checked(
    content: Mapping[object, object],
    where: str,
    size: int | None,
    kind: str,
    digest: str | None,
    file: Path | None,
) -> RawCheckpoint:
    found = unwrap(content)
    tensors = {name: tensor.detach() for name, tensor in found.tensors.items()}
    _check_kinds(where, tensors)
    if size is not None:
        _check_sizes(where, tensors, size)
    _check_finite(where, tensors)
    return RawCheckpoint(tensors, found.wrapper, found.ignored, kind, digest, file)


def _check_kinds(where: str, tensors: Mapping[str, torch.Tensor]) -> None:
    bad = []
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        counter = tensor.dtype == torch.int64 and name.endswith(_COUNTER)
        if not plain or not (tensor.dtype in _FLOATS or counter):
            kind = str(tensor.dtype if plain else tensor.layout).removeprefix("torch.")
            kind = "meta" if tensor.device.type == "meta" else kind
            bad.append(f"{name} ({kind})")
    if bad:
        raise CheckpointError(
            f"{where} has {len(bad)} tensors of unsupported types: {listing(bad)}; expected "
            "float32, float16, bfloat16 or float64 (int64 for num_batches_tracked): save plain "
            "weights, not quantised, sparse or meta ones"
        )


def _check_sizes(where: str, tensors: Mapping[str, torch.Tensor], size: int) -> None:
    """Refuse views that unfold a few stored bytes into many."""
    total, bad = 0, []
    for name, tensor in tensors.items():
        claimed = tensor.numel() * tensor.element_size()
        total += claimed
        if claimed > tensor.untyped_storage().nbytes():
            bad.append(name)
    if bad or total > _SHARED_AT_MOST * size:
        which = listing(bad) or "all together"
        raise CheckpointError(
            f"{where} has tensors that claim more than the file holds ({size} bytes): {which}; "
            "save the weights as contiguous tensors"
        )


def _check_finite(where: str, tensors: Mapping[str, torch.Tensor]) -> None:
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not _all_finite(tensor)
    ]
    if bad:
        raise CheckpointError(
            f"{where} has NaN or infinite values in {len(bad)} of {len(tensors)} tensors: "
            f"{listing(bad)}; the training may have diverged, or the file is damaged"
        )


def _all_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite: their sum tells, unless it overflows by itself."""
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
