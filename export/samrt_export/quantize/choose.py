"""Scales of one layer, chosen by the measured error of what it returns.

Tried are the clips of the input's histogram and, behind a LayerNormalization, the migration of
large channels into the weight (Xiao et al., "SmoothQuant", ICML 2023, equation 4): the norm's
output is divided by s_k = max|x_k|^a / max|w_k|^(1-a) and row k of the weight multiplied by it.
Every combination quantises sampled inputs and the weight and compares the products with those of
float32; the mean difference per output is what bias correction adds (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2), so
only its variance counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.quantize.arithmetic import F32, as_matrix, quantise_rows, quantise_weight
from samrt_export.quantize.histogram import LEVELS, AbsHistogram
from samrt_export.quantize.layers import Layer
from samrt_export.quantize.statistics import Statistics

__all__ = ["ALPHAS", "METHODS", "Choice", "choose"]

ALPHAS = (0.0, 0.3, 0.5, 0.65, 0.8)
METHODS = ("auto", "max", "percentile", "mse", "entropy")
_SEARCH_VALUES = 1 << 18
_FEWEST_ROWS = 64
_TINY = np.float32(1e-9)


@dataclass(frozen=True)
class Choice:
    """How a layer is quantised.

    Attributes:
        layer: the layer.
        method: which clip of the input it is.
        clip: what 127 stands for at the input.
        alpha: strength of the migration; 0 where there is none.
        smooth: (K,) what the input is divided by; ``None``: nothing.
        correction: (N,) what is added to the bias.
        output_clip: what 127 stands for behind the layer; ``None`` without a pair there.
        output_method: which clip that is.
        error: rms error of the result over its rms, after bias correction.
        plain_error: the same with the largest value as clip, no migration, no correction.
    """

    layer: Layer
    method: str
    clip: float
    alpha: float
    smooth: F32 | None
    correction: F32
    output_clip: float | None
    output_method: str | None
    error: float
    plain_error: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        found: dict[str, Any] = {
            "node": self.layer.name,
            "kind": self.layer.kind,
            "method": self.method,
            "scale": _digits(self.clip / LEVELS),
            "smoothing": self.alpha,
            "error": _digits(self.error),
            "plain_error": _digits(self.plain_error),
        }
        if self.output_clip is not None:
            found["output_method"] = self.output_method
            found["output_scale"] = _digits(self.output_clip / LEVELS)
        return found


def choose(
    graph: FloatGraph, layer: Layer, statistics: Statistics, *, method: str = "auto",
    alphas: Sequence[float] = ALPHAS, correct: bool = True, tied: float | None = None,
) -> Choice:  # fmt: skip
    """Find the scales with the smallest error.

    Args:
        graph: holds the weight.
        layer: the layer.
        statistics: what calibration has kept.
        method: try only clips of this name; ``auto`` tries all.
        alphas: strengths of migration that are tried; 0 is none.
        correct: correct the bias, where the layer has one to correct.
        tied: the clip of the pair that made the input, which is rounded without loss by the same.
    """
    rows, weight = statistics.rows[layer.key], as_matrix(layer, graph.constant(layer.weight))
    few = rows[: max(_SEARCH_VALUES // rows.shape[1], _FEWEST_ROWS)]
    exact = few @ weight
    size = float(np.sqrt(np.mean(np.square(exact)))) or 1.0
    can_correct = correct and (layer.bias is not None or layer.kind == "conv")
    best: tuple[float, str, float, float, F32 | None] | None = None
    plain = 0.0
    for alpha, smooth in _migrations(layer, statistics, weight, alphas):
        inputs = few if smooth is None else few / smooth
        scaled = weight if smooth is None else weight * smooth[:, None]
        rounded = _rounded(scaled)
        clips = _clips(layer, statistics, inputs, smooth, method)
        for name, clip in clips if tied is None else (("tied", tied),):
            gap = quantise_rows(inputs, clip) @ rounded - exact
            if name in ("max", "tied") and smooth is None:
                plain = float(np.sqrt(np.mean(np.square(gap)))) / size
            if can_correct:
                gap = gap - gap.mean(axis=0)
            error = float(np.sqrt(np.mean(np.square(gap)))) / size
            if best is None or error < best[0]:
                best = (error, name, clip, alpha, smooth)
    if best is None:
        raise ValueError(f"no clip of {layer.name} is called {method!r}")
    error, name, clip, alpha, smooth = best
    correction = np.zeros(weight.shape[1], np.float32)
    if can_correct:
        correction = _correction(rows, weight, clip, smooth)
    output_name, output_clip = _output_clip(layer, statistics, method)
    return Choice(
        layer, name, clip, alpha, smooth, correction, output_clip, output_name, error, plain
    )


def _rounded(weight: F32) -> F32:
    values, scales = quantise_weight(weight, 1)
    return values.astype(np.float32) * scales


def _migrations(
    layer: Layer, statistics: Statistics, weight: F32, alphas: Sequence[float]
) -> Iterator[tuple[float, F32 | None]]:
    for alpha in alphas:
        if alpha == 0.0:
            yield alpha, None
        elif layer.norm is not None:
            most = np.maximum(statistics.channels[layer.key], _TINY).astype(np.float64)
            heavy = np.maximum(np.abs(weight).max(axis=1), _TINY).astype(np.float64)
            factors = most**alpha / heavy ** (1.0 - alpha)
            factors /= np.exp(np.mean(np.log(factors)))
            yield alpha, np.clip(factors, 1e-4, 1e4).astype(np.float32)


def _clips(
    layer: Layer, statistics: Statistics, inputs: F32, smooth: F32 | None, method: str
) -> Iterator[tuple[str, float]]:
    """Name and value of every clip to try; of migrated inputs the distribution of the rows."""
    if smooth is None:
        found = statistics.histograms[layer.source].clips()
    else:
        histogram = AbsHistogram()
        histogram.add(inputs)
        found = histogram.clips()
        found["max"] = float((statistics.channels[layer.key] / smooth).max())
    for name, clip in found.items():
        if method == "auto" or name.startswith(method):
            yield name, clip


def _correction(rows: F32, weight: F32, clip: float, smooth: F32 | None) -> F32:
    inputs = rows if smooth is None else rows / smooth
    scaled = weight if smooth is None else weight * smooth[:, None]
    wanted = rows.mean(axis=0, dtype=np.float64) @ weight
    got = quantise_rows(inputs, clip).mean(axis=0, dtype=np.float64) @ _rounded(scaled)
    found: F32 = (wanted - got).astype(np.float32)
    return found


def _output_clip(
    layer: Layer, statistics: Statistics, method: str
) -> tuple[str | None, float | None]:
    """The clip of the pair behind a layer: the one with the smallest error of the tensor itself."""
    if not layer.quantise_output:
        return None, None
    histogram = statistics.histograms[layer.result]
    found = {n: c for n, c in histogram.clips().items() if method == "auto" or n.startswith(method)}
    name = min(found, key=lambda n: histogram.error(found[n]))
    return name, found[name]


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
