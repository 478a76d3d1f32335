"""Scales by measured error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph
from samrt_export.quantize import find_layers
from samrt_export.quantize.choose import choose
from samrt_export.quantize.statistics import Statistics

from .conftest import F32, normal, ranges, stored


def linear(tmp_path: Path, *, channel: float, shift: float = 0.0) -> tuple[FloatGraph, Statistics]:
    """Norm and linear layer; one channel is larger than the others, the weight makes up for it."""
    g = GraphBuilder("g")
    x = g.input("image", (1, 128, 32))
    gain, weight = np.ones(32, np.float32), normal(0, 48, 32, scale=0.2)
    gain[5], weight[:, 5] = channel, weight[:, 5] / channel
    y = g.layer_norm(x, gain, np.full(32, shift, np.float32), 1e-6)
    y = g.linear(y, weight, normal(1, 48))
    graph = stored(g, tmp_path, {y: (1, 128, 48)})
    runs: list[dict[str, F32]] = [{"image": normal(k, 1, 128, 32)} for k in range(4)]
    return graph, ranges(graph, find_layers(graph)[0], runs)


def test_a_large_channel_migrates_into_the_weight(tmp_path: Path) -> None:
    graph, statistics = linear(tmp_path, channel=100.0)
    (layer,) = find_layers(graph)[0]
    found = choose(graph, layer, statistics)
    assert found.alpha > 0
    assert found.smooth is not None
    assert found.smooth[5] > 10 * np.delete(found.smooth, 5).max()
    assert found.error < 0.1 * found.plain_error
    without = choose(graph, layer, statistics, alphas=(0.0,))
    assert without.smooth is None
    assert found.error < 0.3 * without.error


def test_without_large_channels_the_error_is_small_anyway(tmp_path: Path) -> None:
    graph, statistics = linear(tmp_path, channel=1.0)
    (layer,) = find_layers(graph)[0]
    found = choose(graph, layer, statistics)
    assert found.error <= found.plain_error < 0.03


def test_the_correction_is_the_mean_error(tmp_path: Path) -> None:
    graph, statistics = linear(tmp_path, channel=30.0, shift=3.0)
    (layer,) = find_layers(graph)[0]
    found = choose(graph, layer, statistics, method="max", alphas=(0.0,))
    assert found.method == "max"
    assert np.abs(found.correction).max() > 0
    none = choose(graph, layer, statistics, method="max", alphas=(0.0,), correct=False)
    assert not none.correction.any()
    assert found.error < none.error


def test_methods_are_kept_to(mixed: FloatGraph) -> None:
    layers, _ = find_layers(mixed)
    statistics = ranges(mixed, layers, [{"image": normal(3, 1, 3, 32, 32)}])
    for method in ("max", "percentile", "mse", "entropy"):
        found = choose(mixed, layers[0], statistics, method=method)
        assert found.method.startswith(method)
        assert found.output_method is not None
        assert found.output_method.startswith(method)
    best = choose(mixed, layers[0], statistics)
    assert best.error <= min(
        choose(mixed, layers[0], statistics, method=m).error for m in ("max", "mse", "entropy")
    )
    with pytest.raises(ValueError, match="nonsense"):
        choose(mixed, layers[0], statistics, method="nonsense")


def test_a_tied_layer_reads_by_the_scale_that_its_input_was_made_with(mixed: FloatGraph) -> None:
    layers, _ = find_layers(mixed)
    statistics = ranges(mixed, layers, [{"image": normal(3, 1, 3, 32, 32)}])
    first = choose(mixed, layers[0], statistics)
    assert layers[1].source == layers[0].result
    second = choose(mixed, layers[1], statistics, tied=first.output_clip)
    assert second.clip == first.output_clip
    assert second.method == "tied"
