from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from samrt import BackendError
from samrt.backends import get_backend, onnxruntime
from samrt.backends.base import Session, SessionOptions, TensorSpec

OPTIONS = SessionOptions(threads=1)


@pytest.fixture
def encoder(bundle_path: Path) -> Session:
    return get_backend("onnxruntime").create(bundle_path / "encoder.onnx", OPTIONS)


@pytest.fixture
def tensor() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)


def test_reports_its_tensors(bundle_path: Path, encoder: Session) -> None:
    assert encoder.inputs == (TensorSpec("image", "float32", (1, 3, 64, 64)),)
    assert [spec.name for spec in encoder.outputs] == ["image_embeddings", "high_res_s2"]
    decoder = get_backend("onnxruntime").create(bundle_path / "decoder.onnx", OPTIONS)
    specs = {spec.name: spec for spec in (*decoder.inputs, *decoder.outputs)}
    assert specs["point_coords"].shape == ("N", "P", 2)
    assert specs["low_res_masks"].shape == ("N", 4, 32, 32)


def test_matches_the_convolution_written_out(encoder: Session, tensor: NDArray[np.float32]) -> None:
    """The fixture's first map: 4 x 4 patches times a matrix, then tanh."""
    weights = np.random.default_rng(1).standard_normal((8, 3, 4, 4)) * 0.1
    patches = tensor.reshape(3, 16, 4, 16, 4).astype(np.float64)
    expected = np.tanh(np.einsum("cyixj,ocij->oyx", patches, weights))
    got = encoder.run({"image": tensor})["image_embeddings"]
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


def test_a_failure_while_running_names_the_model(
    encoder: Session, tensor: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, *args: object) -> None:
            raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(encoder, "_session", Broken())
    with pytest.raises(BackendError, match=r"encoder\.onnx failed while running: out of memory"):
        encoder.run({"image": tensor})


@pytest.mark.parametrize("flag", [False, True])
def test_options_reach_the_runtime(flag: bool) -> None:
    options = SessionOptions(threads=3, arena=flag, spinning=flag)
    native = onnxruntime._native_options(options)
    assert native.intra_op_num_threads == 3
    assert native.inter_op_num_threads == 1
    assert native.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert native.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert native.enable_cpu_mem_arena is flag
    assert native.log_severity_level == 3
    spinning = native.get_session_config_entry("session.intra_op.allow_spinning")
    assert spinning == ("1" if flag else "0")


def test_only_the_processor_is_used(encoder: Session) -> None:
    native = encoder._session  # type: ignore[attr-defined]
    assert native.get_providers() == ["CPUExecutionProvider"]
