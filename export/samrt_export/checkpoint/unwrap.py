"""Take off what training code wraps around a state dict: dictionaries and prefixes of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from samrt_export.checkpoint.errors import CheckpointError, listing, shown

__all__ = ["PREFIXES", "WRAPPERS", "Unwrapped", "unwrap"]

WRAPPERS = ("model", "model_state", "state_dict", "model_state_dict", "module", "net")
"""Keys of dictionaries that hold a state dict, e.g. ``{"model": ..., "optimizer": ...}``."""

PREFIXES = ("module.", "_orig_mod.", "model.", "sam.")
"""Prefixes of parameter names: DataParallel, torch.compile, Lightning, micro-sam."""

_MAX_LAYERS = 8


@dataclass(frozen=True)
class Unwrapped:
    """A state dict without wrappers.

    Attributes:
        tensors: parameter name -> tensor, in the order of the file.
        wrapper: what was taken off, outermost first and joined by `` > ``, such as
            ``model > module.``; ``none`` if nothing was.
        ignored: names of entries beside the state dict, such as ``optimizer`` or ``epoch``.
    """

    tensors: dict[str, torch.Tensor]
    wrapper: str
    ignored: tuple[str, ...]


def unwrap(content: Mapping[object, object]) -> Unwrapped:
    """Find the state dict in the content of a checkpoint.

    Wrapping dictionaries (`WRAPPERS`) and prefixes shared by all names (`PREFIXES`) are taken
    off in whatever order they come, so ``{"model": {"module.sam.x": ...}}`` gives ``x``.

    Args:
        content: the decoded checkpoint: names -> tensors, or names -> dictionaries.

    Raises:
        CheckpointError: there are no tensors, several state dicts, wrappers without end, or
            values that are not tensors under names of parameters.
    """
    layers: list[str] = []
    ignored: list[str] = []
    current = content
    for _ in range(_MAX_LAYERS):
        inner = _wrapped(current)
        if inner is not None:
            ignored += [
                ".".join([*_folders(layers), shown(key)]) for key in current if key != inner
            ]
            layers.append(inner)
            value = current[inner]
            current = value if isinstance(value, Mapping) else {}
            continue
        prefix = _shared_prefix(current)
        if prefix is None:
            tensors, extra = _split(current)
            ignored += [".".join([*_folders(layers), name]) for name in extra]
            return Unwrapped(tensors, " > ".join(layers) or "none", tuple(ignored))
        layers.append(prefix)
        current = {_without(key, prefix): value for key, value in current.items()}
    raise CheckpointError(
        f"checkpoint is wrapped more than {_MAX_LAYERS} times ({' > '.join(layers)}): save the "
        "state dict itself with torch.save(model.state_dict(), path)"
    )


def _folders(layers: list[str]) -> list[str]:
    return [layer for layer in layers if not layer.endswith(".")]


def _wrapped(content: Mapping[object, object]) -> str | None:
    """The key of the one dictionary that holds the state dict; None if this level holds it."""
    if any(isinstance(value, torch.Tensor) and _dotted(key) for key, value in content.items()):
        return None
    found = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
    if len(found) > 1:
        raise CheckpointError(
            f"checkpoint holds several state dicts ({', '.join(found)}): save the one you want "
            "by itself with torch.save(model.state_dict(), path)"
        )
    return found[0] if found else None


def _dotted(key: object) -> bool:
    return isinstance(key, str) and "." in key


def _shared_prefix(content: Mapping[object, object]) -> str | None:
    names = [key for key, value in content.items() if isinstance(value, torch.Tensor)]
    for prefix in PREFIXES:
        if names and all(isinstance(n, str) and n.startswith(prefix) for n in names):
            return prefix
    return None


def _without(key: object, prefix: str) -> object:
    return key.removeprefix(prefix) if isinstance(key, str) else key


def _split(content: Mapping[object, object]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors by name, and the names of entries that are no parameters."""
    tensors: dict[str, torch.Tensor] = {}
    extra: list[str] = []
    wrong: list[str] = []
    for key, value in content.items():
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            tensors[key] = value
        elif isinstance(value, torch.Tensor) or _dotted(key):
            wrong.append(f"{shown(key)} ({type(value).__name__})")
        else:
            extra.append(shown(key))
    if wrong:
        raise CheckpointError(
            f"checkpoint has {len(wrong)} entries that are not named tensors: {listing(wrong)}; "
            "expected a state dict of tensors as torch.save(model.state_dict(), path) writes it"
        )
    if not tensors:
        there = f"only {listing(extra)}" if extra else "nothing at all"
        raise CheckpointError(
            f"checkpoint holds no model weights, {there}; expected a state dict, or one under "
            f"{', '.join(repr(name) for name in WRAPPERS[:3])}"
        )
    return tensors, extra
