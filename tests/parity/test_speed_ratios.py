"""Quick figures of the benchmarks as ratios, with a wide margin: no fast path got lost.

Both sides of a ratio are timed in turn in one process, and their fastest runs are compared, so
neither the machine's speed nor other work on it decides.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import samrt
from samrt.phantoms import phantom_case

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MARGIN = 0.35


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    """`benchmarks/kernels.py`."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import kernels as module

        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("number", [0, 2, 3])
def test_kernels_are_as_much_faster_as_they_were(kernels: ModuleType, number: int) -> None:
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
