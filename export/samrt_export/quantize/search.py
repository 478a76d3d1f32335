"""The search for layers that stay float32: by sensitivity, until the answers are good enough.

First all candidates are int8.  If the masks miss the target, each unit (a layer, or a block of a
heavy network) is quantised alone and its error at the decoder's output is measured; the worst
return to float32 until the predicted error is a given share of the first one, the result is
measured, and the share is lowered until the target is met.  Runtimes multiply integers each in its
own way, so the target has to be met in each that is asked for; errors are measured in the one that
missed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from samrt.backends import get_backend
from samrt.backends.base import Session, SessionOptions
from samrt.errors import VerificationError
from samrt.model import ModelInfo
from samrt.predictor import Predictor
from samrt_export.graph import GraphBuilder
from samrt_export.precision.emulate import GraphSession
from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.precision.search import in_words
from samrt_export.precision.trial import Trial, predictor_of
from samrt_export.quantize.choose import Choice
from samrt_export.quantize.write import to_int8
from samrt_export.verify import THRESHOLDS, Case, Thresholds, VerificationRecord, compare

__all__ = ["TARGET", "Attempt", "Found", "NoInt8FormError", "Sensitivity", "failed", "search"]

# What is sought leaves a fifth of the deviation that the gate allows for pictures not yet seen.
_ROOM = 0.8
_GATE = THRESHOLDS["int8"]
TARGET = Thresholds(1 - _ROOM * (1 - _GATE.mask_iou_mean), 1 - _ROOM * (1 - _GATE.mask_iou_worst))
SHARES = (0.8, 0.65, 0.5, 0.35, 0.2, 0.1)
MOST_UNITS = 64


@dataclass(frozen=True)
class Sensitivity:
    """The error at the decoder's output when one unit alone is int8.

    `error` is the relative rms error of the logits plus what the worst mask lacks to an IoU of 1.
    """

    unit: str
    layers: tuple[str, ...]
    error: float


@dataclass
class Found:
    """The outcome of a search.

    Attributes:
        kept: the layers that are int8.
        returned: keys of those that are float32 again.
        record: how it does on the pictures of the search.
        sensitivities: of all units, the largest first; empty if none had to be measured.
        rounds: what was tried, in words.
    """

    kept: list[Choice]
    returned: list[str]
    record: VerificationRecord
    sensitivities: list[Sensitivity] = field(default_factory=list)
    rounds: list[str] = field(default_factory=list)


class NoInt8FormError(VerificationError):
    """No int8 form of a model is good enough.

    Attributes:
        best: of those that were tried, the one with the highest mean mask IoU.
    """

    def __init__(self, message: str, best: Found) -> None:
        super().__init__(message)
        self.best = best


class Attempt:
    """Answers of a bundle with another encoder, run by the runtimes that will run it.

    Args:
        trial: the bundle and its float32 graphs.
        info: of the bundle's predictor.
        folder: for the graph that is tried.
        backends: names of the runtimes, ONNX Runtime first.
        precision: what the graph is.
    """

    def __init__(
        self, trial: Trial, info: ModelInfo, folder: Path, *,
        backends: Sequence[str] = ("onnxruntime",), precision: str = "int8",
    ) -> None:  # fmt: skip
        self.trial, self.folder, self.precision = trial, folder, precision
        self.backends = tuple(backends)
        self.info = replace(info, precision_requested=precision, precision_effective=precision)

    def only(self, backend: str) -> Attempt:
        """The same in one runtime."""
        return Attempt(
            self.trial, self.info, self.folder, backends=(backend,), precision=self.precision
        )

    def record(
        self, encoder: GraphBuilder, reference: Predictor, cases: Sequence[Case]
    ) -> VerificationRecord:
        """Compare with the reference: the first runtime that misses the target, or the worst."""
        found = []
        for name in self.backends:
            with closing(self._session(encoder, name)) as session:
                sessions = {"encoder": session, "decoder": self.trial.exact("decoder")}
                predictor = predictor_of(self.trial.bundle, self._info(name), sessions)
                record = compare(
                    reference, predictor, cases, precision=self.precision, thresholds=TARGET
                )
            if not record.passed:
                return record
            found.append(record)
        return min(found, key=lambda record: record.masks.iou_worst_judged)

    def against_graph(self, encoder: GraphBuilder, cases: Sequence[Case]) -> VerificationRecord:
        """Compare fused integer kernels with the graph taken literally, node by node in float32."""
        trial = self.trial
        literal = GraphSession(encoder, "encoder taken literally", threads=trial.threads)
        decoder = trial.exact("decoder")
        with closing(literal), closing(self._session(encoder)) as session:
            info = self._info("onnxruntime")
            truth, found = (
                predictor_of(trial.bundle, info, {"encoder": one, "decoder": decoder})
                for one in (literal, session)
            )
            return compare(truth, found, cases, precision=self.precision)

    def _info(self, backend: str) -> ModelInfo:
        return replace(
            self.info, backend_requested=backend, backend_effective=backend,
            backend_version=get_backend(backend).version(),
        )  # fmt: skip

    def _session(self, encoder: GraphBuilder, backend: str = "onnxruntime") -> Session:
        files = encoder.write(self.folder / "attempt.onnx", "attempt")
        try:
            options = SessionOptions(threads=self.trial.threads)
            return get_backend(backend).create(files[0], options)
        finally:
            for file in files:
                file.unlink(missing_ok=True)


def search(
    attempt: Attempt,
    graph: FloatGraph,
    choices: Sequence[Choice],
    reference: Predictor,
    cases: Sequence[Case],
    *,
    few: int,
    by_block: bool,
    say: Callable[[str], None],
) -> Found:
    """Find the layers with which the bundle answers within `TARGET`.

    Args:
        attempt: runs a graph.
        graph: the float32 encoder.
        choices: how each candidate is quantised.
        reference: the truth.
        cases: pictures to compare on.
        few: how many of them the errors of single units are measured on, the one with the worst
            mask first.
        by_block: units are blocks and not layers.
        say: is told what is found.

    Raises:
        NoInt8FormError: no selection of layers is good enough.
    """
    first = attempt.record(to_int8(graph, choices), reference, cases)
    rounds = [f"{len(choices)} layers in int8: {told(first)}"]
    say(rounds[0])
    if first.passed:
        return Found(list(choices), [], first, rounds=rounds)
    units = _units(choices, by_block)
    telling = sorted(cases, key=lambda case: not first.masks.worst_case.startswith(case.name))
    single = attempt.only(str(first.candidate["backend"]))
    errors = _sensitivities(single, graph, units, reference, telling[:few], say)
    tried: set[str] = set()
    best = Found(list(choices), [], first, errors, rounds)
    for share in SHARES:
        worst = {item.unit for item in _worst(errors, share)}
        if worst == tried or len(worst) == len(units):
            continue
        tried = worst
        kept = [c for unit, part in units.items() if unit not in worst for c in part]
        record = attempt.record(to_int8(graph, kept), reference, cases)
        rounds.append(f"{len(kept)} of {len(choices)} layers in int8: {told(record)}")
        say(rounds[-1])
        returned = [c.layer.key for unit in worst for c in units[unit]]
        if record.passed:
            return Found(kept, returned, record, errors, rounds)
        if record.masks.iou_mean > best.record.masks.iou_mean:
            best = Found(kept, returned, record, errors, rounds)
    raise NoInt8FormError(
        f"no int8 form of this model is good enough: {'; '.join(rounds)}; needed are a mean mask "
        f"IoU of {TARGET.mask_iou_mean:g} and a worst of {TARGET.mask_iou_worst:g}; calibrate on "
        "more pictures like those that will be segmented, or use fp16 or int8-weights",
        best,
    )


def told(record: VerificationRecord) -> str:
    """The figures of a record, and where they were found if not in ONNX Runtime."""
    backend = record.candidate["backend"]
    return in_words(record) + ("" if backend == "onnxruntime" else f", in {backend}")


def failed(record: VerificationRecord) -> bool:
    """Whether the candidate raised an error somewhere."""
    return any("the candidate failed" in text for text in record.failures)


def _units(choices: Sequence[Choice], by_block: bool) -> dict[str, list[Choice]]:
    """Layers in groups that return together: each alone, or by the scopes in their names."""
    found = {choice.layer.name: [choice] for choice in choices}
    depth = 4
    while (by_block or len(found) > MOST_UNITS) and depth > 1:
        found = {}
        for choice in choices:
            scopes = choice.layer.name.split("/")[:-1][:depth]
            found.setdefault("/".join(scopes) or choice.layer.name, []).append(choice)
        depth -= 1
        by_block = by_block and len(found) > MOST_UNITS // 3
    return found


def _sensitivities(
    attempt: Attempt, graph: FloatGraph, units: Mapping[str, Sequence[Choice]],
    reference: Predictor, cases: Sequence[Case], say: Callable[[str], None],
) -> list[Sensitivity]:  # fmt: skip
    """The error of every unit alone, the largest first."""
    found = []
    for unit, part in units.items():
        record = attempt.record(to_int8(graph, part), reference, cases)
        outputs, error = record.outputs, math.inf
        if outputs["low_res_masks"].comparisons and not failed(record):
            error = outputs["low_res_masks"].rms_rel + 1.0 - record.masks.iou_worst_judged
        say(f"{unit} alone in int8: error {error:.2e}")
        found.append(Sensitivity(unit, tuple(c.layer.name for c in part), error))
    return sorted(found, key=lambda item: -item.error)


def _worst(errors: Sequence[Sensitivity], share: float) -> Collection[Sensitivity]:
    """The fewest units without which the predicted error is `share` of the whole."""
    left = sum(item.error**2 for item in errors if math.isfinite(item.error))
    allowed = share**2 * left
    taken = []
    for item in errors:
        if left <= allowed and math.isfinite(item.error):
            break
        taken.append(item)
        left -= item.error**2 if math.isfinite(item.error) else 0.0
    return taken
