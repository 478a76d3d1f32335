"""Fixtures of the exporter's tests: the golden vectors, modules that lie beside the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[2] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors; tests that need it are skipped without it."""
    if not GOLDEN.is_dir():
        pytest.skip("no golden vectors beside the repository (../shared/golden)")
    return GOLDEN


@pytest.fixture(scope="session")
def seeded(golden: Path, load_module: Callable[[Path], ModuleType]) -> ModuleType:
    """`seeded_weights.py` of the golden folder."""
    return load_module(golden / "seeded_weights.py")


@pytest.fixture(scope="session")
def golden_inputs(load_module: Callable[[Path], ModuleType]) -> ModuleType:
    """`golden_inputs.py`: encoder inputs made as the golden vectors' README says."""
    return load_module(HERE / "golden_inputs.py")


@pytest.fixture(scope="session")
def operators(load_module: Callable[[Path], ModuleType]) -> ModuleType:
    """`operators.py`: samrt's own operators for `onnx.reference`."""
    return load_module(HERE / "operators.py")
