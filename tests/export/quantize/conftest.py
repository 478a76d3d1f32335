"""Small graphs and bundles to quantise, and a folder of pictures to calibrate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.bundle import Bundle
from samrt.phantoms import PhantomCase
from samrt_export.graph import GraphBuilder
from samrt_export.precision import FloatGraph

from ..precision.conftest import few_cases, make_bundle  # noqa: F401 - fixtures
from ..precision.graphs import stored

F32 = NDArray[np.float32]


def normal(seed: int, *shape: int, scale: float = 1.0) -> F32:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture
def mixed(tmp_path: Path) -> FloatGraph:
    """Convolutions with Relu and a residual sum, then norm, linear, GELU, linear."""
    g = GraphBuilder("mixed")
    x = g.input("image", (1, 3, 32, 32))
    with g.scope("stem"):
        x = g.op("Relu", g.conv(x, normal(0, 32, 3, 3, 3, scale=0.2), normal(1, 32)))
    with g.scope("stage"):
        y = g.op("Relu", g.conv(x, normal(2, 32, 32, 3, 3, scale=0.06), normal(3, 32)))
        y = g.conv(y, normal(4, 32, 32, 3, 3, scale=0.06), None)
        x = g.op("Relu", g.op("Add", x, y))
        x = g.op("Transpose", g.shape(x, [1, 32, 1024]), perm=[0, 2, 1])
    with g.scope("block/norm"):
        y = g.layer_norm(x, 1 + normal(5, 32, scale=0.1), normal(6, 32), 1e-6)
    with g.scope("block/mlp"):
        y = g.linear(y, normal(7, 64, 32, scale=0.2), normal(8, 64))
        y = g.linear(g.gelu(y), normal(9, 32, 64, scale=0.1), normal(10, 32))
    x = g.op("Add", x, y)
    with g.scope("neck"):
        x = g.op("MatMul", x, g.weight(normal(11, 32, 16)))
    return stored(g, tmp_path, {x: (1, 1024, 16)})


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch, few_cases: list[PhantomCase]) -> None:  # noqa: F811
    """One built-in picture in place of five."""
    from samrt_export.quantize import quantise

    monkeypatch.setattr(quantise, "phantom_cases", lambda: few_cases)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAMRT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, few_cases: list[PhantomCase]) -> Path:  # noqa: F811
    """Six pictures: parts of a phantom, turned, one of them with 16 bits."""
    root = tmp_path_factory.mktemp("pictures")
    image = few_cases[0].image
    for number in range(5):
        part = np.roll(image, 37 * number, axis=number % 2)
        Image.fromarray(np.ascontiguousarray(part)).save(root / f"patient-{number}.png")
    deep = image.mean(axis=2).astype(np.uint16) * 16
    Image.fromarray(deep).save(root / "patient-deep.png")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def small(make_bundle: Callable[..., tuple[Any, Bundle]]) -> Bundle:  # noqa: F811
    """A seeded SAM with four blocks at 256 pixels."""
    return make_bundle()[1]


def ranges(graph: FloatGraph, layers: Any, runs: list[dict[str, F32]]) -> Any:
    """Statistics of some runs."""
    from samrt_export.quantize.calibrate import WatchingSession
    from samrt_export.quantize.statistics import Statistics, tensors_of

    found = Statistics(len(runs))
    names = list(dict.fromkeys(n for layer in layers for n in tensors_of(layer)))
    done: list[int] = []

    def seen(values: Any) -> None:
        found.add(layers, values, seed=len(done))
        done.append(1)

    session = WatchingSession(graph, names, seen)
    for feeds in runs:
        session.run(feeds)
    session.close()
    return found
