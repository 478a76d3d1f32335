"""Checkpoints as networks: read, identify, check every key, fit to a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from samrt.errors import OptionError
from samrt.manifest import Manifest, parse_manifest
from samrt_export.checkpoint import (
    CheckpointError,
    RawCheckpoint,
    compare_keys,
    from_state_dict,
    identify,
    merge_lora,
    merge_wrapped_lora,
    read_checkpoint,
)
from samrt_export.families import EMBEDDING, Family, Frame, family_named
from samrt_export.manifests import artifact, document
from samrt_export.reference_model import TorchModel

__all__ = ["Loaded", "Size", "Source", "load_network", "load_reference"]

Source = str | PathLike[str] | Mapping[str, Any] | nn.Module
Size = tuple[int, int]


@dataclass
class Loaded:
    """A checkpoint as a network of its family.

    Attributes:
        family, variant, frame: what it is, and the frame that it was fitted to.
        network: torch modules with the weights, float32, in evaluation mode.
        checkpoint: what was read.
        remarks: what a user should know, such as prefixes taken off or a conversion.
    """

    family: Family
    variant: str
    frame: Frame
    network: Any
    checkpoint: RawCheckpoint
    remarks: tuple[str, ...]


def load_network(
    source: Source,
    *,
    family: str | None = None,
    base: Source | None = None,
    lora_alpha: float | None = None,
    image_size: Size | None = None,
    crop_padding: Size | None = None,
) -> Loaded:
    """Read a checkpoint and build its network.

    Args:
        source: path of a checkpoint; or a state dict; or a module with SAM's parts, such as a
            ``segment_anything`` ``Sam``.
        family: name of a family, where the keys fit several; ``None`` asks the keys.
        base: the checkpoint that a LoRA adapter was trained on.
        lora_alpha: numerator of a PEFT adapter's scale; its ``adapter_config.json`` has it.
        image_size: `(S_h, S_w)` of another input frame; position tables are interpolated.
        crop_padding: `(S_h, S_w)` of the part of the frame to encode.

    Raises:
        CheckpointError: not a readable checkpoint, or its keys do not fit; all are listed.
        OptionError: unknown family, or a frame that the family does not allow.
    """
    checkpoint = _read(source)
    found = identify(checkpoint.shapes)
    remarks: list[str] = []
    tensors: Mapping[str, Tensor] = checkpoint.tensors
    layout = found.variant if found.family == "sam_lora" else None
    if layout == "wrapped":
        tensors = merge_wrapped_lora(checkpoint.float32(), alpha=lora_alpha)
        remarks.append("LoRA layers merged into the weights they wrap")
        found = identify({name: tuple(t.shape) for name, t in tensors.items()})
    elif layout is not None:
        if base is None:
            raise OptionError(
                f"this checkpoint is a LoRA adapter (layout {layout}): also give the checkpoint "
                "it was trained on (--base sam_vit_b_01ec64.pth)"
            )
        below = _read(base)
        tensors = merge_lora(below.float32(), checkpoint.float32(), alpha=lora_alpha)
        remarks.append(f"LoRA adapter merged into {below.path or 'the base'}")
        found = identify({name: tuple(t.shape) for name, t in tensors.items()})
    elif base is not None:
        raise OptionError(f"a base was given, but this checkpoint is a whole {found.family} model")
    name = family or ("samed" if layout == "samed" else found.family)
    kind = family_named(name)
    variant = found.variant if found.variant in kind.variants else kind.variants[0]
    own = _size(found.facts.get("image_size")) if kind.any_whole else kind.whole
    expected = kind.shapes(variant, Frame(own, "native", own))
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    compare_keys(expected, shapes, kind.ignorable).raise_if_bad(f"{name} {variant}")
    if found.also_fits and family is None:
        others = ", ".join(found.also_fits)
        remarks.append(
            f"taken for {name}; the same keys also fit {others}: name it with --family if it is one"
        )
    if checkpoint.wrapper != "none":
        remarks.append(f"wrapper taken off: {checkpoint.wrapper}")
    if checkpoint.conversion:
        remarks.append(checkpoint.conversion)
    try:
        frame = kind.frame(image_size, crop_padding, own)
    except ValueError as exc:
        raise OptionError(str(exc)) from None
    wanted = {key: tensor for key, tensor in tensors.items() if key in expected}
    state = kind.adapt({k: _float(t) for k, t in wanted.items()}, variant, frame)
    with torch.device("meta"):
        network = kind.build(variant, frame)
    network.load_state_dict(state, assign=True)
    _check_filled(network)
    return Loaded(kind, variant, frame, network.eval(), checkpoint, tuple(remarks))


def _size(value: object) -> Size:
    if isinstance(value, tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise CheckpointError("the checkpoint's position tables do not tell its input size")


def _read(source: Source) -> RawCheckpoint:
    if isinstance(source, nn.Module):
        return from_state_dict(source.state_dict())
    if isinstance(source, Mapping):
        return from_state_dict(source)
    return read_checkpoint(source)


def _float(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def _check_filled(network: nn.Module) -> None:
    """A buffer left on the meta device would be garbage in the graph."""
    left = [
        name for name, t in [*network.named_parameters(), *network.named_buffers()] if t.is_meta
    ]
    if left:
        raise RuntimeError(f"parts of the network have no values: {', '.join(left[:8])}")


def load_reference(
    source: Source,
    *,
    family: str | None = None,
    base: Source | None = None,
    lora_alpha: float | None = None,
    image_size: Size | None = None,
    crop_padding: Size | None = None,
    threads: int | None = None,
) -> TorchModel:
    """The torch network of a checkpoint behind samrt's own pre- and postprocessing.

    Raises: as `load_network`.
    """
    loaded = load_network(
        source,
        family=family,
        base=base,
        lora_alpha=lora_alpha,
        image_size=image_size,
        crop_padding=crop_padding,
    )
    path = loaded.checkpoint.path
    return TorchModel(
        loaded.network,
        _rules_only(loaded),
        checkpoint=path or "",
        sha256=loaded.checkpoint.sha256 or "",
        threads=threads,
    )


def _rules_only(loaded: Loaded) -> Manifest:
    return parse_manifest(plain_document(loaded))


def plain_document(loaded: Loaded) -> dict[str, Any]:
    """The manifest of a bundle that is not written: real rules, nominal artifacts."""
    spec = loaded.family.rules(loaded.variant, loaded.frame)
    low, count = spec["output"]["low_res_size"], spec["output"]["num_masks"]
    features = {EMBEDDING: (1, 256, 1, 1)}
    parts = [
        artifact("encoder", "encoder.onnx", 17, _encoder_inputs(loaded.frame), features),
        artifact("decoder", "decoder.onnx", 17, _decoder_inputs(features, spec), {
            "low_res_masks": ("N", count, *low), "iou_predictions": ("N", count),
        }),
    ]  # fmt: skip
    return document(loaded, spec, parts, "reference", None)


def _encoder_inputs(frame: Frame) -> dict[str, tuple[int | str, ...]]:
    return {"image": (1, 3, *frame.size)}


def _decoder_inputs(
    features: Mapping[str, tuple[int | str, ...]], spec: Mapping[str, Any]
) -> dict[str, tuple[int | str, ...]]:
    inputs: dict[str, tuple[int | str, ...]] = {**features}
    prompts = spec["prompts"]
    if prompts["box"] or prompts["points"]:
        inputs["point_coords"], inputs["point_labels"] = ("N", "P", 2), ("N", "P")
    if prompts["mask"]:
        inputs["mask_input"] = ("N", 1, *spec["output"]["low_res_size"])
        inputs["has_mask_input"] = ("N",)
    return inputs
