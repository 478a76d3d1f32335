"""The outcome of a verification and the rule by which it passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from samrt.gate import Thresholds
from samrt.verification.figures import ArrayFigures, MaskTally

__all__ = ["MIN_INFORMATIVE", "MaskSummary", "VerificationRecord", "judge"]

MIN_INFORMATIVE = 20


@dataclass(frozen=True, slots=True)
class MaskSummary:
    """Masks against the reference's.

    ``informative`` masks are neither empty nor the whole image in the reference; ``excused`` ones
    differ by one or two pixels and are not judged by their IoU (``iou_worst_judged`` leaves them
    out, ``iou_worst`` does not).
    """

    masks: int
    informative: int
    identical: int
    excused: int
    iou_mean: float
    iou_mean_informative: float | None
    iou_worst: float
    iou_worst_judged: float
    worst_case: str
    dice_mean: float
    dice_worst: float
    hd95_mean_px: float
    hd95_worst_px: float
    hd95_worst_case: str
    flipped_share_mean: float
    flipped_share_worst: float

    @classmethod
    def of(cls, tally: MaskTally) -> MaskSummary:
        """Sum up a tally; means over no masks are 0, so that they pass no threshold."""
        count = tally.masks
        return cls(
            masks=count,
            informative=tally.informative,
            identical=tally.identical,
            excused=tally.excused,
            iou_mean=tally.iou_sum / count if count else 0.0,
            iou_mean_informative=tally.iou_sum_informative / tally.informative
            if tally.informative
            else None,
            iou_worst=tally.iou_worst if count else 0.0,
            iou_worst_judged=tally.iou_worst_judged if count else 0.0,
            worst_case=tally.worst_case,
            dice_mean=tally.dice_sum / count if count else 0.0,
            dice_worst=tally.dice_worst if count else 0.0,
            hd95_mean_px=tally.hd95_sum / count if count else 0.0,
            hd95_worst_px=tally.hd95_worst,
            hd95_worst_case=tally.hd95_worst_case,
            flipped_share_mean=tally.flipped_px / tally.pixels if tally.pixels else 0.0,
            flipped_share_worst=tally.flipped_share_worst,
        )


@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """What was compared with what, and what came out; :meth:`as_dict` goes into the manifest.

    Attributes:
        passed: no entry in ``failures``.
        failures: each threshold that was missed, in words.
        weaknesses: what this verification could not show, in words.
        precision: precision of the candidate.
        against: what the reference is.
        candidate: id, files, backend and version of what was verified.
        image_names: the pictures; the user's own are named by the start of their sha256.
        prompts: prompts that were answered, over all pictures.
        prompts_left_out: prompts that the model does not take.
        outputs: ``image_embeddings``, ``low_res_masks`` and ``iou_predictions``.
        masks: the masks, several per prompt.
        thresholds: what had to be reached.
        expected: name of a built-in picture -> what the candidate answered there, for
            :func:`samrt.selfcheck.check_model` to find again on another machine.
    """

    passed: bool
    failures: tuple[str, ...]
    weaknesses: tuple[str, ...]
    precision: str
    against: str
    candidate: Mapping[str, Any]
    image_names: tuple[str, ...]
    prompts: int
    prompts_left_out: int
    outputs: Mapping[str, ArrayFigures]
    masks: MaskSummary
    thresholds: Thresholds
    expected: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-ready dictionary, the figures most asked for at its top."""
        head = {
            "format": 1,
            "passed": self.passed,
            "precision": self.precision,
            "against": self.against,
            "images": len(self.image_names),
            "prompts": self.prompts,
            "mask_iou_mean": self.masks.iou_mean,
            "mask_iou_worst": self.masks.iou_worst,
        }
        rest = asdict(self)
        for name in ("passed", "precision", "against", "prompts"):
            del rest[name]
        rest["failures"], rest["weaknesses"] = list(self.failures), list(self.weaknesses)
        rest["image_names"] = list(self.image_names)
        return {**head, **rest}


def judge(
    masks: MaskSummary, outputs: Mapping[str, ArrayFigures], limits: Thresholds
) -> tuple[str, ...]:
    """Every threshold that is missed, in words; nothing if all are reached."""
    failures = []
    if not masks.informative:
        failures.append(
            "proves nothing: the reference has no mask that is neither empty nor the whole image; "
            "add pictures of your own with --images"
        )
    means: Sequence[tuple[str, float | None]] = (
        ("mean mask IoU", masks.iou_mean),
        ("mean IoU of informative masks", masks.iou_mean_informative),
    )
    for name, value in means:
        if value is not None and not value >= limits.mask_iou_mean:
            failures.append(f"{name} {value:.6f}, at least {limits.mask_iou_mean:g} expected")
    if not masks.iou_worst_judged >= limits.mask_iou_worst:
        failures.append(
            f"worst mask IoU {masks.iou_worst_judged:.6f}, at least {limits.mask_iou_worst:g} "
            f"expected ({masks.worst_case})"
        )
    embedding = outputs.get("image_embeddings")
    limit = limits.embedding_rms_rel
    if embedding is not None and limit is not None and not embedding.rms_rel_worst <= limit:
        failures.append(
            f"embedding differs by {embedding.rms_rel_worst:.2e} of its spread, at most "
            f"{limit:g} expected ({embedding.worst_case})"
        )
    return tuple(failures)
