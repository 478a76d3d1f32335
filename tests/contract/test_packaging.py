"""What is installed is what was promised, and nothing else."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_SUFFIXES = {".py", ".pyi", ".cpp", ".hpp"}
LONGEST_FILE = 400


@pytest.fixture(scope="module")
def installed() -> list[str]:
    """Paths of the installed wheel; skipped in an editable install, which has no copy."""
    wheels = [d for d in metadata.distributions(name="samrt") if d.read_text("WHEEL")]
    if not wheels:
        pytest.skip("samrt is not installed, the sources are used")
    names = sorted(PurePosixPath(f).as_posix() for f in wheels[0].files or [])
    if not any(name.startswith("samrt/") for name in names):
        pytest.skip("samrt is installed in editable mode")
    return names


def test_extension_is_built() -> None:
    assert importlib.util.find_spec("samrt._native") is not None


def test_wheel_holds_code_data_and_model(installed: list[str]) -> None:
    for name in (
        "samrt/py.typed",
        "samrt/_native.pyi",
        "samrt/manifest_schema_v1.json",
        "samrt/models/tiny/README.md",
        "samrt/models/tiny/tiny.samrt/manifest.json",
        "samrt/models/tiny/tiny.samrt/encoder.onnx",
        "samrt/models/tiny/tiny.samrt/decoder.onnx",
        "samrt_export/py.typed",
    ):
        assert name in installed, name
    assert any(n.startswith("samrt/_native.") and n.endswith((".so", ".pyd")) for n in installed)


def test_wheel_holds_every_module_of_the_sources(installed: list[str]) -> None:
    for room in ("engine", "export"):
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT / room).as_posix()
            if not name.startswith("build/"):
                assert name in installed, name


def test_wheel_holds_nothing_else(installed: list[str]) -> None:
    rooms = ("samrt/", "samrt_export/", "samrt-")
    for name in installed:
        if name.startswith("../"):  # console scripts
            assert PurePosixPath(name).name.startswith("samrt"), name
        else:
            assert name.startswith(rooms), name
        assert not name.endswith((".cpp", ".hpp", ".pt", ".npz")), name


def test_console_scripts_are_there() -> None:
    try:
        points = metadata.distribution("samrt").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("samrt is not installed, the sources are used")
    assert {p.name for p in points} >= {"samrt", "samrt-export"}


def test_model_is_small() -> None:
    bundle = ROOT / "engine" / "samrt" / "models" / "tiny" / "tiny.samrt"
    size = sum(p.stat().st_size for p in bundle.iterdir())
    assert 0 < size <= 10_000_000


def test_source_files_stay_short() -> None:
    for room in ("engine", "export", "cpp_ext", "benchmarks", "tests"):
        for path in (ROOT / room).rglob("*"):
            if path.suffix in SOURCE_SUFFIXES:
                lines = path.read_text(encoding="utf-8").count("\n")
                assert lines <= LONGEST_FILE, f"{path.relative_to(ROOT)}: {lines} lines"
