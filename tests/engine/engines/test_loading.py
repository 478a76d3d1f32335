"""Opening engines: none there, refused by the runtime, not what their manifest says; options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samrt import BackendError, OptionError
from samrt.backends.base import SessionOptions
from samrt.backends.tensorrt import TensorRTBackend
from samrt.bundle import Bundle
from samrt.engines.cache import EngineCache
from samrt.engines.channel import ExecutionOptions


def test_no_engine_says_how_to_build_one(
    bundle: Bundle, memory: Any, make_fake: Any, tmp_path: Path
) -> None:
    backend = TensorRTBackend(make_fake("10"), memory, ExecutionOptions(), EngineCache(tmp_path))
    with pytest.raises(
        BackendError, match=r"no engine for encoder.onnx fits TensorRT 10.3.0.30 on"
    ):
        backend.create(bundle.path / "encoder.onnx", SessionOptions())
    with pytest.raises(BackendError, match=r"cannot open model none.onnx: No such file"):
        backend.create(tmp_path / "none.onnx", SessionOptions())
    with pytest.raises(BackendError, match="no engine for from memory"):
        backend.create(b"onnx", SessionOptions())


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        ("deserialize", "refuses the engine of .*: Serialization assertion failed; build it again"),
        ("context", "cannot make a context for the engine of"),
    ],
)
def test_an_engine_that_does_not_load(
    make_backend: Any, bundle: Bundle, script: Any, refused: str, text: str
) -> None:
    backend, script.refuse = make_backend("rtx"), {refused}
    with pytest.raises(BackendError, match=text):
        backend.open_artifact(bundle, bundle.artifact("encoder"), SessionOptions())


def test_an_engine_with_other_tensors_is_refused(
    make_backend: Any, bundle: Bundle, script: Any
) -> None:
    backend = make_backend()
    script.files["encoder.onnx"] = script.files["decoder.onnx"]
    with pytest.raises(BackendError, match="differs from its manifest: input 'image' is missing; "):
        backend.open_artifact(bundle, bundle.artifact("encoder"), SessionOptions())


def test_options_from_the_environment(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    for name in ("SAMRT_CUDA_GRAPH", "SAMRT_ZERO_COPY", "SAMRT_GPU_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    assert ExecutionOptions.from_environment() == ExecutionOptions()
    monkeypatch.setenv("SAMRT_CUDA_GRAPH", "1")
    monkeypatch.setenv("SAMRT_GPU_MEMORY", "pycuda")
    found = ExecutionOptions.from_environment()
    assert (found.cuda_graph, found.zero_copy, found.memory) == (True, False, "pycuda")
    monkeypatch.setenv("SAMRT_ZERO_COPY", "perhaps")
    with pytest.raises(OptionError, match="SAMRT_ZERO_COPY is 'perhaps', expected 1 or 0"):
        ExecutionOptions.from_environment()


def test_graphs_need_a_memory_that_has_them(make_backend: Any, bundle: Bundle, memory: Any) -> None:
    backend, memory.graphs = make_backend(cuda_graph=True), False
    with pytest.raises(OptionError, match="fake has no CUDA graphs: install cuda-bindings, or"):
        backend.open_artifact(bundle, bundle.artifact("encoder"), SessionOptions())
