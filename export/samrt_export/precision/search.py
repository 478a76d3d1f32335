"""The search for islands by measured error: which blocks go back to float32?

First everything outside the measured islands is float16.  If the answers are within the target,
that is it.  If not, each block alone is put into float16 and its error at the decoder's output is
measured; errors of blocks add up as squares do when they are independent.  The worst blocks return
to float32 until the predicted error is a given share of the first one; the result is measured, and
the share is lowered until the target is met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from samrt.errors import VerificationError
from samrt.predictor import Predictor
from samrt_export.precision.half import HalfGraph
from samrt_export.precision.islands import Island, float32_keys
from samrt_export.precision.trial import ROLES, Trial
from samrt_export.verify import THRESHOLDS, Case, Thresholds, VerificationRecord, compare

__all__ = ["SCORE_ERROR", "TARGET", "Contribution", "Found", "NoHalfFormError", "search"]

# What is sought leaves a fifth of the deviation that the gate allows for pictures not yet seen.
_ROOM = 0.8
_GATE = THRESHOLDS["fp16"]
TARGET = Thresholds(1 - _ROOM * (1 - _GATE.mask_iou_mean), 1 - _ROOM * (1 - _GATE.mask_iou_worst))
SCORE_ERROR = 0.02
SHARES = (0.5, 0.25, 0.12, 0.06, 0.03)
Groups = Mapping[tuple[str, str], Sequence[str]]


@dataclass(frozen=True)
class Contribution:
    """The error at the decoder's output when one block alone is float16.

    `error` is the relative rms error of the logits plus the largest error of a score; infinity
    where the block overflows.
    """

    role: str
    group: str
    error: float


@dataclass
class Found:
    """The outcome of a search.

    Attributes:
        islands: role -> all islands.
        halves: role -> the conversion.
        record: how it does on the pictures of the search.
        contributions: of all blocks, the largest first; empty if none had to be measured.
        rounds: what was tried, in words.
    """

    islands: dict[str, list[Island]]
    halves: dict[str, HalfGraph]
    record: VerificationRecord
    contributions: list[Contribution] = field(default_factory=list)
    rounds: list[str] = field(default_factory=list)


class NoHalfFormError(VerificationError):
    """No float16 form of a model is good enough.

    Attributes:
        best: of those that were tried, the one with the highest mean mask IoU.
    """

    def __init__(self, message: str, best: Found) -> None:
        super().__init__(message)
        self.best = best


def search(
    trial: Trial,
    reference: Predictor,
    islands: Mapping[str, Sequence[Island]],
    cases: Sequence[Case],
    *,
    few: int = 2,
    half_io: bool = False,
    say: Callable[[str], None],
) -> Found:
    """Find islands with which the bundle answers within `TARGET`.

    Args:
        trial: the graphs.
        reference: the truth.
        islands: role -> the measured islands.
        cases: pictures to compare on.
        few: how many of them the errors of single blocks are measured on.
        half_io: as in `to_half`.
        say: is told what is found.

    Raises:
        NoHalfFormError: even with most blocks in float32 the answers are not good enough.
    """
    chosen = {role: list(islands[role]) for role in ROLES}
    first = _measure(trial, reference, chosen, cases, half_io)
    rounds = [f"measured islands only: {in_words(first.record)}"]
    say(rounds[0])
    if good_enough(first.record):
        first.rounds = rounds
        return first
    blocks: dict[tuple[str, str], Sequence[str]] = {
        (role, group): keys
        for role in ROLES
        for group, keys in trial.graphs[role].groups().items()
        if set(keys) - float32_keys(chosen[role])
    }
    errors = _contributions(trial, reference, chosen, blocks, list(cases)[:few], say)
    tried: set[tuple[str, str]] = set()
    best = first
    for share in SHARES:
        worst = _worst(errors, share)
        if {(c.role, c.group) for c in worst} == tried:
            continue
        tried = {(c.role, c.group) for c in worst}
        if len(tried) == len(blocks):
            break
        more = {role: [*chosen[role], *_returned(worst, blocks, role)] for role in ROLES}
        found = _measure(trial, reference, more, cases, half_io)
        rounds.append(f"{len(worst)} of {len(errors)} blocks in float32: {in_words(found.record)}")
        say(rounds[-1])
        if good_enough(found.record):
            found.contributions, found.rounds = errors, rounds
            return found
        if found.record.masks.iou_mean > best.record.masks.iou_mean:
            best = found
    best.contributions, best.rounds = errors, rounds
    raise NoHalfFormError(
        f"no float16 form of this model is good enough: {'; '.join(rounds)}; needed are a mean "
        f"mask IoU of {TARGET.mask_iou_mean:g} and a worst of {TARGET.mask_iou_worst:g}; stay with "
        "fp32, or give pictures of your own with --images if its masks are empty on the built-in",
        best,
    )


def good_enough(record: VerificationRecord) -> bool:
    """Within the target, scores included."""
    return record.passed and record.outputs["iou_predictions"].max_abs <= SCORE_ERROR


def in_words(record: VerificationRecord) -> str:
    """The figures of a record on one line."""
    masks, outputs = record.masks, record.outputs
    if not masks.masks:
        return "; ".join(record.failures)
    return (
        f"mask IoU mean {masks.iou_mean:.5f}, worst {masks.iou_worst_judged:.5f}, logits "
        f"{outputs['low_res_masks'].rms_rel:.1e}, scores {outputs['iou_predictions'].max_abs:.1e}"
    )


def _measure(
    trial: Trial, reference: Predictor, islands: dict[str, list[Island]], cases: Sequence[Case],
    half_io: bool,
) -> Found:  # fmt: skip
    halves = {
        role: trial.convert(role, float32_keys(islands[role]), half_io=half_io) for role in ROLES
    }
    sessions = {role: trial.emulated(role, halves[role]) for role in ROLES}
    record = compare(
        reference, trial.predictor(sessions), cases, precision="fp16", thresholds=TARGET
    )
    for session in sessions.values():
        session.close()
    return Found(islands, halves, record)


def _contributions(
    trial: Trial, reference: Predictor, islands: Mapping[str, Sequence[Island]], blocks: Groups,
    cases: Sequence[Case], say: Callable[[str], None],
) -> list[Contribution]:  # fmt: skip
    """The error of every block alone, the largest first."""
    found = []
    for (role, group), keys in blocks.items():
        half = trial.only(role, keys, float32_keys(islands[role]))
        session = trial.emulated(role, half)
        sessions = {other: trial.exact(other) for other in ROLES if other != role}
        record = compare(
            reference, trial.predictor({**sessions, role: session}), cases, precision="fp16"
        )
        session.close()
        error = math.inf
        if record.outputs["low_res_masks"].comparisons and not _failed(record):
            outputs = record.outputs
            error = outputs["low_res_masks"].rms_rel + outputs["iou_predictions"].max_abs
        say(f"{role} {group} alone in float16: error {error:.2e}")
        found.append(Contribution(role, group, error))
    return sorted(found, key=lambda c: -c.error)


def _failed(record: VerificationRecord) -> bool:
    return any("the candidate failed" in text for text in record.failures)


def _worst(errors: Sequence[Contribution], share: float) -> list[Contribution]:
    """The fewest blocks without which the predicted error is `share` of the whole."""
    finite = [c.error for c in errors if math.isfinite(c.error)]
    allowed = share**2 * sum(error**2 for error in finite)
    left = sum(error**2 for error in finite)
    taken = []
    for item in errors:
        if left <= allowed and math.isfinite(item.error):
            break
        taken.append(item)
        left -= item.error**2 if math.isfinite(item.error) else 0.0
    return taken


def _returned(worst: Sequence[Contribution], blocks: Groups, role: str) -> list[Island]:
    return [
        Island(
            "error", item.group, tuple(blocks[role, item.group]), "low_res_masks", item.error,
            "alone in float16 it overflows" if math.isinf(item.error)
            else f"alone in float16 it moves logits and scores by {item.error:.2e}",
        )
        for item in worst
        if item.role == role
    ]  # fmt: skip
