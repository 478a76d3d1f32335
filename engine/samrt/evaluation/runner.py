"""Running a data set: one image in memory at a time, one line on the disk per target."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError, ImageError, OptionError
from samrt.evaluation.clicks import Curve, run_clicks
from samrt.evaluation.dataset import Dataset, Progress, Solid, Target, grouped
from samrt.evaluation.everything import Generator, Match, make_generator, match_targets
from samrt.evaluation.journal import Journal
from samrt.evaluation.metrics import Truth, dice, ellipse_in, measure
from samrt.evaluation.strategies import Jitter, build_prompt, jitter_box
from samrt.evaluation.surfaces import need_scipy
from samrt.imaging.rle import mask_to_rle
from samrt.predictor import Predictor
from samrt.types import ImageEmbedding, Prediction, Prompt

__all__ = ["Plan", "check_plan", "config_of", "evaluate"]

Mask = NDArray[np.bool_]
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of the model for each target.

    Attributes:
        strategies: names of :data:`samrt.evaluation.strategies.STRATEGIES`.
        jitter: levels of the box jitter curve.
        clicks: clicks of the interactive curve; 0 for none.
        tolerance: of NSD, millimetres where the spacing is known, else pixels.
        seed: of everything random; each target has its own stream.
        refine_steps: see :meth:`samrt.Predictor.decode`; of every answer.
        skip_bad: note images that cannot be read and go on, instead of stopping.
    """

    strategies: tuple[str, ...]
    jitter: tuple[Jitter, ...] = ()
    clicks: int = 0
    tolerance: float = 2.0
    seed: int = 0
    skip_bad: bool = False
    refine_steps: int = 0


def config_of(
    engine: Predictor,
    dataset: Dataset,
    targets: Sequence[Target | Solid],
    plan: Plan,
    **more: Any,
) -> dict[str, Any]:
    """What a run depends on, JSON-ready; equal for runs whose records may be mixed."""
    from samrt._version import __version__

    info = engine.info
    keys = "\n".join(t.key for t in targets).encode("utf-8", "surrogatepass")
    return {
        "samrt": __version__,
        "model": {
            "name": info.name,
            "model_id": info.model_id,
            "precision": info.precision_effective,
            "decoder_precision": info.decoder_precision,
            "files": dict(info.files),
            "backend": info.backend_effective,
            "backend_version": info.backend_version,
            "threads": info.threads,
        },
        "dataset": {"format": dataset.kind, "digest": dataset.digest},
        "targets": {"count": len(targets), "crc32": f"{zlib.crc32(keys):08x}"},
        "strategies": list(plan.strategies),
        "jitter_px": [j.name for j in plan.jitter],
        "clicks": plan.clicks,
        "nsd_tolerance": plan.tolerance,
        "seed": plan.seed,
        **({"refine_steps": plan.refine_steps} if plan.refine_steps else {}),
        **more,
    }


def evaluate(
    engine: Predictor,
    dataset: Dataset,
    targets: Sequence[Target],
    plan: Plan,
    journal: Journal,
    *,
    progress: Progress | None = None,
) -> None:
    """Ask the model about every target that is not in the journal yet.

    Raises:
        ImageError, DatasetError: an image or mask cannot be read, unless ``plan.skip_bad``.
        ExtraUnavailableError: SciPy is not installed.
        OptionError: everything mode is asked for and not there.
        BackendError: the runtime failed.
    """
    need_scipy()
    generator = make_generator(engine) if "S1" in plan.strategies else None
    run = _Run(engine, dataset, plan, generator)
    pending = [t for t in targets if t.key not in journal.done]
    done = len(targets) - len(pending)
    for group in grouped(pending):
        if progress:
            progress(group[0].set, done, len(targets))
        try:
            for record in run.image(group):
                journal.add(record)
                done += 1
        except (ImageError, DatasetError) as exc:
            if not plan.skip_bad:
                raise
            for target in group:
                if target.key not in journal.done:
                    journal.add({"key": target.key, "set": target.set, "error": str(exc)})
                    done += 1
    if progress:
        progress("done", done, len(targets))


@dataclass(slots=True)
class _Run:
    engine: Predictor
    dataset: Dataset
    plan: Plan
    generator: Generator | None

    def image(self, group: list[Target]) -> Iterator[dict[str, Any]]:
        """Records of the targets of one image, one after the other."""
        start = perf_counter()
        image = self.dataset.read_image(group[0])
        read_ms = (perf_counter() - start) * 1000.0
        if image.shape[:2] != group[0].size:
            raise DatasetError(
                f"image {group[0].image} is {image.shape[:2]} and its mask {group[0].size}: "
                "they must have the same size"
            )
        embedding = self.engine.encode(image)
        times: dict[str, float] | None = {
            "decode_image": round(read_ms, 3),
            "preprocess": round(embedding.timings.preprocess_ms or 0.0, 3),
            "encode": round(embedding.timings.encode_ms or 0.0, 3),
        }
        matches: list[Match | None] = [None] * len(group)
        if self.generator is not None:
            masks = [self.dataset.read_mask(t) for t in group]
            matches = list(match_targets(self.generator, embedding, masks))
            if times is not None and matches[0] is not None:
                times["everything"] = round(matches[0].generate_ms, 3)
        for target, match in zip(group, matches, strict=True):
            record = self.target(target, embedding, match)
            record["image_ms"] = times
            times = None
            yield record

    def target(
        self, target: Target, embedding: ImageEmbedding, match: Match | None
    ) -> dict[str, Any]:
        """The record of one target."""
        mask = self.dataset.read_mask(target)
        truth = Truth(mask, target.spacing, self.plan.tolerance)
        box = target.given_box or target.box
        record = _facts(target)
        ellipse = measure(ellipse_in(target.box, target.size), truth)
        record["ellipse"] = {k: _round(ellipse[k]) for k in ("dice", "nsd")}
        asked = [s for s in self.plan.strategies if s != "S1"]
        prompts = [build_prompt(s, mask, box) for s in asked]
        rng = np.random.default_rng(
            [self.plan.seed, zlib.crc32(target.key.encode("utf-8", "surrogatepass"))]
        )
        moved = [jitter_box(rng, box, level, target.size) for level in self.plan.jitter]
        prompts += [Prompt(box=b) for b in moved]
        steps = self.plan.refine_steps
        answers = self.engine.decode(embedding, prompts, refine_steps=steps) if prompts else []
        record["strategies"] = {}
        if match is not None:
            record["strategies"]["S1"] = _everything(match, truth)
        for name, answer in zip(asked, answers, strict=False):
            record["strategies"][name] = _strategy(answer, truth)
        record["jitter"] = {
            level.name: {**_dices(answer, mask), "box": [round(v, 3) for v in b]}
            for level, answer, b in zip(self.plan.jitter, answers[len(asked) :], moved, strict=True)
        }
        if self.plan.clicks:
            curve = run_clicks(self.engine, embedding, mask, self.plan.clicks, steps)
            record["clicks"] = _curve(curve)
        return record


def _facts(target: Target) -> dict[str, Any]:
    return {
        "key": target.key,
        "set": target.set,
        "image": target.image,
        "target": target.name,
        "modality": target.modality,
        "part": target.part,
        "case": target.case,
        "label": target.label,
        "size": list(target.size),
        "area_px": target.area_px,
        "share": round(target.share, 7),
        "spacing": None if target.spacing is None else list(target.spacing),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)


def _figures(mask: Mask, truth: Truth) -> dict[str, float | None]:
    return {name: _round(value) for name, value in measure(mask, truth).items()}


def _dices(answer: Prediction, truth: Mask) -> dict[str, float | None]:
    values = [dice(mask, truth) for mask in answer.masks]
    return {"oracle": _round(max(values)), "deployable": _round(values[answer.best])}


def _strategy(answer: Prediction, truth: Truth) -> dict[str, Any]:
    """Both rules: the mask of the highest Dice, and the one the model ranks highest."""
    values = [dice(mask, truth.mask) for mask in answer.masks]
    best, oracle = answer.best, int(np.argmax(values))
    figures = _figures(answer.masks[best], truth)
    other = figures if oracle == best else _figures(answer.masks[oracle], truth)
    prompt = answer.prompt
    coords, labels = prompt.point_coords, prompt.point_labels
    return {
        "masks": len(answer.masks),
        "box": None if prompt.box is None else list(prompt.box),
        "points": None if coords is None else coords.tolist(),
        "labels": None if labels is None else labels.tolist(),
        "oracle": {"index": oracle, **other},
        "deployable": {"index": best, "score": _round(answer.scores[best]), **figures},
        "rle": mask_to_rle(answer.masks[best]),
        "decode_prompt_ms": _round(answer.timings.decode_prompt_ms),
        "postprocess_ms": _round(answer.timings.postprocess_ms),
    }


def _everything(match: Match, truth: Truth) -> dict[str, Any]:
    return {
        "masks": match.masks,
        "oracle": {"index": match.oracle[0], **_figures(match.oracle[1], truth)},
        "deployable": {
            "index": match.deployable[0],
            "score": _round(match.score),
            **_figures(match.deployable[1], truth),
        },
        "rle": mask_to_rle(match.deployable[1]),
        "oracle_rle": mask_to_rle(match.oracle[1]),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "dice": [_round(v) for v in curve.dice],
        "iou": [_round(v) for v in curve.iou],
        "points": curve.points,
        "ms": [_round(v) for v in curve.decode_ms],
    }


def check_plan(plan: Plan) -> None:
    """Check the numbers of a plan.

    Raises:
        OptionError: clicks outside 0 to 100, a seed below 0, a tolerance that is not positive and
            finite, or nothing asked.
    """
    if not (math.isfinite(plan.tolerance) and plan.tolerance > 0):
        raise OptionError(f"NSD tolerance must be positive, got {plan.tolerance:g}")
    if not 0 <= plan.clicks <= 100:
        raise OptionError(f"clicks must be 0 to 100, got {plan.clicks}")
    if plan.seed < 0:
        raise OptionError(f"seed must be 0 or more, got {plan.seed}")
    if not plan.strategies:
        raise OptionError("no strategy given: name at least one of S1 to S6")
