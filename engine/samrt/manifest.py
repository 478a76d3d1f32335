"""The manifest of a model bundle as typed, frozen values.

Everything that is particular to one model is data here; the engine has no branch on the family.
:func:`parse_manifest` checks the document against ``manifest_schema_v1.json`` and then for
contradictions, and reports all problems at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from samrt.errors import BundleError
from samrt.manifest_artifacts import Artifact, TensorSpec, artifact_problems, read_artifact
from samrt.schema import problems as schema_problems

__all__ = [
    "SCHEMA_VERSION",
    "Artifact",
    "InputSpec",
    "Manifest",
    "OutputSpec",
    "PromptSpec",
    "TensorSpec",
    "parse_manifest",
]

SCHEMA_VERSION = 1
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How an image becomes the encoder's input.

    ``size`` is the model frame ``(S_h, S_w)``. ``resize_kind``: ``longest_side`` keeps the
    aspect ratio and pads, ``stretch`` fills the frame. ``normalize_kind``: ``mean_std`` computes
    ``(x * scale - mean) / std`` of 0..255 values, ``min_max`` maps the resized image to 0..1.
    """

    size: tuple[int, int]
    resize_kind: str
    interpolation: str
    pad_mode: str
    pad_value: float
    pad_before_normalize: bool
    normalize_kind: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float
    channel_order: str
    dtype: str


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """Which prompts the model takes and how they are written into the decoder's input.

    ``padding_point``: a prompt without a box ends with one point of label -1, as in SAM.
    ``padding_inert``: further points of label -1 do not change the result at all, so prompts of
    different lengths may share a decoder call. In SAM's own decoder they do change it.
    """

    box: bool
    points: bool
    negative_points: bool
    mask: bool
    box_and_points: bool
    box_transform: str
    max_points: int | None
    padding_point: bool
    padding_inert: bool


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How low-resolution maps become masks.

    ``mask_choice`` is what ranks masks. ``single_mask`` says which one answers when one mask is
    asked for: ``index`` takes ``single_mask_index`` as SAM does, ``best`` the highest of all.
    """

    low_res_size: tuple[int, int]
    num_masks: int
    multimask_indices: tuple[int, ...]
    single_mask_index: int
    mask_choice: str
    threshold: float
    threshold_space: str
    resize_kind: str
    resize_interpolation: str
    stability_offset: float
    single_mask: str = "index"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The checked content of ``manifest.json``; free-form records stay plain mappings."""

    schema_version: int
    name: str
    family: str
    variant: str
    precision: str
    input: InputSpec
    prompts: PromptSpec
    output: OutputSpec
    artifacts: tuple[Artifact, ...]
    source: Mapping[str, Any]
    producer: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    parity: Mapping[str, Any] | None


@cache
def _schema() -> dict[str, Any]:
    text = resources.files("samrt").joinpath("manifest_schema_v1.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def parse_manifest(document: object, *, where: str = "manifest") -> Manifest:
    """Turn the decoded JSON of a manifest into a :class:`Manifest`.

    Args:
        document: result of ``json.loads``.
        where: name used in the error message.

    Raises:
        BundleError: another schema version, or any problem; all problems are listed.
    """
    if isinstance(document, dict):
        version = document.get("schema_version")
        if type(version) is int and version != SCHEMA_VERSION:
            advice = "update samrt" if version > SCHEMA_VERSION else "export the model again"
            raise BundleError(
                f"{where} has schema version {version}, this samrt reads version "
                f"{SCHEMA_VERSION}: {advice}"
            )
    found = schema_problems(document, _schema())
    if found or not isinstance(document, dict):
        raise BundleError(_listing(where, found))
    manifest = _build(document)
    found = list(_contradictions(manifest, document))
    if found:
        raise BundleError(_listing(where, found))
    return manifest


def _listing(where: str, found: Sequence[str]) -> str:
    shown = "; ".join(found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    noun = "problem" if len(found) == 1 else "problems"
    return f"{where} has {len(found)} {noun}: {shown}{more}; export the model again"


def _build(doc: Mapping[str, Any]) -> Manifest:
    return Manifest(
        schema_version=doc["schema_version"],
        name=doc["name"],
        family=doc["family"],
        variant=doc["variant"],
        precision=doc["precision"],
        input=_input(doc["input"]),
        prompts=_prompts(doc["prompts"]),
        output=_output(doc["output"]),
        artifacts=tuple(read_artifact(item) for item in doc["artifacts"]),
        source=dict(doc["source"]),
        producer=dict(doc["producer"]),
        calibration=doc.get("calibration"),
        parity=doc.get("parity"),
    )


def _input(doc: Mapping[str, Any]) -> InputSpec:
    pad, normalize = doc["pad"], doc["normalize"]
    mean, std = normalize.get("mean", [0.0] * 3), normalize.get("std", [1.0] * 3)
    return InputSpec(
        size=(doc["size"][0], doc["size"][1]),
        resize_kind=doc["resize"]["kind"],
        interpolation=doc["resize"]["interpolation"],
        pad_mode=pad["mode"],
        pad_value=float(pad.get("value", 0.0)),
        pad_before_normalize=pad.get("when", "after_normalize") == "before_normalize",
        normalize_kind=normalize["kind"],
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        scale=float(normalize.get("scale", 1.0)),
        channel_order=doc["channel_order"],
        dtype=doc["dtype"],
    )


def _prompts(doc: Mapping[str, Any]) -> PromptSpec:
    return PromptSpec(
        box=doc["box"],
        points=doc["points"],
        negative_points=doc["negative_points"],
        mask=doc["mask"],
        box_and_points=doc["box_and_points"],
        box_transform=doc.get("box_transform", "scale"),
        max_points=doc.get("max_points"),
        padding_point=doc.get("padding_point", True),
        padding_inert=doc.get("padding_inert", False),
    )


def _output(doc: Mapping[str, Any]) -> OutputSpec:
    resize = doc.get("resize", {"kind": "two_step", "interpolation": "bilinear"})
    return OutputSpec(
        low_res_size=(doc["low_res_size"][0], doc["low_res_size"][1]),
        num_masks=doc["num_masks"],
        multimask_indices=tuple(doc["multimask_indices"]),
        single_mask_index=doc["single_mask_index"],
        mask_choice=doc.get("mask_choice", "predicted_iou"),
        threshold=float(doc["threshold"]),
        threshold_space=doc.get("threshold_space", "logits"),
        resize_kind=resize["kind"],
        resize_interpolation=resize["interpolation"],
        stability_offset=float(doc.get("stability_offset", 1.0)),
        single_mask=doc.get("single_mask", "index"),
    )


def _contradictions(manifest: Manifest, doc: Mapping[str, Any]) -> Sequence[str]:
    found: list[str] = []
    spec, out = manifest.input, manifest.output
    given = doc["input"]["normalize"]
    if spec.normalize_kind == "mean_std":
        found += [f"input.normalize.{k}: missing" for k in ("mean", "std") if k not in given]
    if spec.resize_kind == "longest_side" and spec.pad_mode == "none":
        found.append("input.pad.mode: 'none' leaves the frame unfilled with resize longest_side")
    prompts = manifest.prompts
    if not (prompts.box or prompts.points or prompts.mask):
        found.append("prompts: the model takes no prompt at all")
    if prompts.box_and_points and not (prompts.box and prompts.points):
        found.append("prompts.box_and_points: true although box or points is false")
    for index in (*out.multimask_indices, out.single_mask_index):
        if index >= out.num_masks:
            found.append(f"output: mask index {index} with num_masks {out.num_masks}")
    if out.threshold_space == "probability" and not 0.0 <= out.threshold <= 1.0:
        found.append(f"output.threshold: {out.threshold} is not a probability")
    found += artifact_problems(manifest)
    return found
