"""Which nodes stay float32, and why: islands found from measured ranges.

Float16 ends at 65504, holds 11 bits, and loses bits below 2^-14.  A node becomes an island if

- `statistics`: it normalises or is a softmax;
- `overflow`: a tensor that it makes or reads, times the margin, does not fit;
- `accumulation`: a sum inside it might overflow on the way, times the margin;
- `underflow`: all that it makes, times the margin, is below the smallest normal number;
- `weights`: a weight does not fit, or loses more than 11 bits explain;
- `coordinates`: it reads coordinates of points whose rounding is more than 1/64 pixel;
- `angle`: it takes the sine or cosine of angles whose rounding is more than 1/256 radian, or
  computes these angles.

Islands of kind `error` come from the search in `search`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from samrt_export.precision.floatgraph import FloatGraph, key_of
from samrt_export.precision.half import HALF_MAX, STATISTICS
from samrt_export.precision.ranges import Ranges

__all__ = ["MARGIN", "Island", "float32_keys", "measured_islands"]

MARGIN = 4.0
SMALLEST_NORMAL = 2.0**-14
ROUNDING = 2.0**-11
PIXEL_ERROR, ANGLE_ERROR, WEIGHT_ERROR = 2.0**-6, 2.0**-8, 1e-3
_COORDINATES = "point_coords"


@dataclass(frozen=True)
class Island:
    """Nodes that stay float32 for one reason.

    Attributes:
        kind: one of the module's kinds.
        scope: where in the network they are.
        keys: the nodes, see `key_of`.
        tensor: the tensor or weight with the figure.
        figure: the measured figure that decided.
        reason: the same in words.
    """

    kind: str
    scope: str
    keys: tuple[str, ...]
    tensor: str
    figure: float
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figure = self.figure if np.isfinite(self.figure) else None
        return {
            "kind": self.kind,
            "scope": self.scope,
            "nodes": list(self.keys),
            "tensor": self.tensor,
            "figure": figure,
            "reason": self.reason,
        }


def float32_keys(islands: Sequence[Island]) -> set[str]:
    """All nodes of some islands."""
    return {key for island in islands for key in island.keys}


def measured_islands(graph: FloatGraph, ranges: Ranges, *, margin: float = MARGIN) -> list[Island]:
    """Islands that follow from ranges, sums and weights; see the module's text."""
    found = _Finder(graph, ranges, margin)
    for node in graph.arithmetic():
        found.look_at(node)
    found.coordinates()
    found.angles()
    return found.islands()


class _Finder:
    """Collects a reason per node, the first that applies, and joins nodes of a scope."""

    def __init__(self, graph: FloatGraph, ranges: Ranges, margin: float) -> None:
        self.graph, self.ranges, self.margin = graph, ranges, margin
        self.found: dict[str, tuple[str, str, float]] = {}
        self.weight_figures: dict[str, tuple[float, bool]] = {}

    def look_at(self, node: onnx.NodeProto) -> None:
        graph, seen = self.graph, self.ranges.abs_max
        key = key_of(node)
        read = [n for n in graph.float_inputs(node) if graph.is_activation(n)]
        made = [n for n in node.output if graph.is_float(n)]
        if node.op_type in STATISTICS:
            largest = max(read, key=lambda n: seen.get(n, 0.0))
            self.note(key, "statistics", largest, seen.get(largest, 0.0))
            return
        touched = [(seen.get(n, 0.0), n) for n in (*read, *made)]
        top, tensor = max(touched, default=(0.0, ""))
        if top * self.margin > HALF_MAX:
            self.note(key, "overflow", tensor, top)
            return
        inside = self.ranges.sums.get(key, 0.0)
        if inside * self.margin > HALF_MAX:
            self.note(key, "accumulation", key, inside)
            return
        tops = [seen.get(n, 0.0) for n in made]
        if tops and 0.0 < max(tops) * self.margin < SMALLEST_NORMAL:
            self.note(key, "underflow", made[0], max(tops))
            return
        for name in graph.float_inputs(node):
            if name in graph.weights:
                error, fits = self.weight_error(name)
                if not fits or error > WEIGHT_ERROR:
                    self.note(key, "weights", name, error)
                    return

    def weight_error(self, name: str) -> tuple[float, bool]:
        """Relative rms error of rounding a weight, and whether all of it fits."""
        if name not in self.weight_figures:
            self.weight_figures[name] = rounding_error(self.graph.constant(name))
        return self.weight_figures[name]

    def coordinates(self) -> None:
        """Follow coordinates as long as they are numbers of pixels, not fractions of the frame."""
        seen = self.ranges.abs_max
        pixels = {_COORDINATES} if self._coarse(_COORDINATES) else set()
        for node in self.graph.arithmetic():
            read = [name for name in self.graph.float_inputs(node) if name in pixels]
            if read:
                self.note(key_of(node), "coordinates", read[0], seen[read[0]])
                pixels.update(name for name in node.output if self._coarse(name))

    def _coarse(self, name: str) -> bool:
        return self.ranges.abs_max.get(name, 0.0) * ROUNDING > PIXEL_ERROR

    def angles(self) -> None:
        for node in self.graph.nodes:
            if node.op_type not in ("Sin", "Cos"):
                continue
            angle = self.ranges.abs_max.get(node.input[0], 0.0)
            if angle * ROUNDING > ANGLE_ERROR:
                for key in (key_of(node), *self._above(node.input[0])):
                    self.note(key, "angle", str(node.input[0]), angle)

    def _above(self, tensor: str) -> list[str]:
        """All nodes that a tensor is computed by."""
        found: dict[str, None] = {}
        open_ends = [tensor]
        while open_ends:
            node = self.graph.producer.get(open_ends.pop())
            if node is not None and key_of(node) not in found:
                found[key_of(node)] = None
                open_ends += [n for n in node.input if self.graph.is_activation(n)]
        return list(found)

    def note(self, key: str, kind: str, tensor: str, figure: float) -> None:
        self.found.setdefault(key, (kind, tensor, figure))

    def islands(self) -> list[Island]:
        joined: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
        for node in self.graph.nodes:
            key = key_of(node)
            if key in self.found:
                kind, tensor, figure = self.found[key]
                scope = "" if kind == "statistics" else node.name.rpartition("/")[0]
                joined.setdefault((kind, scope), []).append((key, tensor, figure))
        made = []
        for (kind, scope), rows in joined.items():
            pick = min if kind == "underflow" else max
            _, tensor, figure = pick(rows, key=lambda row: row[2])
            keys = tuple(key for key, _, _ in rows)
            made.append(Island(kind, scope, keys, tensor, figure, self.words(kind, tensor, figure)))
        return made

    def words(self, kind: str, tensor: str, figure: float) -> str:
        limit = f"{HALF_MAX:g} / {self.margin:g}"
        texts: Mapping[str, str] = {
            "statistics": f"statistics in float32; inputs reach {figure:.4g} ({tensor}), squares "
            f"{figure * figure:.3g}",
            "overflow": f"{tensor} reaches {figure:.4g}, limit {limit}",
            "accumulation": f"sums inside {tensor} may reach {figure:.4g}, limit {limit}",
            "underflow": f"{tensor} stays below {figure:.3g}, normal numbers start at "
            f"{SMALLEST_NORMAL:.3g}",
            "weights": f"weight {tensor} would lose {figure:.2g} of its size, or not fit",
            "coordinates": f"{tensor} reaches {figure:.4g} pixels, rounding {figure * ROUNDING:.2g}"
            " pixels",
            "angle": f"angles {tensor} reach {figure:.4g}, rounding {figure * ROUNDING:.2g} radian",
        }
        return texts[kind]


def rounding_error(array: NDArray[np.float32]) -> tuple[float, bool]:
    """Relative rms error of float16, subnormals and flushed values included; whether all fits."""
    wide = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        back = wide.astype(np.float16).astype(np.float32)
        fits = not bool((np.isinf(back) & np.isfinite(wide)).any())
        gap = np.where(np.isfinite(wide), back - wide, 0).astype(np.float64)
        size = np.where(np.isfinite(wide), wide, 0).astype(np.float64)
    total = float(np.sqrt((size * size).sum()))
    error = float(np.sqrt((gap * gap).sum()))
    return (error / total if total > 0.0 and fits else error), fits
