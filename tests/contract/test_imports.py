"""What may be imported where: the runtime stays light and never reaches the exporter by itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import samrt

PACKAGE = Path(samrt.__file__).parent
HEAVY = (
    "torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx",
    "tensorrt_rtx_bindings", "cuda", "pycuda", "PIL", "cv2", "scipy",
    "pydicom", "highdicom", "nibabel", "samrt_export", "samrt._native",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Names in ``sys.modules`` after running ``code`` in a fresh interpreter."""
    tail = "\nimport sys\nprint('\\n'.join(sys.modules))"
    paths = f"import sys; sys.path[:0] = {[str(PACKAGE.parent)]!r}\n"
    result = subprocess.run(
        [sys.executable, "-c", paths + code + tail], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_samrt_loads_nothing_heavy() -> None:
    loaded = modules_after("import samrt")
    assert not loaded.intersection(HEAVY)
    assert "samrt" in loaded


@pytest.mark.parametrize(
    "code",
    [
        "import samrt; samrt.Prompt(box=(0, 0, 1, 1))",
        "import samrt; samrt.Predictor; samrt.load",
        "import samrt; samrt.available_backends(); samrt.available_models()",
        "from samrt import *",
        "import samrt.bundle, samrt.manifest, samrt.environment, samrt.imaging",
        "import samrt.gate, samrt.admission, samrt.verification, samrt.selfcheck",
        "import samrt.backends.tensorrt, samrt.engines.bundles, samrt.engines.triton",
        "import samrt.backends.openvino, samrt.backends.choice",
        "import samrt.bench.run, samrt.bench.worker, samrt.bench.plot, samrt.bench.compare",
    ],
)
def test_names_and_registries_load_nothing_heavy(code: str) -> None:
    loaded = modules_after(code)
    assert not loaded.intersection(HEAVY)


def test_loading_a_model_needs_the_runtime_only(bundle_path: Path) -> None:
    loaded = modules_after(f"import samrt; samrt.load({str(bundle_path)!r}, threads=1)")
    assert "onnxruntime" in loaded
    assert not loaded.intersection(set(HEAVY) - {"onnxruntime", "samrt._native"})


def test_all_public_names_exist() -> None:
    for name in samrt.__all__:
        assert getattr(samrt, name) is not None
    assert set(samrt.__all__) <= set(dir(samrt))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        samrt.nonsense  # type: ignore[attr-defined]  # noqa: B018


def imports_of(tree: ast.AST) -> list[tuple[str, bool]]:
    """``(module, inside a function)`` of every import statement."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", inside))
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            found.extend((text, inside) for text in texts if isinstance(text, str))
        within = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, within)

    visit(tree, False)
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(PACKAGE)) for p in SOURCES])
def test_the_exporter_is_reached_from_verbs_only(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    for module, inside in imports_of(ast.parse(path.read_text("utf-8"))):
        root = module.split(".")[0]
        if root == "samrt_export":
            assert inside, f"{relative} imports {module} outside a function"
            assert relative.parts[0] == "cli", f"{relative} imports {module}"
        if root in ("torch", "onnx"):
            assert relative.parts[0] == "backends", f"{relative} imports {module}"
        if root == "openvino":
            assert relative.parts == ("backends", "openvino.py")
            assert inside, "OpenVINO is imported by import_openvino only: it sends telemetry"
        if root == "onnxruntime":
            assert relative.parts == ("backends", "onnxruntime.py")


def test_the_rule_sees_all_kinds_of_import() -> None:
    code = (
        "import a.b\nfrom c import d\n"
        "def f():\n    import e\n    importlib.import_module('g.h')\n"
        "class K:\n    import i\n"
    )
    assert imports_of(ast.parse(code)) == [
        ("a.b", False), ("c", False), ("e", True), ("g.h", True), ("i", False),
    ]  # fmt: skip
