"""Fixtures for all tests: a small committed model bundle, edited copies of it, pictures."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt

TESTS = Path(__file__).parent
DATA = TESTS / "data"

EditBundle = Callable[..., Path]


def _module(path: Path) -> ModuleType:
    """A Python file as a module of its own, executed once."""
    name = f"samrt_tests_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def load_module() -> Callable[[Path], ModuleType]:
    """``load_module(path)``: a Python file as a module of its own."""
    return _module


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the folder ``benchmarks``, whose modules import each other."""
    monkeypatch.syspath_prepend(str(TESTS.parent / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="session")
def scanner() -> Any:
    """The module ``scanner_files``; tests that want it are skipped without pydicom."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    return _module(TESTS / "scanner_files.py")


@pytest.fixture(scope="session")
def torchvision_stub() -> ModuleType:
    """The stand-in of ``torchvision_stub.py``, installed where torchvision is missing."""
    pytest.importorskip("torch")
    stub = _module(TESTS / "export" / "torchvision_stub.py")
    stub.install()
    return stub


@pytest.fixture(scope="session")
def segment_anything(torchvision_stub: ModuleType) -> ModuleType:
    """The original package; tests that need it are skipped where it is not installed."""
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("segment_anything is not installed: pip install segment-anything")
    return importlib.import_module("segment_anything")


def pytest_report_header() -> str:
    """Versions, in the first lines of every run."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    names = ("numpy", "onnxruntime", "pillow", "onnx", "torch")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return f"samrt {samrt.__version__} on {platform.machine()}, {packages}"


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """The committed bundle of schema version 1; never written to."""
    return DATA / "bundle_v1.samrt"


@pytest.fixture
def manifest_doc(bundle_path: Path) -> dict[str, Any]:
    """A fresh copy of the committed bundle's manifest, to be edited."""
    document: dict[str, Any] = json.loads((bundle_path / "manifest.json").read_text("utf-8"))
    return document


@pytest.fixture
def edit_bundle(bundle_path: Path, tmp_path: Path) -> EditBundle:
    """``edit_bundle({"output.threshold": 1.0})``: a copy of the bundle with edited manifest."""

    def make(edits: dict[str, Any] | None = None, name: str = "edited") -> Path:
        target = tmp_path / f"{name}.samrt"
        shutil.copytree(bundle_path, target)
        path = target / "manifest.json"
        document = json.loads(path.read_text("utf-8"))
        for key, value in (edits or {}).items():
            *parents, last = key.split(".")
            place = document
            for parent in parents:
                place = place[int(parent)] if parent.isdigit() else place[parent]
            place[last] = value
        path.write_text(json.dumps(document), "utf-8")
        return target

    return make


@pytest.fixture
def load_edited(edit_bundle: EditBundle) -> Iterator[Callable[..., samrt.Predictor]]:
    """Like ``edit_bundle`` but loaded; closed after the test."""
    opened: list[samrt.Predictor] = []

    def make(edits: dict[str, Any] | None = None, **options: Any) -> samrt.Predictor:
        name = f"edited{len(opened)}"
        opened.append(samrt.load(edit_bundle(edits, name), threads=1, **options))
        return opened[-1]

    yield make
    for predictor in opened:
        predictor.close()


@pytest.fixture
def predictor(bundle_path: Path) -> Iterator[samrt.Predictor]:
    """The committed model on one thread, without an image."""
    with samrt.load(bundle_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def together() -> Callable[[Callable[[int], Any], int], list[Any]]:
    """``together(work, count)``: ``work(k)`` in a thread for each ``k``, five times; the last
    results. An error in a thread is raised.
    """

    def run(work: Callable[[int], Any], count: int) -> list[Any]:
        with ThreadPoolExecutor(count) as pool:
            turns = [pool.submit(lambda k=k: [work(k) for _ in range(5)]) for k in range(count)]
            return [turn.result()[-1] for turn in turns]

    return run


@pytest.fixture(scope="session")
def picture() -> Callable[..., NDArray[np.uint8]]:
    """``picture(H, W, channels)``: a smooth uint8 picture with noise, the same every time."""

    def make(height: int = 48, width: int = 80, channels: int = 3) -> NDArray[np.uint8]:
        rng = np.random.default_rng(7)
        ys, xs = np.mgrid[:height, :width] / max(height, width)
        planes = [np.sin(6 * xs + k) + np.cos(5 * ys - k) for k in range(max(channels, 1))]
        values = np.stack(planes, -1) * 50 + 128 + rng.normal(0, 8, (height, width, len(planes)))
        image = np.clip(values, 0, 255).astype(np.uint8)
        return image[:, :, 0].copy() if channels == 0 else image

    return make


@pytest.fixture
def image(picture: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One colour picture, 48 high and 80 wide: not square, so swapped axes show."""
    return picture()
