"""Streamed figures: bounded, resumable, the same however they were gathered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.backends.base import Session
from samrt.errors import OutputError
from samrt_export.precision import FloatGraph
from samrt_export.quantize import calibrate as module
from samrt_export.quantize.calibrate import CalibrationError, calibrate
from samrt_export.quantize.layers import find_layers
from samrt_export.quantize.pictures import Picture
from samrt_export.quantize.statistics import Statistics, load_state, save_state

from .conftest import normal


class Direct:
    """Stands for a predictor: pictures are tensors already."""

    def __init__(self, session: Session) -> None:
        self.encode: Callable[[Any], Any] = lambda image: session.run({"image": image})


def pictures(count: int) -> list[Picture]:
    class Case:
        def __init__(self, k: int) -> None:
            self.image = normal(k, 1, 3, 32, 32, scale=1.0 + k)

    return [Picture(f"p{k}", str(k), lambda k=k: Case(k)) for k in range(count)]  # type: ignore[misc]


def run(graph: FloatGraph, count: int = 5, **options: Any) -> Statistics:
    layers, _ = find_layers(graph)
    options.setdefault("say", lambda text: None)
    return calibrate(graph, layers, pictures(count), Direct, **options)  # type: ignore[arg-type]


def same(a: Statistics, b: Statistics) -> bool:
    hists = a.histograms.keys() == b.histograms.keys() and all(
        np.array_equal(h.counts, b.histograms[n].counts) and h.largest == b.histograms[n].largest
        for n, h in a.histograms.items()
    )
    return hists and all(
        getattr(a, kind).keys() == getattr(b, kind).keys()
        and all(np.array_equal(v, getattr(b, kind)[k]) for k, v in getattr(a, kind).items())
        for kind in ("channels", "rows")
    )


def test_an_interrupted_run_goes_on(mixed: FloatGraph, tmp_path: Path) -> None:
    state, said = tmp_path / "deep" / "state.npz", list[str]()

    def stop(text: str) -> None:
        if "on 4 of" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(mixed, state=state, say=stop)
    assert state.is_file()
    found = run(mixed, state=state, say=said.append)
    assert said[0].startswith("going on after 3 of 5")
    assert len(said) == 3
    assert same(found, run(mixed))


def test_several_passes_find_the_same(mixed: FloatGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, said = run(mixed), list[str]()
    monkeypatch.setattr(module, "BUDGET", 300_000)
    parts = run(mixed, say=said.append)
    assert any("pass 2 of" in text for text in said)
    assert same(
        Statistics(5, whole.histograms, whole.channels, {}),
        Statistics(5, parts.histograms, parts.channels, {}),
    )


def test_size_does_not_grow_with_the_number_of_pictures(mixed: FloatGraph) -> None:
    few, many = (run(mixed, count) for count in (2, 12))
    for key, rows in many.rows.items():
        assert len(rows) <= len(few.rows[key]) + 12
        assert rows.dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_state_is_not_used(
    mixed: FloatGraph, tmp_path: Path, content: bytes | None
) -> None:
    state = tmp_path / "state.npz"
    if content is None:
        np.savez(state, meta=np.zeros(3, np.uint8))
    else:
        state.write_bytes(content)
    said = list[str]()
    run(mixed, count=2, state=state, say=said.append)
    assert not said[0].startswith("going on")


def test_the_state_survives_a_round_trip(mixed: FloatGraph, tmp_path: Path) -> None:
    found = run(mixed, count=2)
    save_state(tmp_path / "s.npz", found, {"pass": 1, "picture": 2})
    again = load_state(tmp_path / "s.npz", 2)
    assert again is not None
    assert again[1] == {"pass": 1, "picture": 2}
    assert same(found, again[0])
    assert [p.name for p in tmp_path.iterdir()] == ["g.onnx", "s.npz"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_a_place_that_cannot_be_written(mixed: FloatGraph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="SAMRT_CACHE"):
        run(mixed, count=1, state=tmp_path / "file" / "state.npz")


def test_values_that_are_not_finite_name_the_picture(mixed: FloatGraph) -> None:
    class Case:
        image = np.full((1, 3, 32, 32), 3e38, np.float32)

    layers, _ = find_layers(mixed)
    bad = [Picture("image-abc", "0", Case)]  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="image-abc"):
        calibrate(mixed, layers, bad, Direct, say=lambda text: None)  # type: ignore[arg-type]
