"""What calibration keeps of a run: histograms, channel maxima and a few rows, never activations."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.quantize.arithmetic import F32, sample_rows
from samrt_export.quantize.histogram import AbsHistogram
from samrt_export.quantize.layers import Layer

__all__ = ["STATE_FORMAT", "Statistics", "load_state", "save_state", "tensors_of"]

STATE_FORMAT = 1
_ROW_VALUES = 1 << 20
_FEWEST_ROWS, _MOST_ROWS = 256, 4096


def tensors_of(layer: Layer) -> tuple[str, ...]:
    """The tensors that are looked at for a layer."""
    return (layer.source, layer.result) if layer.quantise_output else (layer.source,)


@dataclass
class Statistics:
    """Running figures of the layers of one graph, bounded in size.

    Attributes:
        pictures: how many runs are planned; decides how many rows each may leave.
        histograms: tensor -> distribution of its absolute values.
        channels: key of a layer behind a norm -> (K,) largest absolute value of each input.
        rows: key of a layer -> (n, K) inputs at random places.
    """

    pictures: int
    histograms: dict[str, AbsHistogram] = field(default_factory=dict)
    channels: dict[str, F32] = field(default_factory=dict)
    rows: dict[str, F32] = field(default_factory=dict)

    def add(
        self, layers: Sequence[Layer], values: Mapping[str, NDArray[Any]], seed: int,
        known: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Count one run.

        Args:
            layers: whose tensors are there.
            values: the tensors by name.
            seed: of the places that rows are taken from; the run's number.
            known: tensors whose distribution an earlier pass has.
        """
        for name in dict.fromkeys(name for layer in layers for name in tensors_of(layer)):
            if name not in known:
                self.histograms.setdefault(name, AbsHistogram()).add(values[name])
        for number, layer in enumerate(layers):
            tensor = values[layer.source]
            if layer.norm is not None:
                most = np.abs(tensor).max(axis=tuple(range(tensor.ndim - 1)))
                self.channels[layer.key] = np.maximum(self.channels.get(layer.key, most), most)
            rng = np.random.default_rng([seed, number])
            taken = sample_rows(layer, tensor, self._share(layer, tensor), rng)
            before = self.rows.get(layer.key)
            self.rows[layer.key] = taken if before is None else np.concatenate([before, taken])

    def _share(self, layer: Layer, tensor: NDArray[Any]) -> int:
        width = int(tensor.shape[-1])
        if layer.conv is not None:
            width = int(tensor.shape[1]) * layer.conv.kernel[0] * layer.conv.kernel[1]
        room = min(max(_ROW_VALUES // width, _FEWEST_ROWS), _MOST_ROWS)
        return -(-room // max(self.pictures, 1))

    def nbytes(self, graph: FloatGraph, layers: Sequence[Layer]) -> int:
        """Bytes that a run over these layers hands over."""
        names = {name for layer in layers for name in tensors_of(layer)}
        return sum(4 * int(np.prod([s or 1 for s in graph.shapes[name]])) for name in names)


def save_state(path: Path, statistics: Statistics, done: Mapping[str, int]) -> None:
    """Write figures so that they are there completely or not at all."""
    names = list(statistics.histograms)
    arrays: dict[str, NDArray[Any]] = {
        "counts": np.array([statistics.histograms[n].counts for n in names], np.int64),
        "ends": np.array(
            [(statistics.histograms[n].limit, statistics.histograms[n].largest) for n in names]
        ),
    }
    meta = {
        "format": STATE_FORMAT,
        "done": dict(done),
        "tensors": names,
        "channels": list(statistics.channels),
        "rows": list(statistics.rows),
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    for kind in ("channels", "rows"):
        for number, array in enumerate(getattr(statistics, kind).values()):
            arrays[f"{kind}{number}"] = array
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(buffer.getbuffer())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, pictures: int) -> tuple[Statistics, dict[str, int]] | None:
    """Figures of an interrupted run; `None` if there are none, or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        meta = json.loads(arrays["meta"].tobytes())
        if meta["format"] != STATE_FORMAT:
            return None
        statistics = Statistics(pictures)
        for name, counts, (limit, largest) in zip(
            meta["tensors"], arrays["counts"], arrays["ends"], strict=True
        ):
            statistics.histograms[name] = AbsHistogram(
                np.array(counts, np.int64), float(limit), float(largest)
            )
        for kind in ("channels", "rows"):
            table = {key: arrays[f"{kind}{n}"] for n, key in enumerate(meta[kind])}
            getattr(statistics, kind).update(table)
        return statistics, {str(k): int(v) for k, v in meta["done"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
