"""Outlier channels as in real SAM: naive float16 fails the gate, measured islands pass it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from samrt.bundle import Bundle
from samrt.phantoms import PhantomCase
from samrt.predictor import Predictor, load
from samrt_export.precision import add_precision
from samrt_export.precision.half import statistics_of
from samrt_export.precision.search import in_words
from samrt_export.precision.trial import ROLES, Trial, error_growth
from samrt_export.verify import VerificationRecord, compare

from .conftest import OUTLIER, add_outlier_channel, add_overflow, truth_of

Make = Callable[..., tuple[Any, Bundle]]


@dataclass
class Subject:
    """A network with outliers, its bundle, and the conversions of its graphs."""

    bundle: Bundle
    truth: Predictor
    trial: Trial
    cases: list[PhantomCase]

    def judged(self, **sessions: Any) -> VerificationRecord:
        chosen = {role: sessions.get(role) or self.trial.exact(role) for role in ROLES}
        predictor = self.trial.predictor(chosen)
        return compare(self.truth, predictor, self.cases, precision="fp16")

    def rounded(self, role: str, float32: set[str], **options: bool) -> Any:
        return self.trial.emulated(role, self.trial.convert(role, float32, **options))


@pytest.fixture(scope="module")
def subject(make_bundle: Make, few_cases: list[PhantomCase]) -> Iterator[Subject]:
    loaded, bundle = make_bundle(add_outlier_channel)
    with load(bundle.path) as own:
        trial = Trial(bundle, own.info, None)
    yield Subject(bundle, truth_of(loaded, bundle), trial, few_cases)
    trial.close()


def test_the_outliers_are_those_of_real_sam(subject: Subject) -> None:
    graph = subject.trial.graphs["encoder"]
    image = np.zeros((1, 3, 256, 256), np.float32)
    from samrt_export.precision import RangeSession

    session = RangeSession(graph, "encoder")
    session.run({"image": image})
    inputs = [n.input[0] for n in graph.nodes if n.op_type == "LayerNormalization"][:8]
    assert all(1e3 < session.ranges.abs_max[name] < 2 * OUTLIER for name in inputs)


def test_float32_passes(subject: Subject) -> None:
    record = subject.judged()
    assert record.passed, record.failures
    assert record.masks.informative >= 10


def test_everything_in_float16_fails(subject: Subject) -> None:
    """Squares of 1.4e3 overflow inside the norms: their output is their bias, whatever they see."""
    record = subject.judged(encoder=subject.rounded("encoder", set(), half_statistics=True))
    assert not record.passed
    assert record.masks.iou_mean < 0.96, in_words(record)
    assert record.masks.iou_worst_judged < 0.9
    ours = subject.judged(
        encoder=subject.rounded("encoder", statistics_of(subject.trial.graphs["encoder"]))
    )
    assert ours.passed
    far, near = (r.outputs["image_embeddings"].rms_rel for r in (record, ours))
    assert far > 100 * near


def test_the_growth_of_the_error_names_the_first_norm(subject: Subject) -> None:
    graph = subject.trial.graphs["encoder"]
    half = subject.trial.convert("encoder", set(), half_statistics=True)
    image = np.random.default_rng(0).standard_normal((1, 3, 256, 256)).astype(np.float32)
    growth = list(error_growth(graph, half, {"image": image}, None).items())
    exploded = next(group for group, error in growth if error > 0.3)
    assert "norm" in exploded or "blocks.0" in exploded, growth


@pytest.mark.usefixtures("few_phantoms")
def test_measured_islands_pass(subject: Subject, tmp_path: Any) -> None:
    lines: list[str] = []
    made = add_precision(
        subject.bundle.path, out=tmp_path / "half.samrt", reference=subject.truth,
        progress=lines.append,
    )  # fmt: skip
    assert made.manifest.parity is not None
    record = made.manifest.parity["other_precisions"]["fp16"]
    assert record["passed"] is True
    assert record["mask_iou_mean"] >= 0.998
    assert record["masks"]["iou_worst_judged"] >= 0.99
    assert record["candidate"]["backend"] == "float16 emulation"
    said = [line for line in lines if line.startswith("encoder island") and "statistics" in line]
    assert said
    assert "squares 2.0" in said[0]  # and 1.4e3 squared is the reason
    roles = made.manifest.calibration["fp16"]["roles"]  # type: ignore[index]
    assert roles["encoder"]["nodes"]["fp16"] > 2 * roles["encoder"]["nodes"]["fp32"]


def test_a_fixed_list_is_not_enough(
    make_bundle: Make, few_cases: list[PhantomCase], tmp_path: Any, few_phantoms: None
) -> None:
    """An MLP beyond 65504: norms in float32 do not help, islands of the measured ranges do."""
    loaded, bundle = make_bundle(add_outlier_channel, add_overflow)
    truth = truth_of(loaded, bundle)
    with load(bundle.path) as own:
        trial = Trial(bundle, own.info, None)
    listed = trial.convert("encoder", statistics_of(trial.graphs["encoder"]))
    sessions = {"encoder": trial.emulated("encoder", listed), "decoder": trial.exact("decoder")}
    record = compare(truth, trial.predictor(sessions), few_cases, precision="fp16")
    assert not record.passed
    assert "NaN" in " ".join(record.failures)
    made = add_precision(bundle.path, out=tmp_path / "half.samrt", reference=truth)
    islands = made.manifest.calibration["fp16"]["roles"]["encoder"]["islands"]  # type: ignore[index]
    found = [island for island in islands if island["kind"] == "overflow"]
    assert found
    assert all("blocks.2/mlp" in island["scope"] for island in found)
    assert max(island["figure"] for island in found) > 65504
