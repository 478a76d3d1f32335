"""The gate: what an artefact has to reach before it is used, and who said so when it does not.

A *record* is what a comparison with the FP32 model has left: the manifest's ``parity`` for the
graphs of a bundle, the ``verification`` in the manifest of a compiled engine. It is judged again
each time it is read, by the thresholds here, so a record cannot pass by its own word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

from samrt.errors import OptionError, VerificationError
from samrt.manifest import Artifact, Manifest

__all__ = [
    "THRESHOLDS",
    "Thresholds",
    "Verdict",
    "admit",
    "graph_verdict",
    "judge_record",
    "parity_record",
    "remark",
    "thresholds_for",
]

State = Literal["passed", "refused", "unverified"]
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an artefact has to reach.

    Attributes:
        mask_iou_mean: mean IoU, over all masks and over the informative ones alone.
        mask_iou_worst: IoU of every mask that differs by more than ``slack_px`` pixels.
        embedding_rms_rel: worst relative error of an embedding; ``None``: not judged.
        slack_px: pixels by which a mask may differ whatever its size.
    """

    mask_iou_mean: float
    mask_iou_worst: float
    embedding_rms_rel: float | None = None
    slack_px: int = 2


THRESHOLDS: Mapping[str, Thresholds] = {
    "fp32": Thresholds(0.999, 0.99, embedding_rms_rel=1e-3),
    "fp16": Thresholds(0.998, 0.99),
    "int8": Thresholds(0.98, 0.93),
    "int8-weights": Thresholds(0.98, 0.93),
}


def thresholds_for(precision: str) -> Thresholds:
    """The thresholds of a precision.

    Raises:
        OptionError: there are none.
    """
    if precision not in THRESHOLDS:
        raise OptionError(
            f"no thresholds for precision {precision!r}: choose one of {', '.join(THRESHOLDS)}"
        )
    return THRESHOLDS[precision]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about the accuracy of something that can be loaded.

    Attributes:
        state: ``passed``, ``refused`` (below a threshold), or ``unverified`` (never compared).
        detail: what it was compared with, or what is wrong.
        mask_iou_mean: mean IoU against the reference's masks, 0..1; ``None`` if unknown.
        mask_iou_worst: the worst of them.
        override: it is used although it has not passed, because the caller asked for that.
    """

    state: State
    detail: str
    mask_iou_mean: float | None = None
    mask_iou_worst: float | None = None
    override: bool = False


def judge_record(
    record: object, precision: str, *, files: Mapping[str, str] | None = None
) -> Verdict:
    """Judge a record.

    Args:
        record: ``VerificationRecord.as_dict()`` or an older form of it; anything else is none.
        precision: decides the thresholds.
        files: role -> sha256 of what is to be used. A record that names other files says
            nothing about these.

    Raises:
        OptionError: a precision without thresholds.
    """
    limits = thresholds_for(precision)
    if not isinstance(record, Mapping):
        return Verdict("unverified", "it has not been compared with the FP32 model")
    if files is not None and not _is_about(record, files):
        return Verdict("unverified", "its record is about other files")
    mean, worst = _number(record.get("mask_iou_mean")), _number(record.get("mask_iou_worst"))
    found = _misses(record, limits)
    if record.get("passed", True) is not True:
        own = record.get("failures")
        told = [str(text) for text in own] if isinstance(own, list) else []
        found = told or found or ["its verification failed"]
    if found:
        where = record.get("first_wrong")
        found = found[:_SHOWN] + ([where] if isinstance(where, str) else [])
        return Verdict("refused", "; ".join(found), mean, worst)
    if mean is None or worst is None:
        return Verdict("unverified", "its record holds no figures")
    words = f"compared with {record.get('against', 'an unnamed model')}"
    runtime = _part(record, "candidate").get("backend")
    words += f", when run by {runtime}" if isinstance(runtime, str) else ""
    return Verdict("passed", words, mean, worst)


def _is_about(record: Mapping[str, Any], files: Mapping[str, str]) -> bool:
    """A record that names no files is taken to be about those it lies with."""
    candidate = record.get("candidate")
    named = candidate.get("files") if isinstance(candidate, Mapping) else None
    return not isinstance(named, Mapping) or dict(named) == dict(files)


def _misses(record: Mapping[str, Any], limits: Thresholds) -> list[str]:
    """Every threshold that a figure of the record misses."""
    masks, outputs = _part(record, "masks"), _part(record, "outputs")
    worst = masks.get("iou_worst_judged", record.get("mask_iou_worst"))
    lowest = (
        ("mean mask IoU", record.get("mask_iou_mean"), limits.mask_iou_mean),
        ("mean IoU of informative masks", masks.get("iou_mean_informative"), limits.mask_iou_mean),
        ("worst mask IoU", worst, limits.mask_iou_worst),
    )
    found = [
        f"{name} {float(value):.6f}, at least {limit:g} expected"
        for name, value, limit in lowest
        if _is_number(value) and not value >= limit
    ]
    error, most = _part(outputs, "image_embeddings").get("rms_rel_worst"), limits.embedding_rms_rel
    if most is not None and _is_number(error) and not error <= most:
        found.append(f"embedding differs by {error:.2e} of its spread, at most {most:g} expected")
    return found


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: object) -> float | None:
    return float(value) if _is_number(value) else None


def parity_record(
    manifest: Manifest, precision: str, form: str = "canonical"
) -> Mapping[str, Any] | None:
    """The comparison that a manifest holds for a precision; ``None`` if there is none.

    The record of the default precision lies at the top of ``parity``, those of other precisions
    under ``other_precisions``, those of forms for one runtime under ``other_forms``, by form and
    precision. An older record at the top may lack its precision.
    """
    top: Any = manifest.parity
    if not isinstance(top, Mapping):
        return None
    if form != "canonical":
        record = _part(_part(top, "other_forms"), form).get(precision)
        return record if isinstance(record, Mapping) else None
    told = "mask_iou_mean" in top or "passed" in top
    if told and top.get("precision", manifest.precision) == precision:
        return top
    others = top.get("other_precisions")
    record = others.get(precision) if isinstance(others, Mapping) else None
    return record if isinstance(record, Mapping) else None


def graph_verdict(
    manifest: Manifest, chosen: Mapping[str, Artifact], backend: str | None = None
) -> Verdict:
    """Judge the graphs that are to be used, by the manifest's record.

    Runtimes round int8 products differently, by more than the limits leave room for, so a
    record of int8 graphs says nothing about another runtime.

    Args:
        manifest: of the bundle.
        chosen: ``encoder`` and ``decoder`` -> the artefact.
        backend: the runtime that is to run them; ``None``: any.
    """
    precision = chosen["encoder"].precision
    files = {role: artifact.sha256 for role, artifact in chosen.items()}
    forms = {artifact.form for artifact in chosen.values()}
    record = parity_record(manifest, precision, "cpu" if "cpu" in forms else "canonical")
    verdict = judge_record(record, precision, files=files)
    proven = _part(record or {}, "candidate").get("backend", backend)
    if verdict.state != "passed" or precision != "int8" or backend in (None, proven):
        return verdict
    detail = f"its int8 arithmetic was compared when run by {proven}, not by {backend}"
    return Verdict("unverified", detail)


def admit(verdict: Verdict, what: str, *, allow_refused: bool, advice: str) -> Verdict:
    """Let something be used that has not been refused, or that the caller insists on.

    Args:
        verdict: about it.
        what: its name in messages, such as ``tiny in int8``.
        allow_refused: the caller insists.
        advice: what to do about a refusal.

    Returns:
        The verdict, with ``override`` set where it was needed.

    Raises:
        VerificationError: refused, and the caller does not insist.
    """
    if verdict.state != "refused":
        return verdict
    if not allow_refused:
        raise VerificationError(
            f"{what} is refused, it does not compute what the FP32 model does: {verdict.detail}; "
            f"{advice}, or use it all the same with allow_refused=True (--allow-refused), which "
            "every result will say"
        )
    return replace(verdict, override=True)


def remark(verdict: Verdict, what: str, precision: str) -> str | None:
    """What every result has to say about a verdict; ``None`` where there is nothing to say."""
    if verdict.state == "refused":
        return f"{what} was refused by its verification and is used on request: {verdict.detail}"
    if verdict.state == "unverified" and (verdict.override or precision != "fp32"):
        return f"{what} is not verified: {verdict.detail}"
    return None
