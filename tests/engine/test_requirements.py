from __future__ import annotations

from importlib import metadata

import pytest

from samrt.backends import _requirements as module

REQUIRES = [
    "numpy>=1.26",
    "onnxruntime<2,>=1.17",
    "Pillow (>=10.3)",
    'openvino[extra]>=2024.4; extra == "openvino"',
    "tensorrt>=10.7; extra == 'tensorrt' and sys_platform == 'linux'",
    'cuda-bindings>=12.6; extra == "tensorrt"',
]
INSTALLED = {"numpy": "2.4.6", "onnxruntime": "1.16.3", "openvino": "2024.4.0"}


@pytest.fixture
def fake_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.usefixtures("fake_metadata")
def test_bounds_come_from_the_package_metadata() -> None:
    core = module.requirement_texts(None)
    assert core == {"numpy": ">=1.26", "onnxruntime": "<2,>=1.17", "pillow": ">=10.3"}
    assert module.requirement_texts("openvino") == {"openvino": ">=2024.4"}
    assert module.requirement_texts("tensorrt") == {"tensorrt": ">=10.7", "cuda-bindings": ">=12.6"}
    assert module.requirement_texts("none") == {}


@pytest.mark.usefixtures("fake_metadata")
def test_of_alternatives_one_is_enough() -> None:
    assert module.missing_requirements(["tensorrt|numpy", "openvino|cuda-bindings"], None) == ()
    assert module.missing_requirements(["cuda-bindings|pycuda|cupy"], "tensorrt") == (
        "cuda-bindings>=12.6 is not installed, nor is pycuda or cupy",
    )
    assert module.missing_requirements(["tensorrt|onnxruntime"], None) == (
        "onnxruntime<2,>=1.17 is needed, 1.16.3 is installed",
    )


@pytest.mark.usefixtures("fake_metadata")
def test_what_is_missing_or_too_old_is_said() -> None:
    assert module.missing_requirements(["numpy"], None) == ()
    assert module.missing_requirements(["openvino"], "openvino") == ()
    assert module.missing_requirements(["onnxruntime"], None) == (
        "onnxruntime<2,>=1.17 is needed, 1.16.3 is installed",
    )
    assert module.missing_requirements(["tensorrt", "cuda_bindings"], "tensorrt") == (
        "tensorrt>=10.7 is not installed",
        "cuda_bindings>=12.6 is not installed",
    )


@pytest.mark.usefixtures("fake_metadata")
def test_without_samrt_installed_the_bounds_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_installed)
    assert module.requirement_texts(None) is None
    assert module.missing_requirements(["onnxruntime"], None) == ()
    (text,) = module.missing_requirements(["tensorrt"], "tensorrt")
    assert text.startswith("tensorrt is not installed (version bounds unknown")


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("1.17", ">=1.17", True),
        ("1.17.0", "==1.17", True),
        ("1.9", ">=1.17", False),
        ("1.31.1", ">=1.17,<2", True),
        ("2.0", ">=1.17,<2", False),
        ("1.17.1", ">1.17", True),
        ("1.17", ">1.17", False),
        ("1.17", "<=1.17", True),
        ("1.18", "!=1.18", False),
        ("1.18.3", "==1.18.*", True),
        ("1.19", "==1.18.*", False),
        ("1.18.3", "!=1.18.*", False),
        ("1.20", "~=1.17", True),
        ("2.0", "~=1.17", False),
        ("1.18", "~=1.17.2", False),
        ("1.17.2.post1", ">=1.17.2", True),
        ("2.13.0+cpu", ">=2.4", True),
        ("1.0", "", True),
    ],
)
def test_version_bounds(version: str, bounds: str, fits: bool) -> None:
    assert module._satisfies(version, bounds) is fits
