"""Quick figures of the benchmarks as ratios, with a wide margin: no fast path got lost.

Both sides of a ratio are timed in turn in one process, and their fastest runs are compared, so
neither the machine's speed nor other work on it decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import samrt
from samrt.phantoms import phantom_case

MARGIN = 0.35


@pytest.mark.parametrize("number", [0, 2, 3])
def test_kernels_are_as_much_faster_as_they_were(
    benchmark_module: Callable[[str], ModuleType], number: int
) -> None:
    kernels = benchmark_module("kernels")
    case = kernels.all_cases(threads=1)[number]
    row = kernels.measure(case, runs=10)
    needed = MARGIN * case.target
    assert row["ratio_of_minima"] >= needed, f"{case.name}: {row['ratio_of_minima']:.1f} times"


def test_a_click_costs_far_less_than_a_picture() -> None:
    """What makes samrt interactive: the embedding is reused. With `tiny`."""
    case = phantom_case("ct_abdomen")
    with samrt.load("tiny", threads=1) as engine:
        encode, decode = [], []
        for _ in range(6):
            embedding = engine.encode(case.image)
            answer = engine.decode(embedding, case.prompts[0], multimask_output=False)[0]
            encode.append(float(embedding.timings.encode_ms or np.nan))
            decode.append(float(answer.timings.decode_prompt_ms or np.nan))
    assert min(decode) <= 0.6 * min(encode)


@pytest.fixture
def decoders(
    segment_anything: ModuleType, benchmark_module: Callable[[str], ModuleType], tmp_path: Path
) -> tuple[Any, Any]:
    """samrt, and ONNX Runtime with the decoder as the original's exporter writes it: as in
    `peers.py`, with MobileSAM's random weights and one thread each.
    """
    pytest.importorskip("onnx")
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    models, engines = benchmark_module("peer_models"), benchmark_module("peer_engines")
    state = seeded_state("mobile_sam")
    export(state, tmp_path / "ours.samrt", verify=False)
    models.export_decoder(models.original_decoder(state), tmp_path / "decoder.onnx")
    return engines.Ours("", tmp_path, 1), engines.exported_onnxruntime("", tmp_path, 1)


def test_a_box_is_decoded_faster_than_by_the_official_graph(
    benchmark_module: Callable[[str], ModuleType], decoders: tuple[Any, Any]
) -> None:
    """A quiet machine and the CPU form: 0.40 of its time (`benchmarks/peers.py`)."""
    ours, theirs = decoders
    models = benchmark_module("peer_models")
    box, kept = models.boxes(1), ours.encode(models.picture())
    embedding = ours.embedding(kept)
    wanted, found = theirs.decode(embedding, box), ours.decode(kept, box)
    assert np.sqrt(np.mean((found - wanted) ** 2)) <= 1e-4 * wanted.std()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(12):
        for name, call in (
            ("theirs", lambda: theirs.decode(embedding, box)),
            ("ours", lambda: ours.decode(kept, box)),
        ):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    assert min(times["ours"]) <= 0.75 * min(times["theirs"])
