"""GPU memory through PyCUDA: the CUDA driver API with the primary context.

PyCUDA ties memory to the context that is current in the thread, so the primary context is pushed
around all work and popped afterwards. PyCUDA has no CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from samrt.engines.memory import DeviceInfo, DeviceMemory, HostBuffer
from samrt.errors import BackendError
from samrt.quoting import one_line

__all__ = ["PyCudaMemory", "load_driver"]


def load_driver() -> Any:
    """The module of PyCUDA's driver API.

    Raises:
        ImportError: PyCUDA is not installed.
    """
    return import_module("pycuda.driver")


class PyCudaMemory(DeviceMemory):
    """See :class:`samrt.engines.memory.DeviceMemory`."""

    name = "pycuda"
    graphs = False

    def __init__(self, driver: Any, index: int = 0) -> None:
        self._cuda = driver
        self._streams: dict[int, Any] = {}
        self._blocks: dict[int, Any] = {}
        with self._named("init", "GPU"):
            driver.init()
            device = driver.Device(index)
            self._context = device.retain_primary_context()
        with self.current(), self._named("get_attributes", "GPU"):
            major, minor = device.compute_capability()
            version = int(driver.get_driver_version())
            integrated = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
            self._info = DeviceInfo(
                name=str(device.name()).strip(),
                capability=10 * int(major) + int(minor),
                driver=f"{version // 1000}.{version % 1000 // 10}",
                total_bytes=int(device.total_memory()),
                integrated=integrated,
            )

    @contextmanager
    def _named(self, function: str, what: str) -> Iterator[None]:
        """Turn PyCUDA's exceptions into errors that name the call and the tensor."""
        try:
            yield
        except (self._cuda.Error, MemoryError) as exc:
            text = one_line(exc)
            raise BackendError(f"{function} for {what!r} failed: {text}") from exc

    def device(self) -> DeviceInfo:
        """The GPU in use."""
        return self._info

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context and pop it again: PyCUDA aborts if one is left at exit."""
        with self._named("push context", "GPU"):
            self._context.push()
        try:
            yield
        finally:
            with self._named("pop context", "GPU"):
                self._context.pop()

    def create_stream(self) -> int:
        """A stream of its own."""
        with self._named("Stream", "stream"):
            stream = self._cuda.Stream()
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def destroy_stream(self, stream: int) -> None:
        """Free a stream: PyCUDA does it with the last reference."""
        self._streams.pop(stream, None)

    def allocate(self, nbytes: int, what: str) -> int:
        """Address of new memory of the GPU."""
        with self._named("mem_alloc", f"{what}, {nbytes} bytes"):
            block = self._cuda.mem_alloc(nbytes)
        self._blocks[int(block)] = block
        return int(block)

    def free(self, address: int, what: str) -> None:
        """Give memory of the GPU back."""
        block = self._blocks.pop(address)
        with self._named("free", what):
            block.free()

    def allocate_host(self, nbytes: int, what: str, *, mapped: bool = False) -> HostBuffer:
        """New page-locked memory."""
        flags = self._cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._named("pagelocked_empty", f"{what}, {nbytes} bytes"):
            array = self._cuda.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
            device = int(array.base.get_device_pointer()) if mapped else 0
        return HostBuffer(array, device, array)

    def free_host(self, buffer: HostBuffer, what: str) -> None:
        """Give page-locked memory back: PyCUDA does it with the last reference."""
        buffer.array = np.zeros(0, np.uint8)
        buffer.owner = None

    def to_device(
        self, address: int, source: HostBuffer, nbytes: int, stream: int, what: str
    ) -> None:
        """Enqueue a copy to the GPU."""
        with self._named("memcpy_htod_async", what):
            self._cuda.memcpy_htod_async(address, source.array[:nbytes], self._streams[stream])

    def to_host(
        self, target: HostBuffer, address: int, nbytes: int, stream: int, what: str
    ) -> None:
        """Enqueue a copy from the GPU."""
        with self._named("memcpy_dtoh_async", what):
            self._cuda.memcpy_dtoh_async(target.array[:nbytes], address, self._streams[stream])

    def on_device(self, target: int, source: int, nbytes: int, stream: int, what: str) -> None:
        """Enqueue a copy inside the GPU's memory."""
        with self._named("memcpy_dtod_async", what):
            self._cuda.memcpy_dtod_async(target, source, nbytes, self._streams[stream])

    def synchronize(self, stream: int, what: str) -> None:
        """Wait for the stream."""
        with self._named("Stream.synchronize", what):
            self._streams[stream].synchronize()
