"""Is what is going to be timed right? The same picture and prompts with the FP32 model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bench.job import Job, open_engine, prompt_from
from samrt.bundle import Bundle, find_model
from samrt.errors import VerificationError
from samrt.gate import Thresholds, thresholds_for
from samrt.phantoms import phantom_case
from samrt.predictor import Predictor, load
from samrt.selfcheck import canonical_feature, check_model
from samrt.types import ImageEmbedding, Prediction, Prompt

__all__ = ["ask", "check_again", "prompts_of", "prove"]

REFERENCE = ("onnxruntime", "fp32", "canonical")


def prompts_of(job: Job) -> list[Prompt]:
    """The prompts of a job; the empty one for models that take none."""
    return [prompt_from(document) for document in job.prompts] or [Prompt.empty()]


def ask(engine: Predictor, job: Job) -> tuple[ImageEmbedding, list[Prediction]]:
    """One picture and all prompts of a job, each answered with all candidate masks."""
    embedding = engine.encode(job.image)
    return embedding, engine.decode(embedding, prompts_of(job))


def prove(job: Job) -> dict[str, Any]:
    """Compare an engine with the canonical FP32 model in ONNX Runtime, and keep its masks.

    That model itself is compared with the record in its manifest instead.

    Returns:
        ``against``, and the figures of the comparison.

    Raises:
        VerificationError: the engine's answers are wrong; nothing was kept.
    """
    with open_engine(job) as engine:
        info = engine.info
        embedding, found = ask(engine, job)
        record: dict[str, Any] = {
            "verification": info.verification.state,
            "verification_detail": info.verification.detail,
        }
        found_here = info.backend_effective, info.precision_effective, info.form_effective
        if found_here == REFERENCE:
            record |= _against_manifest(engine)
    if "against" not in record:
        record |= _against_reference(job, info.precision_effective, embedding, found)
    _keep(Path(job.answers), found)
    return record


def _against_manifest(engine: Predictor) -> dict[str, Any]:
    checks = check_model(engine, [phantom_case("portrait")])
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    if failed:
        raise VerificationError(
            f"{engine.info.model_id} does not answer as recorded ({'; '.join(failed)}): not "
            "measured; see samrt verify"
        )
    return {"against": "the figures in its manifest and itself", "checks": len(checks)}


def _against_reference(
    job: Job, precision: str, embedding: ImageEmbedding, found: list[Prediction]
) -> dict[str, Any]:
    backend, fp32, form = REFERENCE
    bundle = Bundle.open(find_model(job.model))
    if fp32 not in bundle.precisions():
        return {"against": "nothing: the bundle holds no FP32 graphs"}
    with load(
        bundle.path, backend=backend, precision=fp32, threads=job.threads, form=form
    ) as reference:
        version = reference.info.backend_version
        wanted_embedding, wanted = ask(reference, job)
    name, feature = canonical_feature(wanted_embedding)
    ious = _ious([p.masks for p in wanted], [p.masks for p in found])
    limits = thresholds_for(precision)
    record = {
        "against": f"the {form} FP32 graphs in {backend} {version}",
        "masks": len(ious),
        "mask_iou_mean": float(np.mean(ious)),
        "mask_iou_worst": min(ious),
        "logits_rms_rel": max(
            _relative(a.logits, b.logits) for a, b in zip(wanted, found, strict=True)
        ),
        "embedding_rms_rel": _relative(feature, embedding.features[name]),
    }
    _judge(record, limits, f"{job.model} in {precision} on {job.backend}")
    return record


def _judge(record: dict[str, Any], limits: Thresholds, what: str) -> None:
    """Refuse masks that are too far from the reference's."""
    mean, worst = record["mask_iou_mean"], record["mask_iou_worst"]
    if mean < limits.mask_iou_mean or worst < limits.mask_iou_worst:
        raise VerificationError(
            f"{what} gives other masks than {record['against']}: IoU {mean:.5f} in the mean and "
            f"{worst:.5f} at worst, {limits.mask_iou_mean} and {limits.mask_iou_worst} needed: "
            "not measured"
        )


def _keep(path: Path, found: list[Prediction]) -> None:
    arrays = {f"masks{i}": np.packbits(p.masks) for i, p in enumerate(found)}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def check_again(engine: Predictor, job: Job) -> float:
    """Compare an engine's masks with those that were proven; the worst IoU.

    Raises:
        VerificationError: they differ by more than rounding.
    """
    _, found = ask(engine, job)
    with np.load(job.answers) as stored:
        proven = [
            np.unpackbits(stored[f"masks{i}"], count=p.masks.size).reshape(p.masks.shape) > 0
            for i, p in enumerate(found)
        ]
    worst = min(_ious(proven, [p.masks for p in found]))
    if worst < 0.99:
        raise VerificationError(
            f"{job.model} on {job.backend} gives other masks than when it was checked (IoU "
            f"{worst:.5f}): its times are worthless"
        )
    return worst


def _ious(wanted: list[NDArray[np.bool_]], found: list[NDArray[np.bool_]]) -> list[float]:
    """IoU of each mask; 1 where both are empty."""
    result = []
    for a, b in zip(wanted, found, strict=True):
        for first, second in zip(a, b, strict=True):
            union = int(np.count_nonzero(first | second))
            result.append(int(np.count_nonzero(first & second)) / union if union else 1.0)
    return result


def _relative(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Root mean square of the difference over the spread of the wanted values."""
    gap = float(np.sqrt(np.mean((wanted.astype(np.float64) - found) ** 2)))
    spread = float(wanted.astype(np.float64).std())
    return gap / spread if spread > 0.0 else gap
