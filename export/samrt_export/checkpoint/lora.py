"""Merge low-rank adapters into the SAM weights they were trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from samrt_export.checkpoint.errors import CheckpointError, listing
from samrt_export.checkpoint.lora_layouts import (
    MODULES,
    Adapter,
    Delta,
    is_peft,
    read_flat,
    read_peft,
    split_wrapped,
)

__all__ = ["merge_lora", "merge_wrapped_lora"]

State = Mapping[str, torch.Tensor]

_ALPHA_MISSING = (
    "a PEFT adapter is scaled by lora_alpha / rank and its tensors do not tell lora_alpha: give "
    "alpha, it is lora_alpha in adapter_config.json"
)


def merge_lora(
    base: State, adapter: State, *, alpha: float | None = None
) -> dict[str, torch.Tensor]:
    """Add an adapter to SAM's weights: W + scale * B @ A, computed in float64, given as float32.

    Layouts, told by the names:

    - flat ``w_a_000``, ``w_b_000``, ... (SAMed's .pth, Sam_LoRA's .safetensors): number ``2 i`` is
      the query and ``2 i + 1`` the value of block ``i``, rows ``0:C`` and ``2C:3C`` of its ``qkv``.
      The scale is 1, as in the original code, unless ``alpha`` is given. Tensors of
      ``prompt_encoder`` and ``mask_decoder`` in the same file replace those of the base, also in
      other shapes (more mask tokens). SAMed's adapters of the mask decoder (``sa_``, ``cti_``,
      ``cit_``, ``fati_``) are merged too.
    - PEFT: ``base_model.model.[image_encoder.]blocks.0.attn.qkv.lora_A.weight`` and so on, for any
      linear layer of the base, or ``attn.q``, ``attn.v`` for a third of ``qkv``. The scale is
      ``alpha / rank``; ``alpha`` is ``lora_alpha`` in ``adapter_config.json``, not in the tensors,
      so it must be given. Assumed is plain LoRA: rsLoRA, whose scale differs, has the same
      tensors. Modules saved along (``modules_to_save``) replace those of the base.

    Args:
        base: parameter name -> tensor of the SAM model without wrappers; not changed.
        adapter: parameter name -> tensor of the adapter file.
        alpha: numerator of the scale; the rank of each pair is the denominator.

    Returns:
        A new state dict in the base's order, new names last; tensors that are not adapted are
        shared with ``base`` and ``adapter``.

    Raises:
        CheckpointError: no or half an adapter, another number of blocks, shapes that do not fit
            the base, unknown tensors, or a missing ``alpha``; all problems are listed.
    """
    if is_peft(adapter):
        if alpha is None:
            raise CheckpointError(_ALPHA_MISSING)
        found = read_peft(base, adapter)
        changed = {name: found.carried.get(name, tensor) for name, tensor in base.items()}
    else:
        found = read_flat(base, adapter)
        changed = _with_modules(base, found.carried)
    return _merged(base, changed, found, alpha)


def merge_wrapped_lora(state: State, *, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """Merge adapters that were saved inside the whole model, and give SAM's names back.

    Known are the wrappers of SAMed (``attn.qkv.qkv.weight`` beside
    ``attn.qkv.linear_a_q.weight``), of micro-sam (``qkv_proj``, ``w_a_linear_q``), both with scale
    1, and of PEFT (``attn.qkv.base_layer.weight`` beside ``attn.qkv.lora_A.default.weight``).

    Args:
        state: parameter name -> tensor; not changed.
        alpha: as for `merge_lora`.

    Raises:
        CheckpointError: as `merge_lora`.
    """
    base, adapter, scaled = split_wrapped(state)
    if scaled and alpha is None:
        raise CheckpointError(_ALPHA_MISSING)
    found = read_peft(base, adapter)
    return _merged(base, dict(base), found, alpha)


def _merged(
    base: State, changed: dict[str, torch.Tensor], found: Adapter, alpha: float | None
) -> dict[str, torch.Tensor]:
    problems = [*found.problems]
    for delta in found.deltas:
        problems += _shape_problems(base[delta.weight], delta)
    if not found.deltas and not problems:
        problems.append("it holds no low-rank pairs")
    if problems:
        raise CheckpointError(
            f"adapter does not fit the base model: {listing(problems, 12)}; was it trained on "
            "another model, or saved in part?"
        )
    for delta in found.deltas:
        scale = 1.0 if alpha is None else alpha / delta.a.shape[0]
        changed[delta.weight] = _added(changed[delta.weight], delta, scale)
    return changed


def _shape_problems(weight: torch.Tensor, delta: Delta) -> list[str]:
    a, b = delta.a, delta.b
    if weight.ndim != 2 or a.ndim != 2 or b.ndim != 2:
        return [f"{delta.label} is not a pair of matrices for a linear layer"]
    rows = weight.shape[0] if delta.third is None else weight.shape[0] // 3
    if a.shape[0] != b.shape[1] or a.shape[0] < 1:
        return [f"{delta.label} has rank {a.shape[0]} in A and {b.shape[1]} in B"]
    if (b.shape[0], a.shape[1]) != (rows, weight.shape[1]):
        return [
            f"{delta.label} makes {b.shape[0]}x{a.shape[1]}, but {delta.weight} takes "
            f"{rows}x{weight.shape[1]}"
        ]
    return []


def _added(weight: torch.Tensor, delta: Delta, scale: float) -> torch.Tensor:
    total = weight.detach().to(torch.float64, copy=True)
    rows = total
    if delta.third is not None:
        third = total.shape[0] // 3
        rows = total[delta.third * third : (delta.third + 1) * third]
    rows += scale * (delta.b.detach().double() @ delta.a.detach().double())
    return total.float()


def _with_modules(base: State, carried: State) -> dict[str, torch.Tensor]:
    """The base with whole modules replaced: none of a module's old tensors stays behind."""

    def module(name: str) -> str | None:
        return next((prefix for prefix in MODULES if name.startswith(prefix)), None)

    replaced = {module(name) for name in carried}
    changed = {
        name: carried.get(name, tensor)
        for name, tensor in base.items()
        if name in carried or module(name) is None or module(name) not in replaced
    }
    changed.update((name, tensor) for name, tensor in carried.items() if name not in changed)
    return changed
