"""The manifest of a model bundle as typed, frozen values.

Everything that is particular to one model is data here; the engine has no branch on the family.
:func:`parse_manifest` checks the document against ``manifest_schema_v1.json`` and then for
contradictions, and reports all problems at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
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


def _later(default: Any) -> Any:
    """A rule that version 1 got later: a manifest without it keeps its meaning and its digest."""
    return field(default=default, metadata={"later": True})


class _Rules:
    """Base of the rules: later ones are left out of ``repr`` where they say nothing new.

    :attr:`samrt.bundle.Bundle.sha256` is made from ``repr``.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if not (item.metadata.get("later") and value == item.default):
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, repr=False)
class InputSpec(_Rules):
    """How an image becomes the encoder's input.

    ``size`` is the model frame ``(S_h, S_w)``. ``resize_kind``: ``longest_side`` keeps the
    aspect ratio and pads, ``stretch`` fills the frame. ``interpolation``, ``rounding``, ``via``
    and ``divisor`` are those of :func:`samrt._kernels.preprocess`: ``rounding`` ``nearest`` and
    ``truncate`` make a picture of whole numbers 0..255, which is then divided by ``divisor``;
    with ``none`` the picture is divided first and stays float. ``normalize_kind``: ``mean_std``
    computes ``(x * scale - mean) / std``, ``min_max`` maps the resized image to 0..1.
    ``cropped_from`` is the frame that the model was made for, where ``size`` is only its upper
    left part.
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
    rounding: str = _later("nearest")
    via: tuple[tuple[int, int], ...] = _later(())
    divisor: float = _later(1.0)
    cropped_from: tuple[int, int] | None = _later(None)


@dataclass(frozen=True, slots=True, repr=False)
class PromptSpec(_Rules):
    """Which prompts the model takes and how they are written into the decoder's input.

    ``box_transform``: see :func:`samrt.geometry.box_to_frame`.
    ``padding_point``: a prompt without a box ends with one point of label -1, as in SAM.
    ``padding_inert``: further points of label -1 do not change the result at all, so prompts of
    different lengths may share a decoder call. In SAM's own decoder they do change it.
    ``pad_to``: every prompt is filled up to this many rows with points of label -1 and may not
    have more; a box counts as two.
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
    pad_to: int | None = _later(None)

    @property
    def takes_prompts(self) -> bool:
        """Whether there is anything to ask; if not, the model segments the whole image."""
        return self.box or self.points or self.mask


@dataclass(frozen=True, slots=True, repr=False)
class OutputSpec(_Rules):
    """How low-resolution maps become masks.

    ``kind``: ``masks`` are independent candidates, ``classes`` compete for every pixel: see
    :mod:`samrt.classes`. ``mask_choice`` is what ranks masks: ``predicted_iou`` or ``stability``.
    ``multimask`` says what several masks are: all ``candidates`` of ``multimask_indices``, or the
    ``best`` of them. ``single_mask`` says which one answers when one mask is asked for: ``index``
    takes ``single_mask_index`` as SAM does, ``best`` the highest of all, ``best_candidate`` the
    highest of ``multimask_indices``. ``logit_limit`` clips the returned logits, not the masks, to
    plus and minus this.
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
    kind: str = _later("masks")
    multimask: str = _later("candidates")
    logit_limit: float | None = _later(None)


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
    calibration: Mapping[str, Any] | None = field(repr=False)
    parity: Mapping[str, Any] | None = field(repr=False)


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
    whole = doc.get("cropped_from")
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
        rounding=doc["resize"].get("rounding", "nearest"),
        via=tuple((size[0], size[1]) for size in doc["resize"].get("via", ())),
        divisor=float(normalize.get("divisor", 1.0)),
        cropped_from=None if whole is None else (whole[0], whole[1]),
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
        pad_to=doc.get("pad_to"),
    )


def _output(doc: Mapping[str, Any]) -> OutputSpec:
    resize = doc.get("resize", {"kind": "two_step", "interpolation": "bilinear"})
    limit = doc.get("logit_limit")
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
        kind=doc.get("kind", "masks"),
        multimask=doc.get("multimask", "candidates"),
        logit_limit=None if limit is None else float(limit),
    )


def _contradictions(manifest: Manifest, doc: Mapping[str, Any]) -> list[str]:
    found = _input_problems(manifest.input, doc["input"]["normalize"])
    found += _prompt_problems(manifest.prompts, manifest.input, manifest.output)
    found += _output_problems(manifest.output)
    return found + artifact_problems(manifest)


def _input_problems(spec: InputSpec, normalize: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    spline = spec.interpolation.startswith("bspline")
    if spec.normalize_kind == "mean_std":
        found += [f"input.normalize.{k}: missing" for k in ("mean", "std") if k not in normalize]
    if spec.resize_kind == "longest_side" and spec.pad_mode == "none":
        found.append("input.pad.mode: 'none' leaves the frame unfilled with resize longest_side")
    if spec.rounding == "truncate" and not spline:
        found.append(f"input.resize.rounding: 'truncate' does not exist for {spec.interpolation}")
    whole = spec.cropped_from
    if whole and (whole[0] < spec.size[0] or whole[1] < spec.size[1]):
        found.append(f"input.cropped_from: {whole} does not hold the frame {spec.size}")
    if whole and spec.resize_kind != "longest_side":
        found.append("input.cropped_from: needs resize longest_side, there is no padding otherwise")
    if spec.via and not (spline and spec.rounding == "none"):
        found.append("input.resize.via: needs a bspline interpolation and rounding 'none'")
    return found


def _prompt_problems(prompts: PromptSpec, spec: InputSpec, out: OutputSpec) -> list[str]:
    found: list[str] = []
    if not prompts.takes_prompts and out.kind == "masks":
        found.append("prompts: the model takes no prompt at all")
    if prompts.box_and_points and not (prompts.box and prompts.points):
        found.append("prompts.box_and_points: true although box or points is false")
    if prompts.box_transform == "truncate_longest" and spec.resize_kind != "longest_side":
        found.append("prompts.box_transform: 'truncate_longest' needs resize longest_side")
    if prompts.pad_to is not None:
        if prompts.padding_point:
            found.append("prompts.pad_to: padding_point must be false, the rows are padded anyway")
        if prompts.pad_to < (2 if prompts.box else 1) or prompts.pad_to < (prompts.max_points or 1):
            found.append(f"prompts.pad_to: {prompts.pad_to} rows do not hold the prompts it takes")
    return found


def _output_problems(out: OutputSpec) -> list[str]:
    found = [
        f"output: mask index {index} with num_masks {out.num_masks}"
        for index in (*out.multimask_indices, out.single_mask_index)
        if index >= out.num_masks
    ]
    probability = out.threshold_space == "probability"
    if probability and not 0.0 <= out.threshold <= 1.0:
        found.append(f"output.threshold: {out.threshold} is not a probability")
    if out.resize_interpolation == "bicubic" and out.resize_kind != "direct":
        found.append("output.resize: 'bicubic' takes one step, kind must be 'direct'")
    if out.kind == "classes":
        if out.num_masks < 2 or probability or out.resize_interpolation != "bilinear":
            found.append("output.kind: 'classes' needs num_masks 2 or more, logits and bilinear")
        if out.mask_choice != "predicted_iou":
            found.append("output.kind: 'classes' are ranked by score, not by stability")
    return found
