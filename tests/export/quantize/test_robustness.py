"""Outlier channels as in real SAM: plain per-tensor int8 fails the gate, ours passes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samrt.bundle import Bundle  # noqa: E402
from samrt.phantoms import PhantomCase  # noqa: E402
from samrt.predictor import load  # noqa: E402
from samrt_export.precision.trial import Trial, predictor_of  # noqa: E402
from samrt_export.quantize import quantize, to_int8, write  # noqa: E402
from samrt_export.quantize.choose import choose  # noqa: E402
from samrt_export.quantize.layers import find_layers  # noqa: E402
from samrt_export.quantize.search import Attempt  # noqa: E402
from samrt_export.verify import THRESHOLDS, VerificationRecord  # noqa: E402

from ..precision.conftest import add_outlier_channel  # noqa: E402

CHANNELS, FACTOR = [3, 31, 64], 200.0


def add_outliers_behind_norms(network: Any) -> None:
    """Three channels two hundred times as large, and the next layer that looks away from them."""
    with torch.no_grad():
        for block in network.image_encoder.blocks:
            for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.lin1)):
                norm.weight[CHANNELS] *= FACTOR
                norm.bias[CHANNELS] *= FACTOR
                layer.weight[:, CHANNELS] /= FACTOR


def louder_blocks(network: Any) -> None:
    """So that the answer depends on the blocks: random ones hardly move the residual stream."""
    with torch.no_grad():
        for block in network.image_encoder.blocks:
            block.attn.proj.weight *= 4.0
            block.mlp.lin2.weight *= 4.0


def per_tensor(weight: Any, axis: int) -> Any:
    scale = np.float32(np.abs(weight).max() / 127)
    scales = np.full(weight.shape[axis], scale, np.float32)
    return np.rint(weight / scale).astype(np.int8), scales


@pytest.fixture(scope="module")
def subject(make_bundle: Callable[..., Any]) -> Bundle:
    bundle: Bundle = make_bundle(louder_blocks, add_outlier_channel, add_outliers_behind_norms)[1]
    return bundle


def test_plain_int8_fails(
    subject: Bundle, few_cases: list[PhantomCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Largest values as clips, one scale per tensor, nothing else."""
    with load(subject.path) as own:
        trial = Trial(subject, own.info, None)
        graph = trial.graphs["encoder"]
        layers, _ = find_layers(graph)
        statistics = _measured(subject, own, trial, layers, few_cases)
        plain = [
            choose(graph, layer, statistics, method="max", alphas=(0.0,), correct=False)
            for layer in layers
        ]
        ours = [choose(graph, layer, statistics) for layer in layers]
        attempt = Attempt(trial, own.info, tmp_path)
        good = attempt.record(to_int8(graph, ours), own, few_cases)
        monkeypatch.setattr(write, "quantise_weight", per_tensor)
        bad = attempt.record(to_int8(graph, plain), own, few_cases)
        trial.close()
    assert bad.masks.informative >= 5
    assert not bad.passed
    assert bad.masks.iou_mean < THRESHOLDS["int8"].mask_iou_mean
    assert good.passed, good.failures
    assert _error(bad) > 5 * _error(good)
    assert sum(choice.alpha > 0 for choice in ours) >= 6


def _error(record: VerificationRecord) -> float:
    return record.outputs["low_res_masks"].rms_rel


def _measured(bundle: Bundle, own: Any, trial: Trial, layers: Any, cases: Any) -> Any:
    from samrt_export.quantize.calibrate import WatchingSession
    from samrt_export.quantize.statistics import Statistics, tensors_of

    found = Statistics(len(cases))
    names = list(dict.fromkeys(n for layer in layers for n in tensors_of(layer)))
    graph = trial.graphs["encoder"]
    watching = WatchingSession(graph, names, lambda values: found.add(layers, values, seed=0))
    with closing(watching) as session:
        sessions = {"encoder": session, "decoder": trial.exact("decoder")}
        predictor = predictor_of(bundle, replace(own.info), sessions)
        for case in cases:
            predictor.encode(case.image)
    return found


@pytest.mark.usefixtures("few_pictures", "cache")
def test_ours_passes_the_gate(subject: Bundle, folder: Path, tmp_path: Path) -> None:
    made = quantize(subject.path, folder, out=tmp_path / "q.samrt")
    assert made.manifest.parity is not None
    record = made.manifest.parity["other_precisions"]["int8"]
    assert record["passed"]
    assert record["mask_iou_mean"] >= 0.98
    assert record["masks"]["iou_worst_judged"] >= 0.93
    assert made.manifest.calibration is not None
    entry = made.manifest.calibration["int8"]
    assert len(entry["layers"]) >= 12
