"""From checked prompts to predictions: one decoder call for prompts that may share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from samrt.classes import class_map, class_masks
from samrt.errors import OptionError, PromptError
from samrt.geometry import Placement
from samrt.manifest import Manifest, OutputSpec, PromptSpec
from samrt.model import Model
from samrt.postprocess import (
    Multimask,
    best_index,
    empty_mask_warnings,
    full_size_logits,
    make_masks,
    mask_indices,
    returned_logits,
)
from samrt.prompts import check_prompt, decoder_input, prompt_length
from samrt.types import ImageEmbedding, Prediction, Prompt, Size

__all__ = [
    "MOST_REFINE_STEPS",
    "check_prompts",
    "check_refine_steps",
    "decode_together",
    "group_prompts",
    "placement_of",
]

MOST_REFINE_STEPS = 10


def check_prompts(prompts: Sequence[Prompt], image_size: Size, manifest: Manifest) -> None:
    """Check all prompts against an image and a model before anything is computed.

    Raises:
        PromptError: the first bad one; with several, the message starts with its number.
    """
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, Prompt):
            raise PromptError(
                f"prompt {number} is {type(prompt).__name__}, expected samrt.Prompt(box=..., "
                "point_coords=..., point_labels=..., mask_input=...)"
            )
        try:
            check_prompt(
                prompt,
                image_size,
                low_res_size=manifest.output.low_res_size,
                spec=manifest.prompts,
            )
        except PromptError as exc:
            if len(prompts) == 1:
                raise
            raise PromptError(f"prompt {number}: {exc}") from None


def check_refine_steps(steps: int, manifest: Manifest) -> None:
    """Check a number of refining steps against a model.

    Raises:
        OptionError: no whole number from 0 to 10, or more than 0 for a model that cannot be given
            its own mask.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= MOST_REFINE_STEPS:
        raise OptionError(
            f"refine_steps must be a whole number from 0 to {MOST_REFINE_STEPS}, got {steps!r}"
        )
    if steps and not (manifest.prompts.mask and manifest.output.kind == "masks"):
        raise OptionError(
            "this model takes no mask as a prompt, so it cannot refine its own: "
            f"leave refine_steps at 0, got {steps}"
        )


def group_prompts(prompts: Sequence[Prompt], spec: PromptSpec, chunk_size: int) -> list[list[int]]:
    """Indices of the prompts of each decoder call, at most ``chunk_size`` per call.

    Filling a short prompt up with padding points changes SAM's answer to it, because padding
    takes part in the decoder's attention. So prompts share a call only if they have the same
    length, unless the model declares its padding inert. A model without prompts answers once per
    call.
    """
    if not spec.takes_prompts:
        return [[index] for index in range(len(prompts))]
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        length = 0 if spec.padding_inert else prompt_length(prompt, spec)
        by_length.setdefault(length, []).append(index)
    return [
        members[start : start + chunk_size]
        for members in by_length.values()
        for start in range(0, len(members), chunk_size)
    ]


def decode_together(
    model: Model,
    embedding: ImageEmbedding,
    prompts: Sequence[Prompt],
    *,
    multimask: Multimask,
    return_logits: bool,
    refine_steps: int = 0,
) -> list[Prediction]:
    """Answer checked prompts with one decoder call, or one and `refine_steps` further ones.

    Each further call asks the same and gives the best mask of the call before as mask input, as
    the cascaded post-refinement of PerSAM does (Zhang et al. 2023, arXiv 2305.03048). The answers
    share no memory.
    """
    manifest = model.bundle.manifest
    start = perf_counter()
    tokens = decoder_input(
        prompts, placement_of(embedding), manifest.prompts, manifest.output.low_res_size
    )
    logits, scores = model.run_decoder(embedding.features, tokens)
    for _ in range(refine_steps):
        tokens = replace(
            tokens,
            mask_input=_best_logits(logits, scores, manifest.output, multimask),
            has_mask_input=np.ones(len(prompts), np.float32),
        )
        logits, scores = model.run_decoder(embedding.features, tokens)
    share_ms = (perf_counter() - start) * 1000.0 / len(prompts)
    finish = _finish_classes if manifest.output.kind == "classes" else _finish_masks
    found = [
        finish(model, embedding, prompt, logits[i], scores[i], multimask, share_ms, return_logits)
        for i, prompt in enumerate(prompts)
    ]
    return [replace(one, refine_steps=refine_steps) for one in found] if refine_steps else found


def _best_logits(
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    output: OutputSpec,
    multimask: Multimask,
) -> NDArray[np.float32]:
    """``(N, 1, h, w)``: of the masks that the caller would get, the one ranked highest."""
    chosen = [
        own[best_index(output, rank, own, mask_indices(output, rank, own, multimask=multimask))]
        for own, rank in zip(logits, scores, strict=True)
    ]
    return returned_logits(np.stack(chosen)[:, None], output)


def _finish_masks(
    model: Model,
    embedding: ImageEmbedding,
    prompt: Prompt,
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    multimask: Multimask,
    decode_ms: float,
    return_logits: bool,
) -> Prediction:
    output, threads = model.bundle.manifest.output, model.info.threads
    placement = placement_of(embedding)
    start = perf_counter()
    keep = list(mask_indices(output, scores, logits, multimask=multimask))
    chosen = logits[keep]
    found = make_masks(chosen, placement, output, threads=threads)
    full: NDArray[np.float32] | None = None
    if return_logits:
        full = full_size_logits(chosen, placement, output, threads=threads)
    elapsed_ms = (perf_counter() - start) * 1000.0
    return Prediction(
        masks=found.masks,
        scores=scores[keep],
        logits=returned_logits(chosen, output),
        stability=found.stability,
        areas_px=found.areas_px,
        boxes=found.boxes,
        prompt=prompt,
        timings=replace(embedding.timings, decode_prompt_ms=decode_ms, postprocess_ms=elapsed_ms),
        warnings=(*_remarks(model, embedding), *empty_mask_warnings(found.areas_px)),
        mask_logits=full,
        ranked_by=output.mask_choice,
        verification=model.info.verification.state,
    )


def _finish_classes(
    model: Model,
    embedding: ImageEmbedding,
    prompt: Prompt,
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    multimask: Multimask,
    decode_ms: float,
    return_logits: bool,
) -> Prediction:
    """The same for classes; what the decoder predicts for ``scores`` is not used."""
    output = model.bundle.manifest.output
    placement = placement_of(embedding)
    start = perf_counter()
    competition = class_map(logits, placement, output, threads=model.info.threads)
    keep = list(mask_indices(output, competition.scores, logits, multimask=multimask))
    found, full = class_masks(
        logits, competition, keep, placement, output, with_logits=return_logits
    )
    elapsed_ms = (perf_counter() - start) * 1000.0
    return Prediction(
        masks=found.masks,
        scores=competition.scores[keep],
        logits=returned_logits(logits[keep], output),
        stability=found.stability,
        areas_px=found.areas_px,
        boxes=found.boxes,
        prompt=prompt,
        timings=replace(embedding.timings, decode_prompt_ms=decode_ms, postprocess_ms=elapsed_ms),
        warnings=_remarks(model, embedding),
        mask_logits=full,
        ranked_by=output.mask_choice,
        verification=model.info.verification.state,
    )


def _remarks(model: Model, embedding: ImageEmbedding) -> tuple[str, ...]:
    """What there is to say about the model and the image, each text once."""
    return tuple(dict.fromkeys((*model.info.warnings, *embedding.warnings)))


def placement_of(embedding: ImageEmbedding) -> Placement:
    """Where the encoded image lies in the model frame."""
    return Placement(
        embedding.original_size, embedding.input_size, embedding.frame_size, embedding.scale
    )
