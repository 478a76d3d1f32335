"""A TensorRT and a GPU made of Python, thin but strict.

The fake runtime (``fake_trt.py``) "compiles" an ONNX file of the committed bundle and runs it
with ONNX Runtime. The fake memory does nothing until a stream is synchronised, as a GPU may, and
complains about memory that was freed or is touched without a current context.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.backends import get_backend
from samrt.backends.base import Session, SessionOptions
from samrt.backends.tensorrt import TensorRTBackend, TensorRTRtxBackend
from samrt.bundle import Bundle
from samrt.engines.api import Api, make_api
from samrt.engines.bundles import build_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.channel import ExecutionOptions
from samrt.engines.memory import DeviceInfo, DeviceMemory, HostBuffer
from samrt.engines.options import BuildOptions
from samrt.engines.proof import EngineProof
from samrt.errors import BackendError


def _load_fake() -> Any:
    name = "samrt_tests_fake_trt"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("fake_trt.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FAKE = _load_fake()
GPU = DeviceInfo("Fake 4000", 89, "12.6", 8 * 2**30)
POISON = 0xA5
PASSED = {
    "passed": True, "precision": "fp32", "against": "itself", "mask_iou_mean": 1.0,
    "mask_iou_worst": 1.0,
}  # fmt: skip
LOADING = ("self_test", "allow_refused")


class FakeMemory(DeviceMemory):
    """Memory of a GPU that works through its stream when it is synchronised."""

    name = "fake"
    graphs = True

    def __init__(self, info: DeviceInfo = GPU) -> None:
        self.info = info
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.host: dict[int, HostBuffer] = {}
        self.queue: list[Callable[[], None]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.streams: set[int] = set()
        self.graphs_alive: list[Any] = []
        self.log: list[tuple[str, str, int]] = []
        self.fail: tuple[str, str] | None = None
        self.depth = 0
        self._next = 0x1000

    def _note(self, function: str, what: str, nbytes: int = 0) -> None:
        assert self.depth > 0, f"{function} of {what} without a current context"
        self.log.append((function, what, nbytes))
        if self.fail is not None and self.fail == (function, what):
            raise BackendError(f"cuda {function} for {what!r} failed: cudaErrorFake")

    def names(self, function: str) -> list[str]:
        return [what for name, what, _ in self.log if name == function]

    def device(self) -> DeviceInfo:
        return self.info

    @contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def create_stream(self) -> int:
        self._note("create_stream", "stream")
        self.streams.add(7)
        return 7

    def destroy_stream(self, stream: int) -> None:
        self._note("destroy_stream", "stream")
        self.streams.remove(stream)

    def _address(self, nbytes: int) -> int:
        address, self._next = self._next, self._next + nbytes + 64
        return address

    def allocate(self, nbytes: int, what: str) -> int:
        self._note("allocate", what, nbytes)
        address = self._address(nbytes)
        self.blocks[address] = np.full(nbytes, POISON, np.uint8)
        return address

    def free(self, address: int, what: str) -> None:
        self._note("free", what)
        assert not self.queue, f"{what} is freed while the stream is busy"
        self.blocks.pop(address)[:] = POISON

    def allocate_host(self, nbytes: int, what: str, *, mapped: bool = False) -> HostBuffer:
        self._note("allocate_host", what, nbytes)
        address = self._address(nbytes)
        buffer = HostBuffer(np.full(nbytes, POISON, np.uint8), address if mapped else 0, address)
        self.host[address] = buffer
        if mapped:
            self.blocks[address] = buffer.array
        return buffer

    def free_host(self, buffer: HostBuffer, what: str) -> None:
        self._note("free_host", what)
        del self.host[buffer.owner]
        self.blocks.pop(buffer.owner, None)
        buffer.array[:] = POISON

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.capturing is None else self.capturing).append(work)

    def to_device(
        self, address: int, source: HostBuffer, nbytes: int, stream: int, what: str
    ) -> None:
        self._note("to_device", what, nbytes)
        assert stream in self.streams

        def copy() -> None:
            self.blocks[address][:nbytes] = source.array[:nbytes]

        self.enqueue(copy)

    def to_host(
        self, target: HostBuffer, address: int, nbytes: int, stream: int, what: str
    ) -> None:
        self._note("to_host", what, nbytes)
        assert stream in self.streams

        def copy() -> None:
            target.array[:nbytes] = self.blocks[address][:nbytes]

        self.enqueue(copy)

    def on_device(self, target: int, source: int, nbytes: int, stream: int, what: str) -> None:
        self._note("on_device", what, nbytes)

        def copy() -> None:
            self.blocks[target][:nbytes] = self.blocks[source][:nbytes]

        self.enqueue(copy)

    def synchronize(self, stream: int, what: str) -> None:
        self._note("synchronize", what)
        work, self.queue = self.queue, []
        for step in work:
            step()

    def capture(self, stream: int, work: Callable[[], None], what: str) -> Any:
        self._note("capture", what)
        self.capturing = []
        try:
            work()
            graph = self.capturing
        finally:
            self.capturing = None
        self.graphs_alive.append(graph)
        return graph

    def launch(self, graph: Any, stream: int, what: str) -> None:
        self._note("launch", what)
        self.queue.extend(graph)

    def free_graph(self, graph: Any, what: str) -> None:
        self._note("free_graph", what)
        self.graphs_alive.remove(graph)


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


@pytest.fixture
def script(bundle: Bundle, memory: FakeMemory) -> Any:
    """The committed bundle's files, which the fake runtime can read."""
    found = FAKE.Script(memory=memory)
    for artifact in bundle.manifest.artifacts:
        path = bundle.file_of(artifact)
        found.files[path.name] = (list(artifact.inputs), list(artifact.outputs), path)
    return found


@pytest.fixture
def make_fake(script: Any) -> Callable[[str], Api]:
    """``make_fake("10")``: an Api over the fake module of that kind."""

    def make(kind: str = "10") -> Api:
        runtime = "tensorrt-rtx" if kind == "rtx" else "tensorrt"
        return make_api(runtime, FAKE.make_module(script, kind=kind))

    return make


@pytest.fixture
def make_backend(
    bundle: Bundle, memory: Any, make_fake: Callable[..., Any], tmp_path: Path
) -> Callable[..., TensorRTBackend]:
    """``make_backend("10", cuda_graph=True)``: engines of the committed bundle, built.

    With ``proven=False`` they have no record of a verification yet.
    """

    def make(kind: str = "10", *, proven: bool = True, **options: Any) -> TensorRTBackend:
        api, cache = make_fake(kind), EngineCache(tmp_path)
        sizes = BuildOptions(max_prompts=4, max_points=6)
        found = build_bundle(bundle, api, sizes, device=memory.device(), cache=cache)
        if proven:
            records = {outcome.role: outcome.record for outcome in found}
            EngineProof(cache, records, memory.device(), api.version).store(PASSED)
        made = TensorRTRtxBackend if kind == "rtx" else TensorRTBackend
        return made(api, memory, ExecutionOptions(**options), cache)

    return make


@pytest.fixture
def open_model(
    bundle: Bundle, make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., samrt.Predictor]]:
    """``open_model("10", cuda_graph=True)``: the public engine over the fake GPU."""
    opened: list[samrt.Predictor] = []

    def make(kind: str = "10", **options: Any) -> samrt.Predictor:
        loading = {name: options.pop(name) for name in LOADING if name in options}
        backend = make_backend(kind, **options)
        monkeypatch.setattr(
            "samrt.model.get_backend",
            lambda name: backend if name == backend.name else get_backend(name),
        )
        loading = {"self_test": False, **loading}
        opened.append(samrt.load(bundle.path, backend=backend.name, threads=1, **loading))
        return opened[-1]

    yield make
    for predictor in opened:
        predictor.close()


@pytest.fixture
def sessions(bundle: Bundle, make_backend: Callable[..., Any]) -> Iterator[list[Session]]:
    """Encoder and decoder without the public engine."""
    backend, options = make_backend(), SessionOptions(threads=1)
    found = [
        backend.open_artifact(bundle, bundle.artifact(r), options) for r in ("encoder", "decoder")
    ]
    yield found
    for session in found:
        session.close()
