"""What the sessions of every runtime on the processor have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import BackendError
from samrt.backends import get_backend
from samrt.backends.base import Backend, Session, SessionOptions

OPTIONS = SessionOptions(threads=1)
Together = Callable[[Callable[[int], Any], int], list[Any]]


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """Each runtime, without models compiled before."""
    pytest.importorskip(request.param)
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    return get_backend(request.param)


@pytest.fixture
def encoder(backend: Backend, bundle_path: Path) -> Iterator[Session]:
    with backend.create(bundle_path / "encoder.onnx", OPTIONS) as session:
        yield session


@pytest.fixture
def tensor() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)


def test_a_file_and_its_content_give_the_same(
    backend: Backend, encoder: Session, bundle_path: Path, tensor: NDArray[np.float32]
) -> None:
    other = backend.create((bundle_path / "encoder.onnx").read_bytes(), OPTIONS)
    expected = encoder.run({"image": tensor})
    for name, array in other.run({"image": tensor}).items():
        np.testing.assert_array_equal(array, expected[name])


def test_later_runs_leave_earlier_results_alone(
    encoder: Session, tensor: NDArray[np.float32]
) -> None:
    first = encoder.run({"image": tensor})
    kept = {name: array.copy() for name, array in first.items()}
    second = encoder.run({"image": -tensor})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])
        assert array.flags.writeable
        assert not np.array_equal(array, second[name])


def test_several_threads_may_run_at_once(encoder: Session, together: Together) -> None:
    inputs = [np.full((1, 3, 64, 64), k / 8, np.float32) for k in range(8)]
    alone = [encoder.run({"image": x})["high_res_s2"] for x in inputs]
    found = together(lambda k: encoder.run({"image": inputs[k]})["high_res_s2"], 8)
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" * 50])
def test_no_model_gives_one_clear_line(backend: Backend, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(
        BackendError, match=r"cannot open model broken\.onnx( on CPU .*)?: "
    ) as caught:
        backend.create(path, OPTIONS)
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match="cannot open model from memory") as caught:
        backend.create(content, OPTIONS)
    with pytest.raises(BackendError, match="cannot open model"):
        backend.create(tmp_path / "none.onnx", OPTIONS)


def test_nan_never_gets_out(encoder: Session, tensor: NDArray[np.float32]) -> None:
    tensor[0, 0, 0, 0] = np.nan
    with pytest.raises(BackendError, match="computed NaN or infinity in 'image_embeddings'"):
        encoder.run({"image": tensor})


def test_closing_frees_the_model(encoder: Session, tensor: NDArray[np.float32]) -> None:
    encoder.run({"image": tensor})
    encoder.close()
    encoder.close()
    assert not {getattr(encoder, name, None) for name in ("_session", "_compiled")} - {None}
    assert not getattr(encoder, "_idle", None)
    with pytest.raises(BackendError, match="is closed"):
        encoder.run({"image": tensor})
