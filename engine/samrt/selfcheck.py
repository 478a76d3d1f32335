"""Does a model do here what it did when it was verified? A run on the built-in pictures.

A check answers three questions: is every number finite and does the output depend on the image;
does a second run give the same; do sampled outputs agree with the figures that verification
stored in the manifest (``parity.expected``). It needs the runtime only, and it says nothing about
how good the masks are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import BackendError, PromptError
from samrt.manifest import Manifest, PromptSpec
from samrt.phantoms import PhantomCase, phantom_case
from samrt.predictor import Predictor
from samrt.prompts import check_prompt
from samrt.quoting import one_line
from samrt.types import ImageEmbedding, Prediction, Prompt, Size

__all__ = [
    "Check",
    "canonical_feature",
    "check_model",
    "far_off",
    "figures_of",
    "quick_check",
    "supported_prompts",
]

_EMBEDDING_SAMPLES = 16
_LOGIT_SAMPLES = 12
_DIGITS = 7
_AREA_SLACK_PX = 4
_QUICKEST_FIRST = ("portrait", "ct_abdomen", "microscopy", "ultrasound", "overview")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        passed: whether it is as it should be.
        detail: figures, or what is wrong.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """How far a run elsewhere may differ: relative rms, absolute score, share of the pixels."""

    embedding: float
    logits: float
    scores: float
    area: float


_TOLERANCES = {
    "fp32": _Tolerance(1e-3, 5e-3, 5e-3, 2e-3),
    "fp16": _Tolerance(2e-2, 4e-2, 2e-2, 1e-2),
    "int8": _Tolerance(1e-1, 1.5e-1, 5e-2, 3e-2),
    "int8-weights": _Tolerance(1e-3, 5e-3, 5e-3, 2e-3),
}


def supported_prompts(prompts: Iterable[Prompt], size: Size, spec: PromptSpec) -> list[Prompt]:
    """Those of the prompts that a model takes, in order; ``size`` is ``(H, W)`` of the image.

    A model that takes none at all is asked with :meth:`samrt.Prompt.empty`.
    """
    if not spec.takes_prompts:
        return [Prompt.empty()]
    taken = []
    for prompt in prompts:
        try:
            check_prompt(prompt, size, spec=spec)
        except PromptError:
            continue
        taken.append(prompt)
    return taken


def canonical_feature(embedding: ImageEmbedding) -> tuple[str, NDArray[np.float32]]:
    """Name and array of the image embedding proper: the first output of the encoder."""
    name = next(iter(embedding.features))
    return name, embedding.features[name]


def figures_of(embedding: ImageEmbedding, answers: Iterable[Prediction]) -> dict[str, Any]:
    """A few numbers that stand for a run on one picture, JSON-ready.

    Returns:
        ``embedding``: 16 values of the embedding, evenly spaced; ``answers``: per prompt
        ``scores``, ``areas_px`` and 12 evenly spaced low-resolution ``logits``.
    """
    return {
        "embedding": _samples(canonical_feature(embedding)[1], _EMBEDDING_SAMPLES),
        "answers": [
            {
                "scores": [_short(value) for value in answer.scores],
                "areas_px": [int(value) for value in answer.areas_px],
                "logits": _samples(answer.logits, _LOGIT_SAMPLES),
            }
            for answer in answers
        ],
    }


def check_model(
    predictor: Predictor,
    cases: Iterable[PhantomCase],
    *,
    progress: Callable[[str], None] | None = None,
) -> list[Check]:
    """Run a model on pictures and look at what comes out.

    Args:
        predictor: the model.
        cases: pictures with prompts; prompts that the model does not take are left out.
        progress: is told what is being done.

    Returns:
        All checks; the run stops at the first picture on which the model fails.
    """
    manifest = predictor.manifest
    tolerance = _TOLERANCES.get(predictor.info.precision_effective, _TOLERANCES["fp32"])
    expected = _expected(manifest, predictor.info.precision_effective)
    checks: list[Check] = []
    repeated = False
    for case in cases:
        if progress is not None:
            progress(case.name)
        size = (case.image.shape[0], case.image.shape[1])
        prompts = supported_prompts(case.prompts, size, manifest.prompts)
        try:
            embedding = predictor.encode(case.image)
            answers = predictor.decode(embedding, prompts) if prompts else []
            checks.append(_sanity(case, embedding, answers))
            if not repeated:
                repeated = True
                checks.append(_repeat(predictor, case, prompts, embedding, answers, tolerance))
        except BackendError as exc:
            checks.append(Check(f"run on {case.name}", False, one_line(exc)))
            return checks
        if case.name in expected:
            found = figures_of(embedding, answers)
            problem = _difference(expected[case.name], found, tolerance, size)
            name = f"as verified on {case.name}"
            checks.append(Check(name, problem is None, problem or "agrees with the record"))
    return checks


def quick_check(predictor: Predictor, expected: Mapping[str, Any] | None = None) -> Check:
    """One picture and one prompt: does the model compute what it did when it was verified?

    Takes one run of the encoder and one of the decoder, once each.

    Args:
        predictor: the model.
        expected: name of a built-in picture -> figures (:func:`figures_of`), of the
            verification; those of the manifest where ``None``. Without any, numbers that are
            not finite and an embedding that does not depend on the place are found, no more.

    Raises:
        BackendError: the runtime failed or computed NaN.
    """
    precision = predictor.info.precision_effective
    if expected is None:
        expected = _expected(predictor.manifest, precision)
    known = [name for name in _QUICKEST_FIRST if name in expected]
    case = phantom_case(known[0] if known else _QUICKEST_FIRST[0])
    size = (case.image.shape[0], case.image.shape[1])
    prompts = supported_prompts(case.prompts, size, predictor.manifest.prompts)[:1]
    embedding = predictor.encode(case.image)
    answers = predictor.decode(embedding, prompts) if prompts else []
    name = f"self-test on {case.name}"
    if not known:
        check = _sanity(case, embedding, answers)
        return Check(name, check.passed, f"{check.detail}; no figures to compare with")
    tolerance = _TOLERANCES.get(precision, _TOLERANCES["fp32"])
    try:
        wanted = {**expected[case.name], "answers": expected[case.name]["answers"][: len(answers)]}
    except (KeyError, TypeError):
        wanted = {}
    problem = _difference(wanted, figures_of(embedding, answers), tolerance, size)
    return Check(name, problem is None, problem or "agrees with the record")


def far_off(outputs: Mapping[str, Any], precision: str) -> str | None:
    """The first stage at which two models part, in words; ``None`` if neither output is far off.

    Args:
        outputs: ``outputs`` of a verification record as a dictionary.
        precision: how much is too much.
    """
    kind = "int8" if precision.startswith("int8") else precision  # weights alone cost as much
    tolerance = _TOLERANCES.get(kind, _TOLERANCES["fp32"])
    for stage, name, most in (
        ("encoder", "image_embeddings", tolerance.embedding),
        ("decoder", "low_res_masks", tolerance.logits),
        ("decoder", "iou_predictions", tolerance.logits),
    ):
        error = outputs.get(name, {}).get("rms_rel_worst", 0.0)
        if not error <= most:
            return f"first far off is the {stage}'s output {name}, relative error {error:.1e}"
    return None


def _expected(manifest: Manifest, precision: str) -> Mapping[str, Any]:
    """Figures stored for a precision; an older or foreign record simply has none."""
    record: Any = manifest.parity
    if isinstance(record, Mapping) and record.get("precision") != precision:
        others = record.get("other_precisions")
        record = others.get(precision) if isinstance(others, Mapping) else None
    expected = record.get("expected") if isinstance(record, Mapping) else None
    return expected if isinstance(expected, Mapping) else {}


def _sanity(case: PhantomCase, embedding: ImageEmbedding, answers: list[Prediction]) -> Check:
    name = f"run on {case.name}"
    if not answers:
        return Check(name, False, "the model takes none of the prompts, so nothing was decoded")
    if float(np.ptp(canonical_feature(embedding)[1])) == 0.0:
        return Check(name, False, "the embedding is the same number everywhere")
    total = int(np.prod(case.image.shape[:2]))
    areas = [int(area) for answer in answers for area in answer.areas_px]
    telling = sum(0 < area < total for area in areas)
    return Check(name, True, f"{len(areas)} masks, {telling} neither empty nor full")


def _repeat(
    predictor: Predictor,
    case: PhantomCase,
    prompts: list[Prompt],
    embedding: ImageEmbedding,
    answers: list[Prediction],
    tolerance: _Tolerance,
) -> Check:
    again = predictor.encode(case.image)
    second = predictor.decode(again, prompts) if prompts else []
    pairs = [(embedding.features[k], again.features[k]) for k in embedding.features]
    pairs += [(a.logits, b.logits) for a, b in zip(answers, second, strict=True)]
    if all(np.array_equal(a, b) for a, b in pairs):
        return Check("same result twice", True, "identical to the last bit")
    worst = max(_relative(a, b) for a, b in pairs)
    return Check("same result twice", worst <= tolerance.embedding, f"relative rms {worst:.1e}")


def _difference(
    expected: Any, found: Mapping[str, Any], tolerance: _Tolerance, size: Size
) -> str | None:
    """What is out of tolerance, or ``None``."""
    try:
        wanted = np.asarray(expected["embedding"], np.float64)
        pairs = list(zip(expected["answers"], found["answers"], strict=True))
        worst = _relative(wanted, np.asarray(found["embedding"]))
        if not worst <= tolerance.embedding:
            return f"embedding differs by {worst:.1e}, at most {tolerance.embedding:g} expected"
        for number, (want, have) in enumerate(pairs):
            problem = _answer_difference(want, have, tolerance, size)
            if problem is not None:
                return f"prompt {number}: {problem}"
    except (KeyError, TypeError, ValueError):
        return "the record in the manifest does not fit this model: verify it again"
    return None


def _answer_difference(
    want: Mapping[str, Any], have: Mapping[str, Any], tolerance: _Tolerance, size: Size
) -> str | None:
    worst = _relative(np.asarray(want["logits"], np.float64), np.asarray(have["logits"]))
    if not worst <= tolerance.logits:
        return f"logits differ by {worst:.1e}, at most {tolerance.logits:g} expected"
    gap = _largest(want["scores"], have["scores"])
    if not gap <= tolerance.scores:
        return f"scores differ by {gap:.1e}, at most {tolerance.scores:g} expected"
    allowed = _AREA_SLACK_PX + tolerance.area * size[0] * size[1]
    gap = _largest(want["areas_px"], have["areas_px"])
    if not gap <= allowed:
        return f"areas differ by {gap:.0f} pixels, at most {allowed:.0f} expected"
    return None


def _largest(a: Any, b: Any) -> float:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise ValueError("other number of masks")
    return float(np.abs(first - second).max(initial=0.0))


def _relative(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Root mean square of the difference over that of the wanted values."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    if a.shape != b.shape:
        raise ValueError("other shape")
    size = float(np.sqrt(np.mean(a * a))) if a.size else 0.0
    gap = float(np.sqrt(np.mean((a - b) ** 2))) if a.size else 0.0
    return gap / size if size > 0.0 else gap


def _samples(array: NDArray[np.float32], count: int) -> list[float]:
    flat = array.reshape(-1)
    places = np.arange(count, dtype=np.int64) * (flat.size - 1) // max(count - 1, 1)
    return [_short(value) for value in flat[places]]


def _short(value: Any) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
