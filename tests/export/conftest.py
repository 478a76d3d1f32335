"""Fixtures of the exporter's tests: the original `segment_anything`, the golden vectors."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[2] / "shared" / "golden"


def load_module(path: Path, name: str) -> ModuleType:
    """A Python file as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def torchvision_stub() -> ModuleType:
    """The stand-in of `torchvision_stub.py`, installed where torchvision is missing."""
    stub = load_module(HERE / "torchvision_stub.py", "samrt_tests_torchvision_stub")
    stub.install()
    return stub


@pytest.fixture(scope="session")
def segment_anything(torchvision_stub: ModuleType) -> ModuleType:
    """The original package; tests that need it are skipped where it is not installed."""
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("segment_anything is not installed: pip install segment-anything")
    return importlib.import_module("segment_anything")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors; tests that need it are skipped without it."""
    if not GOLDEN.is_dir():
        pytest.skip("no golden vectors beside the repository (../shared/golden)")
    return GOLDEN


@pytest.fixture(scope="session")
def seeded(golden: Path) -> ModuleType:
    """`seeded_weights.py` of the golden folder."""
    return load_module(golden / "seeded_weights.py", "samrt_tests_seeded_weights")


@pytest.fixture(scope="session")
def golden_inputs() -> ModuleType:
    """`golden_inputs.py`: encoder inputs made as the golden vectors' README says."""
    return load_module(HERE / "golden_inputs.py", "samrt_tests_golden_inputs")


@pytest.fixture(scope="session")
def operators() -> ModuleType:
    """`operators.py`: samrt's own operators for `onnx.reference`."""
    return load_module(HERE / "operators.py", "samrt_tests_operators")
