"""OpenVINO beside ONNX Runtime, its device and precision, its errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import BackendError, OptionError
from samrt.backends import get_backend, openvino
from samrt.backends.base import Session, SessionOptions
from samrt.backends.openvino import OpenVinoBackend, OpenVinoOptions
from samrt.bundle import Bundle, find_model
from samrt.phantoms import phantom_case

pytest.importorskip("openvino", reason="the extra openvino is not installed")

OPTIONS = SessionOptions(threads=1)
NO_CACHE = OpenVinoOptions(cache=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compiled models of a test go into its own folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAMRT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def backend() -> OpenVinoBackend:
    return OpenVinoBackend(NO_CACHE)


def opened(backend: OpenVinoBackend, path: Path, role: str) -> Session:
    bundle = Bundle.open(path)
    return backend.open_artifact(bundle, bundle.artifact(role), OPTIONS)


@pytest.fixture
def encoder(backend: OpenVinoBackend, bundle_path: Path) -> Iterator[Session]:
    with opened(backend, bundle_path, "encoder") as session:
        yield session


@pytest.fixture
def tensor() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_model_has_the_same_tensors_as_in_onnxruntime(
    backend: OpenVinoBackend, bundle_path: Path, role: str
) -> None:
    usual = get_backend("onnxruntime").create(bundle_path / f"{role}.onnx", OPTIONS)
    with opened(backend, bundle_path, role) as session:
        assert session.inputs == usual.inputs
        assert [spec.name for spec in session.outputs] == [spec.name for spec in usual.outputs]
    bare = backend.create(bundle_path / f"{role}.onnx", OPTIONS)
    free = [s for spec in bare.inputs for s in spec.shape if isinstance(s, str)]
    assert bool(free) == (role == "decoder")
    assert len(set(free)) == len(free), "two sizes that are not known to agree share a letter"


def test_prompts_that_do_not_fit_together_are_refused(
    backend: OpenVinoBackend, bundle_path: Path
) -> None:
    with opened(backend, bundle_path, "decoder") as session:
        feeds = {}
        for spec in session.inputs:
            shape = [s if isinstance(s, int) else 3 for s in spec.shape]
            feeds[spec.name] = np.zeros(shape, spec.dtype)
        feeds["point_labels"] = feeds["point_labels"][:2]
        with pytest.raises(BackendError, match=r"size N is 3 in .* and 2 in 'point_labels'"):
            session.run(feeds)


@pytest.mark.parametrize("precision", ["auto"])
def test_tiny_answers_as_in_onnxruntime(precision: str) -> None:
    case = phantom_case("ct_abdomen")
    answers = {}
    for name in ("onnxruntime", "openvino"):
        with samrt.load("tiny", backend=name, precision=precision, threads=2) as engine:
            assert engine.info.backend_effective == name
            assert engine.info.device == "CPU"
            embedding = engine.encode(case.image)
            answers[name] = engine.decode(embedding, case.prompts)
    for ours, theirs in zip(answers["openvino"], answers["onnxruntime"], strict=True):
        spread = float(theirs.logits.std())
        assert float(np.abs(ours.logits - theirs.logits).max()) <= 1e-3 * spread
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        for a, b in zip(ours.masks, theirs.masks, strict=True):
            assert iou(a, b) >= 0.999


def test_float32_is_asked_for_and_a_runtime_that_does_otherwise_is_refused(
    backend: OpenVinoBackend, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processors with bfloat16 use it unless told otherwise; here the telling is left out."""
    bundle = Bundle.open(bundle_path)
    session = opened(backend, bundle_path, "encoder")
    native: Any = session._compiled  # type: ignore[attr-defined]
    assert native.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert native.get_property("INFERENCE_NUM_THREADS") == 1
    assert native.get_property("ENABLE_CPU_PINNING") is False
    session.close()

    class Lying:
        """A compiled model that says it computes in bfloat16, on eight threads."""

        def __init__(self, real: Any, **says: Any) -> None:
            self.real, self.says = real, says

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def get_property(self, name: str) -> Any:
            return self.says.get(name, self.real.get_property(name))

    class Bf16:
        def get_type_name(self) -> str:
            return "bf16"

    real = backend._compile
    for says, text in (
        ({"INFERENCE_PRECISION_HINT": Bf16()}, "compute in bf16 although f32 was asked for"),
        ({"INFERENCE_NUM_THREADS": 8}, "use 8 threads although 1 were asked for"),
    ):
        lie = lambda *args, says=says: Lying(real(*args), **says)  # noqa: E731
        monkeypatch.setattr(backend, "_compile", lie)
        with pytest.raises(BackendError, match=text):
            backend.open_artifact(bundle, bundle.artifact("encoder"), OPTIONS)


def test_a_device_that_is_not_there_is_named(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMRT_OPENVINO_DEVICE", "GPU.7")
    with pytest.raises(BackendError, match=r"on GPU\.7 \(it has CPU"):
        samrt.load(bundle_path, backend="openvino")


@pytest.mark.parametrize(
    ("role", "options", "device"),
    [
        ("encoder", OpenVinoOptions("NPU", "CPU"), "NPU"),
        ("decoder", OpenVinoOptions("NPU", "CPU"), "CPU"),
        ("decoder", OpenVinoOptions("GPU"), "GPU"),
    ],
)
def test_each_half_has_its_device(role: str, options: OpenVinoOptions, device: str) -> None:
    assert options.device_for(role) == device


@pytest.mark.parametrize(
    ("precision", "device", "hint"),
    [("fp16", "GPU", "f16"), ("fp32", "GPU", "f32"), ("fp16", "CPU", "f32")],
)
def test_the_precision_of_the_file_and_the_device_decide(
    backend: OpenVinoBackend,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    device: str,
    hint: str,
) -> None:
    asked: dict[str, Any] = {}

    def compile_(model: Path, label: str, where: str, config: dict[str, Any]) -> Any:
        asked.update(config, device=where)
        raise BackendError("enough")

    monkeypatch.setattr(backend, "_options", OpenVinoOptions(device, cache=False))
    monkeypatch.setattr(backend, "_compile", compile_)
    bundle = Bundle.open(bundle_path)
    artifact = replace(bundle.artifact("encoder"), precision=precision)
    with pytest.raises(BackendError, match="enough"):
        backend.open_artifact(bundle, artifact, OPTIONS)
    assert (asked["INFERENCE_PRECISION_HINT"], asked["device"]) == (hint, device)
    assert ("INFERENCE_NUM_THREADS" in asked) == (device == "CPU")


def test_where_it_computes_is_said(bundle_path: Path) -> None:
    assert OpenVinoBackend(OpenVinoOptions("GPU", cache=False)).device() == "GPU"
    with samrt.load(bundle_path, backend="openvino", threads=1) as engine:
        assert engine.info.device == "CPU"


def test_a_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMRT_OPENVINO_CACHE", "maybe")
    with pytest.raises(OptionError, match="SAMRT_OPENVINO_CACHE is 'maybe', expected 1 or 0"):
        OpenVinoBackend()


def test_a_second_load_reads_what_was_compiled(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with samrt.load("tiny", backend="openvino", threads=1) as engine:
        first = engine.encode(phantom_case("portrait").image)
    files = sorted((own_cache / "compiled").glob("openvino-*.bin"))
    assert len(files) == 2

    def compile_(*_: Any) -> Any:
        raise AssertionError("compiled a second time")

    monkeypatch.setattr(OpenVinoBackend, "_compile", compile_)
    with samrt.load("tiny", backend="openvino", threads=1) as engine:
        second = engine.encode(phantom_case("portrait").image)
    for name, array in first.features.items():
        np.testing.assert_array_equal(array, second.features[name])
    with pytest.raises(AssertionError, match="second time"):
        samrt.load("tiny", backend="openvino", threads=2)


def test_large_models_of_the_cpu_are_not_kept(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "_LARGEST_KEPT_FOR_CPU", 1000)
    samrt.load("tiny", backend="openvino", threads=1).close()
    assert not (own_cache / "compiled").exists()
    artifact = Bundle.open(find_model("tiny")).artifact("encoder")
    assert OpenVinoBackend(OpenVinoOptions("GPU"))._keeps(artifact, "GPU")
    assert not OpenVinoBackend(NO_CACHE)._keeps(artifact, "GPU")


def test_a_damaged_cache_changes_no_result(own_cache: Path) -> None:
    """One weight changed on the disk: OpenVINO itself would take it."""
    bundle = Bundle.open(find_model("tiny"))
    tensor = np.random.default_rng(1).random((1, 3, 512, 512), np.float32)

    def run() -> dict[str, NDArray[Any]]:
        backend = OpenVinoBackend(OpenVinoOptions())
        with backend.open_artifact(bundle, bundle.artifact("encoder"), OPTIONS) as session:
            return session.run({"image": tensor})

    expected = run()
    (path,) = (own_cache / "compiled").iterdir()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = b"\x42" * 400
    path.write_bytes(content)
    for name, array in run().items():
        np.testing.assert_array_equal(array, expected[name])
    assert path.read_bytes() != bytes(content), "the damaged entry was not replaced"
