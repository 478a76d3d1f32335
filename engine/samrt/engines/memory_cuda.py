"""GPU memory through cuda-python: the CUDA runtime API, so the primary context is used.

Each call of ``cuda.bindings.runtime`` returns a tuple whose first item is an error code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from samrt.engines.memory import DeviceInfo, DeviceMemory, HostBuffer
from samrt.errors import BackendError
from samrt.quoting import one_line

__all__ = ["CudaPythonMemory", "load_runtime"]

_MAPPED = 2  # cudaHostAllocMapped
_NON_BLOCKING = 1  # cudaStreamNonBlocking


def load_runtime() -> Any:
    """The module of the runtime API, by its new or its old name (cuda-python below 12.8).

    Raises:
        ImportError: cuda-python is not installed.
    """
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError:
        return import_module("cuda.cudart")


class CudaPythonMemory(DeviceMemory):
    """See :class:`samrt.engines.memory.DeviceMemory`."""

    name = "cuda-python"
    graphs = True

    def __init__(self, runtime: Any, index: int = 0) -> None:
        self._cuda = runtime
        self._index = index
        (count,) = self._call("cudaGetDeviceCount", "GPU")
        if count <= index:
            raise BackendError(f"GPU {index} is not there: the driver sees {count}")
        with self.current():
            self._info = self._describe()

    def _call(self, function: str, what: str, *args: Any) -> tuple[Any, ...]:
        """Call a function of the runtime API; the results without the error code."""
        try:
            code, *results = getattr(self._cuda, function)(*args)
        except (RuntimeError, TypeError, OverflowError) as exc:
            # Without a driver library cuda-python raises instead of returning a code.
            raise BackendError(f"{function} for {what!r} failed: {one_line(exc)}") from exc
        if int(code) != 0:
            raise BackendError(f"{function} for {what!r} failed: {self._error(code)}")
        return tuple(results)

    def _error(self, code: Any) -> str:
        texts = []
        for function in ("cudaGetErrorName", "cudaGetErrorString"):
            try:
                text = getattr(self._cuda, function)(code)[1]
            except Exception:  # the error being described matters more
                continue
            texts.append(text.decode() if isinstance(text, bytes) else str(text))
        return ": ".join(texts) or f"error {int(code)}"

    def _describe(self) -> DeviceInfo:
        def attribute(name: str) -> int:
            item = getattr(self._cuda.cudaDeviceAttr, name)
            return int(self._call("cudaDeviceGetAttribute", name, item, self._index)[0])

        (properties,) = self._call("cudaGetDeviceProperties", "GPU", self._index)
        (driver,) = self._call("cudaDriverGetVersion", "GPU")
        name = properties.name
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        return DeviceInfo(
            name=text.rstrip("\0").strip(),
            capability=10 * attribute("cudaDevAttrComputeCapabilityMajor")
            + attribute("cudaDevAttrComputeCapabilityMinor"),
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
            total_bytes=int(properties.totalGlobalMem),
            integrated=bool(attribute("cudaDevAttrIntegrated")),
        )

    def device(self) -> DeviceInfo:
        """The GPU in use."""
        return self._info

    @contextmanager
    def current(self) -> Iterator[None]:
        """Choose the GPU for the calling thread."""
        self._call("cudaSetDevice", "GPU", self._index)
        yield

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        return int(self._call("cudaStreamCreateWithFlags", "stream", _NON_BLOCKING)[0])

    def destroy_stream(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", "stream", stream)

    def allocate(self, nbytes: int, what: str) -> int:
        """Address of new memory of the GPU."""
        return int(self._call("cudaMalloc", f"{what}, {nbytes} bytes", nbytes)[0])

    def free(self, address: int, what: str) -> None:
        """Give memory of the GPU back."""
        self._call("cudaFree", what, address)

    def allocate_host(self, nbytes: int, what: str, *, mapped: bool = False) -> HostBuffer:
        """New page-locked memory."""
        flags = _MAPPED if mapped else 0
        address = int(self._call("cudaHostAlloc", f"{what}, {nbytes} bytes", nbytes, flags)[0])
        device = 0
        if mapped:
            device = int(self._call("cudaHostGetDevicePointer", what, address, 0)[0])
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        return HostBuffer(np.frombuffer(memoryview(memory), np.uint8), device, address)

    def free_host(self, buffer: HostBuffer, what: str) -> None:
        """Give page-locked memory back; nothing may use the array afterwards."""
        buffer.array = np.zeros(0, np.uint8)
        self._call("cudaFreeHost", what, buffer.owner)

    def to_device(
        self, address: int, source: HostBuffer, nbytes: int, stream: int, what: str
    ) -> None:
        """Enqueue a copy to the GPU."""
        self._copy(address, source.owner, nbytes, "cudaMemcpyHostToDevice", stream, what)

    def to_host(
        self, target: HostBuffer, address: int, nbytes: int, stream: int, what: str
    ) -> None:
        """Enqueue a copy from the GPU."""
        self._copy(target.owner, address, nbytes, "cudaMemcpyDeviceToHost", stream, what)

    def on_device(self, target: int, source: int, nbytes: int, stream: int, what: str) -> None:
        """Enqueue a copy inside the GPU's memory."""
        self._copy(target, source, nbytes, "cudaMemcpyDeviceToDevice", stream, what)

    def _copy(self, to: int, source: int, nbytes: int, kind: str, stream: int, what: str) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        self._call("cudaMemcpyAsync", what, to, source, nbytes, direction, stream)

    def synchronize(self, stream: int, what: str) -> None:
        """Wait for the stream."""
        self._call("cudaStreamSynchronize", what, stream)

    def capture(self, stream: int, work: Callable[[], None], what: str) -> Any:
        """Record what ``work`` enqueues; a failure leaves the stream usable."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", what, stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(stream)  # whatever it says, capturing is over
            raise
        (graph,) = self._call("cudaStreamEndCapture", what, stream)
        try:
            return self._call("cudaGraphInstantiate", what, graph, 0)[0]
        finally:
            self._call("cudaGraphDestroy", what, graph)

    def launch(self, graph: Any, stream: int, what: str) -> None:
        """Enqueue a recorded graph."""
        self._call("cudaGraphLaunch", what, graph, stream)

    def free_graph(self, graph: Any, what: str) -> None:
        """Free a recorded graph."""
        self._call("cudaGraphExecDestroy", what, graph)
