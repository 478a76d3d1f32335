"""Engines on a real GPU, against ONNX Runtime; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import samrt
from samrt import BackendError, BackendUnavailableError
from samrt.backends import get_backend
from samrt.backends.tensorrt import TensorRTBackend, TensorRTRtxBackend
from samrt.bundle import Bundle, find_model
from samrt.engines.api import load_api
from samrt.engines.bundles import build_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.channel import ExecutionOptions
from samrt.engines.memory import open_memory
from samrt.engines.options import BuildOptions
from samrt.phantoms import phantom_cases

pytestmark = pytest.mark.gpu
KINDS = {"tensorrt": TensorRTBackend, "tensorrt-rtx": TensorRTRtxBackend}


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}, {"zero_copy": True}], ids=str)
@pytest.mark.parametrize("runtime", sorted(KINDS))
def test_tiny_answers_as_on_the_cpu(
    runtime: str, options: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        api, memory = load_api(runtime), open_memory()
    except (BackendUnavailableError, BackendError) as exc:
        pytest.skip(str(exc))
    cache, bundle = EngineCache(tmp_path), Bundle.open(find_model("tiny"))
    build_bundle(bundle, api, BuildOptions(), device=memory.device(), cache=cache)
    with samrt.load("tiny", backend="onnxruntime", threads=1) as truth:
        backend = KINDS[runtime](api, memory, ExecutionOptions(**options), cache)
        monkeypatch.setattr(
            "samrt.model.get_backend",
            lambda name: backend if name == backend.name else get_backend(name),
        )
        with samrt.load("tiny", backend=runtime, threads=1) as engine:  # verifies, then tests
            assert engine.info.verification.state == "passed"
            for case in phantom_cases():
                want, got = (
                    e.decode(e.encode(case.image), case.prompts)[0] for e in (truth, engine)
                )
                assert np.abs(got.logits - want.logits).max() < 0.05
                both, either = (got.masks & want.masks).sum(), (got.masks | want.masks).sum()
                assert both >= 0.99 * either
