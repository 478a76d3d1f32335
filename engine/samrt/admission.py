"""What happens between opening a model and handing it out: proof of compiled models, self-test.

Graphs carry the record of their comparison in the bundle. A compiled engine is compared with the
FP32 graphs of the same bundle on the machine that runs it: at the end of ``samrt build`` where
that is the same machine, else when it is loaded for the first time. Only an engine that passes
is handed out; the figures are kept with it, so this happens once.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from time import monotonic
from typing import TYPE_CHECKING, Any

from samrt._version import __version__
from samrt.errors import BackendError, OptionError, OutputError, VerificationError
from samrt.gate import admit, judge_record, remark
from samrt.quoting import one_line

if TYPE_CHECKING:
    from samrt.backends.base import Proof
    from samrt.model import ModelInfo
    from samrt.predictor import Predictor
    from samrt.verification import Case

__all__ = ["DEFAULT_SECONDS", "admit_model", "prove", "seconds_allowed", "with_circumstances"]

DEFAULT_SECONDS = 60.0
_LOG = logging.getLogger("samrt")


def seconds_allowed() -> float:
    """Time for the comparison at a first load: ``SAMRT_VERIFY_SECONDS``, or 60 s.

    No picture is begun after it; the first one is always finished.

    Raises:
        OptionError: the variable is not a number from 0.
    """
    text = os.environ.get("SAMRT_VERIFY_SECONDS", "")
    try:
        value = float(text) if text else DEFAULT_SECONDS
    except ValueError:
        value = math.nan
    if not value >= 0.0:
        raise OptionError(f"SAMRT_VERIFY_SECONDS is {text!r}, expected seconds, such as 60")
    return value


def admit_model(predictor: Predictor, *, allow_refused: bool, self_test: bool | None) -> None:
    """Let a model be used, or say why not; ``predictor.info`` then tells what is known of it.

    Raises:
        VerificationError: its record or a comparison now refuses it and ``allow_refused`` is
            false, or the self-test failed.
        BackendError: the FP32 model that it is compared with cannot be run here.
    """
    model = predictor.model
    proven_now = model.proof is not None and _admit_compiled(predictor, model.proof, allow_refused)
    wanted = model.tests_itself if self_test is None else self_test
    if wanted and not proven_now:
        _test(predictor)


def _admit_compiled(predictor: Predictor, proof: Proof, insists: bool) -> bool:
    """Judge compiled sessions; whether they have been compared just now."""
    model = predictor.model
    info, record = model.info, proof.record()
    what, precision = _name(info), info.precision_effective
    now = record is None and not insists
    if now:
        record = _first_comparison(predictor, proof, what)
    verdict = admit(
        judge_record(record, precision), what, allow_refused=insists, advice=proof.advice()
    )
    if record is None:
        verdict = replace(verdict, override=True)
    said = remark(verdict, what, precision)
    warnings = () if said is None else (said,)
    if info.verification.state == "refused":  # the graphs, used on request
        verdict, warnings = info.verification, (*info.warnings, *warnings)
    model.info = replace(info, verification=verdict, warnings=warnings)
    return now


def _name(info: ModelInfo) -> str:
    runtime = f"{info.backend_effective} {info.backend_version}"
    return f"the engine of {info.name} in {info.precision_effective} ({runtime})"


def _first_comparison(predictor: Predictor, proof: Proof, what: str) -> Mapping[str, Any]:
    seconds = seconds_allowed()
    _LOG.warning(
        "samrt: comparing %s with the FP32 model before its first use, for about %.0f s at most",
        what,
        seconds,
    )
    record = prove(predictor, seconds=seconds)
    try:
        proof.store(record)
    except OutputError as exc:
        _LOG.warning("samrt: the figures are not kept, so the next load compares again: %s", exc)
    return record


def prove(
    predictor: Predictor,
    *,
    cases: Iterable[Case] | None = None,
    seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Compare a model with the canonical FP32 graphs of its bundle in ONNX Runtime.

    A bundle without FP32 graphs is compared with its own default precision.

    Args:
        predictor: the model.
        cases: pictures with prompts; the built-in ones where ``None``.
        seconds: begin no further picture after this time.
        progress: is told what is being done.

    Returns:
        The record (``VerificationRecord.as_dict``), with when, how long, and the first output
        that is far off.

    Raises:
        BackendError: the reference cannot be run here.
    """
    from samrt.phantoms import PHANTOM_NAMES, phantom_case
    from samrt.predictor import load
    from samrt.verification import compare

    model = predictor.model
    precisions = model.bundle.precisions()
    truth_is = "fp32" if "fp32" in precisions else precisions[0]
    pictures = _Limited((phantom_case(n) for n in PHANTOM_NAMES) if cases is None else cases,
                        seconds)  # fmt: skip
    start = monotonic()
    with load(
        model.bundle.path, backend="onnxruntime", precision=truth_is, threads=model.info.threads,
        self_test=False, allow_refused=model.info.verification.override, form="canonical",
    ) as truth:  # fmt: skip
        words = f"its {truth_is} graphs in ONNX Runtime {truth.info.backend_version}"
        found = compare(truth, predictor, pictures, against=words, progress=progress)
    if pictures.left_out:
        text = f"{pictures.left_out} pictures were left out, the time of {seconds:g} s was over"
        found = replace(found, weaknesses=(*found.weaknesses, text))
    return with_circumstances(found.as_dict(), monotonic() - start)


def with_circumstances(record: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A record with the time it was made and, if it failed, the first output that is far off."""
    from samrt.selfcheck import far_off

    wrong = None if record["passed"] else far_off(record["outputs"], record["precision"])
    return {
        **record,
        "first_wrong": wrong,
        "verified_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "samrt": __version__,
    }


class _Limited:
    """Cases until the time is over; the first one always. ``left_out`` counts the others."""

    def __init__(self, cases: Iterable[Case], seconds: float | None) -> None:
        self._cases, self._seconds = cases, seconds
        self.left_out = 0

    def __iter__(self) -> Iterator[Case]:
        start = monotonic()
        for number, case in enumerate(self._cases):
            late = self._seconds is not None and monotonic() - start >= self._seconds
            if number and late:
                self.left_out += 1
                continue
            yield case


def _test(predictor: Predictor) -> None:
    """The self-test: one picture, one prompt, the numbers of the verification."""
    from samrt.selfcheck import quick_check

    proof, info = predictor.model.proof, predictor.info
    expected: Any = None
    if proof is not None:
        record = proof.record() or {}
        expected = record.get("expected")
        expected = expected if isinstance(expected, Mapping) else {}
    try:
        check = quick_check(predictor, expected)
        problem = None if check.passed else check.detail
    except BackendError as exc:
        problem = one_line(exc)
    if problem is None:
        return
    what = _name(info) if proof is not None else f"{info.name} on {info.backend_effective}"
    advice = "check it with samrt verify" if proof is None else proof.advice()
    raise VerificationError(
        f"{what} does not compute what it did when it was verified: {problem}; an update of the "
        f"driver or the runtime may have changed its kernels: {advice} (self_test=False or "
        "--no-self-test leaves this test out)"
    )
