"""Small graphs for the tests of float16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph, GraphSession, HalfGraph, rounded

F32 = NDArray[np.float32]


def stored(
    g: GraphBuilder, folder: Path, outputs: Mapping[str, tuple[int | str, ...]]
) -> FloatGraph:
    """The finished graph, read back from its file; tensor -> shape are its outputs."""
    for number, (tensor, shape) in enumerate(outputs.items()):
        g.output(tensor, f"y{number}", shape)
    return FloatGraph(g.write(folder / "g.onnx", "test")[0])


def half(array: Any) -> F32:
    """Rounded to float16."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32).astype(np.float16).astype(np.float32)


def emulated(made: HalfGraph, feeds: Mapping[str, F32]) -> dict[str, F32]:
    """Outputs of the converted graph, infinities included."""
    session = GraphSession(rounded(made), "test")
    found: dict[str, F32] = session._run(dict(feeds))
    return found
