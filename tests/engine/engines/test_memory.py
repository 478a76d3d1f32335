"""The two providers of GPU memory over fakes of their modules, and cuda-python itself if there."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samrt import BackendError, BackendUnavailableError
from samrt.engines.memory import DeviceInfo, open_memory
from samrt.engines.memory_cuda import CudaPythonMemory, load_runtime
from samrt.engines.memory_pycuda import PyCudaMemory

ORIN = DeviceInfo("Orin", 87, "12.6", 2**33, True)


class FakeRuntime:
    """``cuda.bindings.runtime``: every function returns a tuple that begins with a code."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail: str | None = None
        self.count = 1
        self.keep: list[Any] = []
        kinds = ("HostToDevice", "DeviceToHost", "DeviceToDevice")
        self.cudaMemcpyKind = SimpleNamespace(**{f"cudaMemcpy{kind}": kind for kind in kinds})
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="local")
        names = {"ComputeCapabilityMajor": 8, "ComputeCapabilityMinor": 7, "Integrated": 1}
        self.cudaDeviceAttr = SimpleNamespace(**{f"cudaDevAttr{n}": v for n, v in names.items()})

    def cudaGetErrorName(self, code: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"cudaErrorMemoryAllocation"

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"out of memory"

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def function(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            if name == self.fail:
                return (2, None)
            return (0, *self.answer(name, args))

        return function

    def answer(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if name == "cudaHostAlloc":
            self.keep.append(ctypes.create_string_buffer(args[0]))
            return (ctypes.addressof(self.keep[-1]),)
        known = {
            "cudaGetDeviceCount": self.count,
            "cudaDeviceGetAttribute": args[0] if args else None,
            "cudaGetDeviceProperties": SimpleNamespace(name=b"Orin\0\0", totalGlobalMem=2**33),
            "cudaDriverGetVersion": 12060,
            "cudaStreamCreateWithFlags": 5,
            "cudaMalloc": 4096,
            "cudaHostGetDevicePointer": 8192,
            "cudaStreamEndCapture": "graph",
            "cudaGraphInstantiate": "exec",
        }
        return (known[name],) if name in known else ()


def test_cuda_python_describes_the_gpu() -> None:
    memory = CudaPythonMemory(FakeRuntime())
    assert memory.device() == ORIN
    assert str(ORIN) == "Orin sm87, driver for CUDA 12.6"
    assert memory.graphs


def test_cuda_python_moves_bytes() -> None:
    runtime = FakeRuntime()
    memory = CudaPythonMemory(runtime)
    runtime.calls.clear()
    with memory.current():
        stream = memory.create_stream()
        address = memory.allocate(16, "image")
        host = memory.allocate_host(16, "image")
        host.array[:] = np.arange(16)
        assert bytes(runtime.keep[0].raw) == bytes(range(16))
        memory.to_device(address, host, 12, stream, "image")
        memory.to_host(host, address, 12, stream, "image")
        memory.on_device(1, 2, 3, stream, "image")
        memory.synchronize(stream, "image")
        memory.free_host(host, "image")
        memory.free(address, "image")
        memory.destroy_stream(stream)
    owner = ctypes.addressof(runtime.keep[0])
    assert runtime.calls == [
        ("cudaSetDevice", 0),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaMalloc", 16),
        ("cudaHostAlloc", 16, 0),
        ("cudaMemcpyAsync", 4096, owner, 12, "HostToDevice", 5),
        ("cudaMemcpyAsync", owner, 4096, 12, "DeviceToHost", 5),
        ("cudaMemcpyAsync", 1, 2, 3, "DeviceToDevice", 5),
        ("cudaStreamSynchronize", 5),
        ("cudaFreeHost", owner),
        ("cudaFree", 4096),
        ("cudaStreamDestroy", 5),
    ]
    assert host.array.size == 0


def test_cuda_python_maps_memory_for_the_gpu() -> None:
    runtime = FakeRuntime()
    host = CudaPythonMemory(runtime).allocate_host(16, "image", mapped=True)
    assert host.device == 8192
    assert ("cudaHostAlloc", 16, 2) in runtime.calls


def test_cuda_python_records_graphs() -> None:
    runtime = FakeRuntime()
    memory = CudaPythonMemory(runtime)
    graph = memory.capture(5, lambda: None, "decoder")
    memory.launch(graph, 5, "decoder")
    memory.free_graph(graph, "decoder")
    assert [call[0] for call in runtime.calls[-6:]] == [
        "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
        "cudaGraphDestroy", "cudaGraphLaunch", "cudaGraphExecDestroy",
    ]  # fmt: skip

    def fail() -> None:
        raise BackendError("no kernel")

    runtime.calls.clear()
    with pytest.raises(BackendError, match="no kernel"):
        memory.capture(5, fail, "decoder")
    assert [call[0] for call in runtime.calls] == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]


@pytest.mark.parametrize(
    ("function", "use"),
    [
        ("cudaMalloc", lambda m: m.allocate(16, "image")),
        ("cudaHostAlloc", lambda m: m.allocate_host(16, "image")),
        ("cudaFree", lambda m: m.free(4096, "image")),
        ("cudaMemcpyAsync", lambda m: m.on_device(1, 2, 3, 5, "image")),
        ("cudaStreamSynchronize", lambda m: m.synchronize(5, "image")),
        ("cudaGraphLaunch", lambda m: m.launch("exec", 5, "image")),
    ],
)
def test_cuda_python_names_call_and_tensor(
    function: str, use: Callable[[CudaPythonMemory], Any]
) -> None:
    runtime = FakeRuntime()
    memory = CudaPythonMemory(runtime)
    runtime.fail = function
    text = f"{function} for 'image.* failed: cudaErrorMemoryAllocation: out of memory"
    with pytest.raises(BackendError, match=text):
        use(memory)


def test_no_gpu_and_no_driver() -> None:
    runtime = FakeRuntime()
    runtime.count = 0
    with pytest.raises(BackendError, match="GPU 0 is not there: the driver sees 0"):
        CudaPythonMemory(runtime)

    def no_library() -> None:
        raise RuntimeError("Failure finding\n'libcuda.so'")

    with pytest.raises(
        BackendError, match="cudaGetDeviceCount for 'GPU' failed: Failure finding '"
    ):
        CudaPythonMemory(SimpleNamespace(cudaGetDeviceCount=no_library))


def test_cuda_python_itself_reports_a_missing_gpu() -> None:
    try:
        runtime = load_runtime()
    except ImportError:
        pytest.skip("cuda-bindings is not installed")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match="cudaGetDeviceCount for 'GPU' failed: cudaError"):
        CudaPythonMemory(runtime)


class FakeDriver:
    """``pycuda.driver``, as far as it is used."""

    class Error(Exception):
        """PyCUDA's base error."""

    def __init__(self) -> None:
        self.depth = 0
        self.log: list[Any] = []
        self.fail = False
        self.host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
        self.device_attribute = SimpleNamespace(INTEGRATED="integrated")

    def init(self) -> None:
        self.log.append("init")

    def get_driver_version(self) -> int:
        return 12060

    def Device(self, index: int) -> Any:  # noqa: N802
        return SimpleNamespace(
            retain_primary_context=lambda: SimpleNamespace(push=self.push, pop=self.pop),
            compute_capability=lambda: (8, 7),
            get_attribute=lambda item: int(item == "integrated"),
            name=lambda: "Orin",
            total_memory=lambda: 2**33,
        )

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def _work(self, *what: Any) -> None:
        assert self.depth > 0
        self.log.append(what)
        if self.fail:
            raise self.Error("out of\nmemory")

    def Stream(self) -> Any:  # noqa: N802
        return SimpleNamespace(handle=5, synchronize=lambda: self._work("synchronize"))

    def mem_alloc(self, nbytes: int) -> Any:
        self._work("mem_alloc", nbytes)
        driver = self

        class Block:
            def __int__(self) -> int:
                return 4096

            def free(self) -> None:
                driver._work("free")

        return Block()

    def pagelocked_empty(self, count: int, dtype: Any, mem_flags: int) -> Any:
        self._work("pagelocked_empty", count, mem_flags)

        class Array(np.ndarray):
            base = SimpleNamespace(get_device_pointer=lambda: 8192)

        return np.zeros(count, dtype).view(Array)

    def memcpy_htod_async(self, to: int, source: Any, stream: Any) -> None:
        self._work("htod", to, source.size, stream.handle)

    def memcpy_dtoh_async(self, target: Any, source: int, stream: Any) -> None:
        self._work("dtoh", target.size, source, stream.handle)

    def memcpy_dtod_async(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._work("dtod", to, source, nbytes, stream.handle)


def test_pycuda_does_the_same() -> None:
    driver = FakeDriver()
    memory = PyCudaMemory(driver)
    assert memory.device() == ORIN
    assert not memory.graphs
    driver.log.clear()
    with memory.current():
        stream = memory.create_stream()
        address = memory.allocate(16, "image")
        host = memory.allocate_host(16, "image", mapped=True)
        assert host.device == 8192
        memory.to_device(address, host, 12, stream, "image")
        memory.to_host(host, address, 12, stream, "image")
        memory.on_device(1, 2, 3, stream, "image")
        memory.synchronize(stream, "image")
        memory.free_host(host, "image")
        memory.free(address, "image")
        memory.destroy_stream(stream)
    assert driver.log == [
        ("mem_alloc", 16), ("pagelocked_empty", 16, 2), ("htod", 4096, 12, 5),
        ("dtoh", 12, 4096, 5), ("dtod", 1, 2, 3, 5), ("synchronize",), ("free",),
    ]  # fmt: skip
    assert driver.depth == 0


def test_pycuda_names_call_and_tensor() -> None:
    driver = FakeDriver()
    memory = PyCudaMemory(driver)
    driver.fail = True
    text = "mem_alloc for 'image, 16 bytes' failed: out of memory"
    with pytest.raises(BackendError, match=text), memory.current():
        memory.allocate(16, "image")
    assert driver.depth == 0
    with pytest.raises(NotImplementedError, match="pycuda has no CUDA graphs"):
        memory.launch(None, 5, "image")


def test_providers_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'cuda'")

    monkeypatch.setattr("samrt.engines.memory_cuda.load_runtime", absent)
    monkeypatch.setattr("samrt.engines.memory_pycuda.load_driver", FakeDriver)
    assert open_memory().name == "pycuda"
    monkeypatch.setattr("samrt.engines.memory_pycuda.load_driver", absent)
    with pytest.raises(BackendUnavailableError, match=r"cuda-python: No mod.*; pycuda: No mod"):
        open_memory()
    with pytest.raises(BackendUnavailableError, match="vulkan: unknown, choose from cuda-python, "):
        open_memory("vulkan")
