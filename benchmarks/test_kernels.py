"""The kernels under pytest-benchmark, each proven right before it is timed.

    python -m pytest benchmarks/test_kernels.py [--benchmark-autosave] [--benchmark-compare]

The cases are those of `kernels.py`, which times them in turn with Pillow, NumPy and PyTorch;
here runs of different days and commits can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kernels import Case, all_cases

CASES = all_cases(threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "_") for case in CASES])
def test_kernel(case: Case, benchmark: Any) -> None:
    benchmark.extra_info["answer"] = case.check(case.ours(), case.theirs())
    benchmark.pedantic(case.ours, rounds=20, warmup_rounds=2)
