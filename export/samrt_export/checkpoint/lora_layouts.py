"""Which low-rank pairs an adapter file holds, and which weights of the base they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["Adapter", "Delta", "is_peft", "read_flat", "read_peft", "split_wrapped"]

State = Mapping[str, torch.Tensor]

MODULES = ("prompt_encoder.", "mask_decoder.transformer.", "mask_decoder.")
"""Parts of SAM that SAMed stores whole, the more special name first."""

_QKV = "image_encoder.blocks.{}.attn.qkv.weight"
_LAYER = "mask_decoder.transformer.layers.{}."
_FINAL_ATTENTION = "mask_decoder.transformer.final_attn_token_to_image."
_DECODER_LISTS = {
    "sa": "self_attn",
    "cti": "cross_attn_token_to_image",
    "cit": "cross_attn_image_to_token",
}
_THIRDS = {
    "q": 0, "q_proj": 0, "query": 0,
    "k": 1, "k_proj": 1, "key": 1,
    "v": 2, "v_proj": 2, "value": 2,
}  # fmt: skip
_FLAT = re.compile(r"(w|sa|cti|cit)_([ab])_([0-9]{1,6})")
_FINAL = re.compile(r"fati_([qv])([ab])")
_PEFT = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight")
_LINEAR = re.compile(r"(.+\.attn)\.qkv\.(?:linear_([ab])|w_([ab])_linear)_([qv])\.weight")


@dataclass(frozen=True)
class Delta:
    """B @ A, to be added to a weight, or to one of the three thirds of its rows (q, k, v)."""

    weight: str
    third: int | None
    a: torch.Tensor
    b: torch.Tensor
    label: str


@dataclass(frozen=True)
class Adapter:
    """What an adapter file holds: pairs, tensors that replace the base's, and what is wrong."""

    deltas: list[Delta]
    carried: dict[str, torch.Tensor]
    problems: list[str]


def is_peft(names: Mapping[str, object]) -> bool:
    """Whether any name is one of PEFT's."""
    return any(_PEFT.fullmatch(name) for name in names)


def read_flat(base: State, adapter: State) -> Adapter:
    """SAMed's and Sam_LoRA's layout: ``w_a_000, w_b_000, ...`` and whole modules."""
    pairs: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    found = Adapter([], {}, [])
    for name, tensor in adapter.items():
        flat, final = _FLAT.fullmatch(name), _FINAL.fullmatch(name)
        if flat:
            pairs.setdefault((flat.group(1), int(flat.group(3))), {})[flat.group(2)] = tensor
        elif final:
            key = ("fati", "qv".index(final.group(1)))
            pairs.setdefault(key, {})[final.group(2)] = tensor
        elif name.startswith(MODULES):
            found.carried[name] = tensor
        else:
            found.problems.append(f"unknown tensor {name}")
    units = {"w": (_count(base, _QKV), "blocks"), "fati": (1, "attention")}
    layers = (_count(base, f"{_LAYER}self_attn.q_proj.weight"), "decoder layers")
    for kind in ("w", *(k for k in (*_DECODER_LISTS, "fati") if any(k == p for p, _ in pairs))):
        have = sorted(number for name, number in pairs if name == kind)
        count, what = units.get(kind, layers)
        if have != list(range(2 * count)) or not count:
            found.problems.append(
                f"{len(have)} pairs {kind}_a, {kind}_b for {count} {what} of the base, expected "
                f"{2 * count} (query and value of each)"
            )
    for (kind, number), pair in pairs.items():
        label = f"{kind}_{number:03d}"
        weight, third = _flat_target(kind, number)
        if pair.keys() != {"a", "b"}:
            found.problems.append(f"{label} has {next(iter(pair)).upper()} without its counterpart")
        elif weight in base:
            found.deltas.append(Delta(weight, third, pair["a"], pair["b"], label))
    return found


def _flat_target(kind: str, number: int) -> tuple[str, int | None]:
    """The weight, and the third of its rows, of number ``number`` in a list: q, v, q, v, ..."""
    if kind == "w":
        return _QKV.format(number // 2), 2 * (number % 2)
    projection = f"{'qv'[number % 2]}_proj.weight"
    if kind == "fati":
        return f"{_FINAL_ATTENTION}{projection}", None
    return f"{_LAYER.format(number // 2)}{_DECODER_LISTS[kind]}.{projection}", None


def _count(base: State, pattern: str) -> int:
    count = 0
    while pattern.format(count) in base:
        count += 1
    return count


def read_peft(base: State, adapter: State) -> Adapter:
    """PEFT's layout: ``base_model.model.PATH.lora_A.weight`` and ``modules_to_save``."""
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    found = Adapter([], {}, [])
    for name, tensor in adapter.items():
        plain = name.removeprefix("base_model.model.")
        match = _PEFT.fullmatch(plain)
        if match:
            pairs.setdefault(match.group(1), {})[match.group(2)] = tensor
            continue
        kept = re.sub(r"\.modules_to_save(\.default)?\.", ".", plain)
        target = next((n for n in (kept, f"image_encoder.{kept}") if n in base), None)
        if target is None:
            found.problems.append(f"unknown tensor {name}")
        elif base[target].shape != tensor.shape:
            sizes = f"{tuple(tensor.shape)}, the base has {tuple(base[target].shape)}"
            found.problems.append(f"{name} has shape {sizes}")
        else:
            found.carried[target] = tensor
    for path, pair in pairs.items():
        place = _peft_target(base, path)
        if place is None:
            found.problems.append(f"{path} is no linear layer of the base")
        elif pair.keys() != {"A", "B"}:
            found.problems.append(f"{path}.lora_{next(iter(pair))} is without its counterpart")
        else:
            found.deltas.append(Delta(*place, pair["A"], pair["B"], path))
    return found


def _peft_target(base: State, path: str) -> tuple[str, int | None] | None:
    parent, _, leaf = path.rpartition(".")
    for start in ("", "image_encoder."):
        if f"{start}{path}.weight" in base:
            return f"{start}{path}.weight", None
        if leaf in _THIRDS and f"{start}{parent}.qkv.weight" in base:
            return f"{start}{parent}.qkv.weight", _THIRDS[leaf]
    return None


def split_wrapped(state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], bool]:
    """A model saved with its adapters inside, as base and adapter in the layout of PEFT.

    Returns:
        SAM's own tensors under SAM's names; the adapters; whether they are PEFT's, whose scale
        is not 1.
    """
    base: dict[str, torch.Tensor] = {}
    adapter: dict[str, torch.Tensor] = {}
    scaled = False
    for name, tensor in state.items():
        linear = _LINEAR.fullmatch(name)
        if linear:
            path, first, second, part = linear.groups()
            adapter[f"{path}.{part}.lora_{(first or second).upper()}.weight"] = tensor
        elif ".lora_" in name:
            adapter[name] = tensor
            scaled = True
        else:
            plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            base[re.sub(r"\.attn\.qkv\.(qkv|qkv_proj)\.", ".attn.qkv.", plain)] = tensor
    return base, adapter, scaled
