"""Whole volumes: an object's masks of all slices put together and measured in 3-D.

Two ways of asking:

* ``slices``: every slice that holds the object is asked with its own tight box, as MedSAM is
  evaluated (Ma et al. 2024, Nat. Commun. 15:654). Slices of few pixels are asked too; others stay
  empty. Both rules of choosing a mask are kept, see :mod:`samrt.evaluation.runner`.
* ``propagate``: only the middle one of these slices is asked with its tight box, and
  :func:`samrt.propagation.propagate` follows the mask up and down until its own rules stop it. It
  is not told where the object ends.

Figures are those of :mod:`samrt.evaluation.metrics` in three dimensions, distances in millimetres.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError, ImageError, OptionError, PromptError
from samrt.evaluation.dataset import Dataset, Progress, Solid, tight_box
from samrt.evaluation.journal import Journal
from samrt.evaluation.metrics import dice
from samrt.evaluation.solids import measure_solid
from samrt.imaging.rle import mask_to_rle, rle_to_mask
from samrt.predictor import Predictor
from samrt.types import Prompt

__all__ = ["VOLUMES_NAME", "WAYS", "check_ways", "evaluate_volumes"]

VOLUMES_NAME = "volumes.jsonl"
WAYS = ("slices", "propagate")
_DIGITS = 6

Mask = NDArray[np.bool_]


def check_ways(ways: Sequence[str]) -> tuple[str, ...]:
    """Check names of :data:`WAYS`.

    Raises:
        OptionError: an unknown name.
    """
    for way in ways:
        if way not in WAYS:
            raise OptionError(f"unknown way {way!r} with volumes: expected {', '.join(WAYS)}")
    return tuple(way for way in WAYS if way in ways)


@dataclass(slots=True)
class _Answers:
    """Masks of one object: rule -> slice -> run lengths."""

    deployable: dict[int, Any] = field(default_factory=dict)
    oracle: dict[int, Any] = field(default_factory=dict)

    def solid(self, rule: str, shape: tuple[int, int, int]) -> Mask:
        masks = np.zeros(shape, np.bool_)
        for number, rle in getattr(self, rule).items():
            masks[number] = rle_to_mask(rle)
        return masks


def evaluate_volumes(
    engine: Predictor,
    dataset: Dataset,
    solids: Sequence[Solid],
    ways: Sequence[str],
    journal: Journal,
    *,
    tolerance: float = 2.0,
    refine_steps: int = 0,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> None:
    """Ask the model about every object that is not in the journal yet.

    Args:
        engine: a model that takes boxes.
        dataset: a data set with volumes.
        solids: objects of it.
        ways: names of :data:`WAYS`.
        journal: gets one record an object.
        tolerance: of the surface Dice in millimetres, or in voxels where spacing is unknown.
        refine_steps: of the answers on slices; following an object refines in its own way.
        skip_bad: note volumes that cannot be read and go on, instead of stopping.
        progress: told about each slice.

    Raises:
        DatasetError, ImageError: a volume cannot be read, unless ``skip_bad``.
        ExtraUnavailableError: SciPy or surface-distance is not installed.
        OptionError: the model takes no boxes, or an unknown way.
        BackendError: the runtime failed.
    """
    ways = check_ways(ways)
    if not engine.manifest.prompts.box:
        raise OptionError("this model takes no boxes: volumes need one that does")
    cases: dict[str, list[Solid]] = defaultdict(list)
    for solid in solids:
        if solid.key not in journal.done:
            cases[solid.case].append(solid)
    for case, group in cases.items():
        try:
            for record in _case(
                engine, dataset, case, group, ways, tolerance, refine_steps, progress
            ):
                journal.add(record)
        except (ImageError, DatasetError) as exc:
            if not skip_bad:
                raise
            for solid in group:
                if solid.key not in journal.done:
                    journal.add({"key": solid.key, "set": solid.set, "error": str(exc)})


def _case(
    engine: Predictor,
    dataset: Dataset,
    case: str,
    group: list[Solid],
    ways: tuple[str, ...],
    tolerance: float,
    refine_steps: int,
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    """Records of the objects of one volume."""
    labels = dataset.read_labels(case)
    if labels.shape != group[0].shape:
        raise DatasetError(f"{case} has changed: {labels.shape} labels, {group[0].shape} before")
    answers = {s.key: _Answers() for s in group}
    if "slices" in ways:
        answers = _ask_slices(engine, dataset, case, group, labels, refine_steps, progress)
    for solid in group:
        truth = labels == solid.label
        held = np.flatnonzero(truth.any(axis=(1, 2)))
        record = _facts(solid, held)
        for rule in ("deployable", "oracle") if "slices" in ways else ():
            answer = answers[solid.key].solid(rule, solid.shape)
            record["ways"].setdefault("slices", {})[rule] = _figures(
                answer, truth, solid, tolerance
            )
        if "propagate" in ways:
            record["ways"]["propagate"] = _followed(
                engine, dataset, solid, truth, held, tolerance, progress
            )
        yield record


def _ask_slices(
    engine: Predictor,
    dataset: Dataset,
    case: str,
    group: list[Solid],
    labels: NDArray[Any],
    refine_steps: int,
    progress: Progress | None,
) -> dict[str, _Answers]:
    """Every slice encoded once and asked with the box of each object in it."""
    answers = {s.key: _Answers() for s in group}
    for number, plane in enumerate(labels):
        if progress:
            progress(f"volume {case}", number, len(labels))
        there = [s for s in group if (plane == s.label).any()]
        if not there:
            continue
        embedding = engine.encode(dataset.read_slice(case, number))
        truths = [plane == s.label for s in there]
        prompts = [Prompt(box=_box(truth)) for truth in truths]
        found = engine.decode(embedding, prompts, refine_steps=refine_steps)
        for solid, truth, answer in zip(there, truths, found, strict=True):
            best = int(np.argmax([dice(mask, truth) for mask in answer.masks]))
            own = answers[solid.key]
            own.deployable[number] = mask_to_rle(answer.masks[answer.best])
            own.oracle[number] = mask_to_rle(answer.masks[best])
    if progress:
        progress(f"volume {case}", len(labels), len(labels))
    return answers


def _box(truth: Mask) -> tuple[float, float, float, float]:
    """The tight box with inclusive maxima, as in the evaluation of slices, never without area."""
    x0, y0, x1, y1 = tight_box(truth)
    return float(x0), float(y0), float(max(x1, x0 + 1)), float(max(y1, y0 + 1))


def _followed(
    engine: Predictor,
    dataset: Dataset,
    solid: Solid,
    truth: Mask,
    held: NDArray[np.int64],
    tolerance: float,
    progress: Progress | None,
) -> dict[str, Any]:
    """Propagation from the middle slice; finding nothing there is an empty answer."""
    from samrt.propagation import propagate

    start = int(held[len(held) // 2])
    answer = np.zeros(solid.shape, np.bool_)
    stopped: dict[str, str] = {}
    try:
        found = propagate(
            engine,
            lambda number: dataset.read_slice(solid.case, number),
            count=solid.shape[0],
            start=start,
            box=_box(truth[start]),
            progress=progress,
        )
    except PromptError as exc:
        stopped = {"start": str(exc)}
    else:
        found.fill(answer)
        stopped = found.stopped
    return {
        "start": start,
        "stopped": stopped,
        "slices": int(np.count_nonzero(answer.any(axis=(1, 2)))),
        "deployable": _figures(answer, truth, solid, tolerance),
    }


def _facts(solid: Solid, held: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "key": solid.key,
        "set": solid.set,
        "case": solid.case,
        "target": solid.name,
        "modality": solid.modality,
        "label": solid.label,
        "shape": list(solid.shape),
        "spacing": None if solid.spacing is None else list(solid.spacing),
        "voxels": solid.voxels,
        "slices": [int(held[0]), int(held[-1]), len(held)],
        "ways": {},
    }


def _figures(
    answer: Mask, truth: Mask, solid: Solid, tolerance: float
) -> dict[str, float | int | None]:
    found = measure_solid(answer, truth, solid.spacing, tolerance)
    figures: dict[str, float | int | None] = {
        name: None if value is None else round(value, _DIGITS) for name, value in found.items()
    }
    figures["voxels"] = int(np.count_nonzero(answer))
    return figures
