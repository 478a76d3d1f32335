from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samrt import BackendError
from samrt.backends.base import SessionOptions
from samrt.backends.tensorrt import TensorRTRtxBackend
from samrt.bundle import Bundle
from samrt.engines.bundles import build_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.channel import ExecutionOptions
from samrt.engines.jit import jit_path
from samrt.engines.options import BuildOptions


@pytest.fixture
def start(
    bundle: Bundle, make_fake: Callable[..., Any], memory: Any, tmp_path: Path
) -> Callable[[], Path]:
    """Open and close the encoder once; the file its kernels are kept in."""

    def run() -> Path:
        api, cache = make_fake("rtx"), EngineCache(tmp_path)
        engine = build_bundle(bundle, api, BuildOptions(), cache=cache)[0]
        backend = TensorRTRtxBackend(api, memory, ExecutionOptions(), cache)
        backend.open_artifact(bundle, bundle.artifact("encoder"), SessionOptions()).close()
        return jit_path(engine.path, engine.record, memory.device())

    return run


def test_kernels_are_kept_for_the_next_start(start: Callable[[], Path], script: Any) -> None:
    path = start()
    assert path.read_bytes()[32:] == b"compiled"
    assert script.asked("kernels") == []
    stamp = path.stat().st_mtime_ns
    assert start() == path
    assert script.asked("kernels") == [(b"compiled",)]
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("how", ["damaged", "short", "open", "refused"])
def test_kernels_that_cannot_be_used_are_made_again(
    start: Callable[[], Path], script: Any, how: str
) -> None:
    path = start()
    good = path.read_bytes()
    if how == "damaged":
        path.write_bytes(good[:-1] + b"?")
    elif how == "short":
        path.write_bytes(good[:5])
    elif how == "open":
        path.chmod(0o666)
    else:
        script.refuse = {"kernels"}
    start()
    assert script.asked("kernels") == ([(b"compiled",)] if how == "refused" else [])
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("refused", "text"),
    [("no jit", "cannot make a cache of kernels"), ("jit", "does not take the cache of kernels")],
)
def test_the_runtimes_answers_are_looked_at(
    start: Callable[[], Path], script: Any, refused: str, text: str
) -> None:
    script.refuse = {refused}
    with pytest.raises(BackendError, match=text):
        start()


def test_a_full_disk_does_not_keep_a_session_from_closing(
    start: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = start()
    path.unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samrt.imaging.write.os.fsync", full)
    assert start() == path
    assert not path.exists()


def test_each_machine_and_engine_has_its_own(
    bundle: Bundle, make_fake: Callable[..., Any], memory: Any, tmp_path: Path
) -> None:
    record = build_bundle(bundle, make_fake("rtx"), BuildOptions(), cache=EngineCache(tmp_path))[
        0
    ].record
    gpu, engine = memory.device(), tmp_path / "e"
    names = {
        jit_path(engine, record, gpu),
        jit_path(engine, record, replace(gpu, driver="13.0")),
        jit_path(engine, record, replace(gpu, capability=86)),
        jit_path(engine, replace(record, sha256="b" * 64), gpu),
    }
    assert len(names) == 4
