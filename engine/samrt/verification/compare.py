"""Two engines, the same pictures and prompts: how far apart are the answers?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from samrt.errors import BackendError, BundleError
from samrt.gate import Thresholds, thresholds_for
from samrt.manifest import OutputSpec
from samrt.phantoms import PHANTOM_NAMES
from samrt.predictor import Predictor
from samrt.preprocess import ImageSource
from samrt.quoting import one_line
from samrt.selfcheck import canonical_feature, figures_of, supported_prompts
from samrt.types import ImageEmbedding, Prediction, Prompt
from samrt.verification.figures import ArrayTally, MaskTally, compare_masks
from samrt.verification.record import MIN_INFORMATIVE, MaskSummary, VerificationRecord, judge

__all__ = ["Case", "compare"]

_T = TypeVar("_T")
_MASK_BYTES_AT_ONCE = 128 * 1024 * 1024


class Case(Protocol):
    """A picture with prompts: :class:`samrt.phantoms.PhantomCase`, or one of the user's."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def image(self) -> ImageSource:
        """Anything that :meth:`samrt.Predictor.encode` takes."""

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Prompts that lie on the picture."""


def compare(
    reference: Predictor,
    candidate: Predictor,
    cases: Iterable[Case],
    *,
    precision: str | None = None,
    thresholds: Thresholds | None = None,
    against: str | None = None,
    min_informative: int = MIN_INFORMATIVE,
    progress: Callable[[str], None] | None = None,
) -> VerificationRecord:
    """Answer every prompt with both engines and sum up the differences.

    Each picture is encoded once by each. Every prompt that both models take is answered with
    several masks and, where that is another mask, with the single one; the candidate gets the
    prompts of a picture together and the reference one by one, so that batching is covered; where
    both take masks, one answer is fed back as ``mask_input``. Memory holds one picture and a
    bounded number of masks at a time.

    Args:
        reference: the truth, say ``Predictor(TorchModel(...))``.
        candidate: what is verified.
        cases: pictures with prompts; may be a generator.
        precision: decides the thresholds; of the candidate's encoder where ``None``.
        thresholds: in place of those of the precision.
        against: words for the reference in the record.
        min_informative: with fewer masks that are neither empty nor full the record says that the
            proof is weak; with none it fails.
        progress: is told what is being done.

    Raises:
        OptionError: a precision without thresholds.
        BackendError: the reference failed; a failure of the candidate is a result, not an error.
        BundleError: the two models differ in the shape of what they return.
    """
    info = candidate.info
    precision = info.precision_effective if precision is None else precision
    limits = thresholds_for(precision) if thresholds is None else thresholds
    run = _Run(reference, candidate, MaskTally(limits.slack_px), progress or _silent)
    for case in cases:
        run.add(case)
    masks = MaskSummary.of(run.masks)
    outputs = {name: tally.figures() for name, tally in run.outputs.items()}
    failures = (*run.failures, *judge(masks, outputs, limits))
    return VerificationRecord(
        passed=not failures,
        failures=failures,
        weaknesses=_weaknesses(run, masks, min_informative),
        precision=precision,
        against=against or _words(reference.info),
        candidate={
            "model_id": info.model_id,
            "files": dict(info.files),
            "form": info.form_effective,
            "precision": {"encoder": info.precision_effective, "decoder": info.decoder_precision},
            "backend": info.backend_effective,
            "backend_version": info.backend_version,
        },
        image_names=tuple(run.names),
        prompts=run.prompts,
        prompts_left_out=run.left_out,
        outputs=outputs,
        masks=masks,
        thresholds=limits,
        expected=run.expected,
    )


def _silent(_: str) -> None:
    pass


def _words(info: Any) -> str:
    digest = f", checkpoint sha256 {info.sha256}" if info.sha256 else ""
    return (
        f"{info.variant} in {info.backend_effective} {info.backend_version}, "
        f"{info.precision_effective}{digest}"
    )


def _weaknesses(run: _Run, masks: MaskSummary, min_informative: int) -> tuple[str, ...]:
    found = []
    if 0 < masks.informative < min_informative:
        found.append(
            f"only {masks.informative} of {masks.masks} masks are neither empty nor the whole "
            f"image, {min_informative} are wanted: add pictures of your own with --images"
        )
    if run.left_out:
        found.append(f"{run.left_out} prompts were left out, the model does not take them")
    return tuple(found)


class _Run:
    """Tallies of a verification in progress."""

    def __init__(
        self,
        reference: Predictor,
        candidate: Predictor,
        masks: MaskTally,
        progress: Callable[[str], None],
    ) -> None:
        self.reference, self.candidate, self.progress = reference, candidate, progress
        self.masks = masks
        self.outputs = {
            name: ArrayTally() for name in ("image_embeddings", "low_res_masks", "iou_predictions")
        }
        self.names: list[str] = []
        self.failures: list[str] = []
        self.expected: dict[str, Any] = {}
        self.prompts = 0
        self.left_out = 0

    def add(self, case: Case) -> None:
        """Compare the two on one picture."""
        self.names.append(case.name)
        self.progress(f"{case.name}: reference")
        truth = self.reference.encode(case.image)
        self.progress(f"{case.name}: candidate")
        try:
            found = _or_fail(lambda: self.candidate.encode(case.image))
            self._embedding(case.name, truth, found)
            self._answers(case, truth, found)
        except _CandidateError as exc:
            self.failures.append(f"the candidate failed on {case.name}: {exc}")

    def _embedding(self, name: str, truth: ImageEmbedding, found: ImageEmbedding) -> None:
        key, wanted = canonical_feature(truth)
        have = found.features.get(key)
        if have is None or have.shape != wanted.shape:
            got = "nothing of that name" if have is None else f"{have.shape}"
            raise BundleError(
                f"the reference's {key} is {wanted.shape}, the candidate has {got}: "
                "the two are not the same model at the same input size"
            )
        self.outputs["image_embeddings"].add(name, wanted, have)

    def _answers(self, case: Case, truth: ImageEmbedding, found: ImageEmbedding) -> None:
        size, prompts = truth.original_size, list(case.prompts)
        for predictor in (self.reference, self.candidate):
            prompts = supported_prompts(prompts, size, predictor.manifest.prompts)
        self.left_out += len(case.prompts) - len(prompts)
        named = list(zip(_prompt_names(prompts), prompts, strict=True))
        recorded: list[Prediction] = []
        for multimask in _modes(self.reference.manifest.output, self.candidate.manifest.output):
            for part in self._parts(named, truth):
                answers = self._both(case.name, part, truth, found, multimask=multimask)
                if multimask:
                    recorded += answers
        self.prompts += len(prompts)
        taken = supported_prompts(case.prompts, size, self.candidate.manifest.prompts)
        if case.name in PHANTOM_NAMES and len(taken) == len(prompts):
            self.expected[case.name] = figures_of(found, recorded[: len(prompts)])

    def _parts(
        self, named: list[tuple[str, Prompt]], truth: ImageEmbedding
    ) -> Iterator[list[tuple[str, Prompt]]]:
        """The prompts in slices whose masks fit into memory, then one that feeds a mask back."""
        height, width = truth.original_size
        room = max(self.reference.manifest.output.num_masks * height * width, 1)
        step = max(1, _MASK_BYTES_AT_ONCE // room)
        for start in range(0, len(named), step):
            yield named[start : start + step]
        takes = all(p.manifest.prompts.mask for p in (self.reference, self.candidate))
        if named and takes:
            name, prompt = named[0]
            yield [(f"{name}+mask", _fed_back(self.reference, truth, prompt))]

    def _both(
        self,
        case: str,
        named: Sequence[tuple[str, Prompt]],
        truth: ImageEmbedding,
        found: ImageEmbedding,
        *,
        multimask: bool,
    ) -> list[Prediction]:
        prompts = [prompt for _, prompt in named]
        answers = _or_fail(
            lambda: self.candidate.decode(found, prompts, multimask_output=multimask)
        )
        kind = "" if multimask else "/single"
        for (name, prompt), have in zip(named, answers, strict=True):
            want = self.reference.decode(truth, prompt, multimask_output=multimask)[0]
            self._prediction(f"{case}/{name}{kind}", want, have)
        return answers

    def _prediction(self, name: str, want: Prediction, have: Prediction) -> None:
        if want.logits.shape != have.logits.shape:
            raise BundleError(
                f"the reference's masks are {want.logits.shape}, the candidate's "
                f"{have.logits.shape}: the two are not the same model at the same input size"
            )
        self.outputs["low_res_masks"].add(name, want.logits, have.logits)
        self.outputs["iou_predictions"].add(name, want.scores, have.scores)
        for index, (first, second) in enumerate(zip(want.masks, have.masks, strict=True)):
            self.masks.add(f"{name}/mask{index}", compare_masks(first, second))


class _CandidateError(Exception):
    """The candidate failed, as opposed to the reference."""


def _or_fail(call: Callable[[], _T]) -> _T:
    """Run the candidate; what the reference raises must not be taken for its failure."""
    try:
        return call()
    except BackendError as exc:
        raise _CandidateError(one_line(exc)) from exc


def _fed_back(reference: Predictor, truth: ImageEmbedding, prompt: Prompt) -> Prompt:
    first = reference.decode(truth, prompt)[0]
    return Prompt(
        box=prompt.box,
        point_coords=prompt.point_coords,
        point_labels=prompt.point_labels,
        mask_input=np.array(first.logits[first.best]),
    )


def _modes(*specs: OutputSpec) -> tuple[bool, ...]:
    """Several masks, and the single one where that is not among them."""
    covered = all(
        spec.single_mask == "index" and spec.single_mask_index in spec.multimask_indices
        for spec in specs
    )
    return (True,) if covered else (True, False)


def _prompt_names(prompts: Sequence[Prompt]) -> list[str]:
    names = []
    for number, prompt in enumerate(prompts, 1):
        parts = ["box"] if prompt.box is not None else []
        if prompt.point_coords is not None:
            count = len(prompt.point_coords)
            parts.append("point" if count == 1 else f"{count}points")
        names.append(f"{number}:{'+'.join(parts) or 'mask'}")
    return names
