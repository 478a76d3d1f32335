"""The one gate to the GPU's memory: what a session needs of CUDA, and who provides it.

Two providers exist: cuda-python (``cuda.bindings.runtime``) and PyCUDA. Both are imported when
they are used. Every failure is a :class:`samrt.errors.BackendError` that names the tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import BackendUnavailableError

__all__ = ["DeviceInfo", "DeviceMemory", "HostBuffer", "open_memory"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A GPU.

    Attributes:
        name: its name, such as ``Orin``.
        capability: compute capability times ten, such as 87.
        driver: the CUDA version its driver supports, such as ``12.6``.
        total_bytes: its memory.
        integrated: it shares its memory with the processor (Jetson).
    """

    name: str
    capability: int
    driver: str
    total_bytes: int = 0
    integrated: bool = False

    @property
    def generation(self) -> str:
        """``sm87``."""
        return f"sm{self.capability}"

    @property
    def key(self) -> str:
        """Name and generation, as they enter an engine's key."""
        return f"{self.name} {self.generation}"

    def __str__(self) -> str:
        return f"{self.key}, driver for CUDA {self.driver}"


@dataclass(slots=True)
class HostBuffer:
    """Page-locked memory of the processor.

    Attributes:
        array: its bytes, ``(n,)`` uint8.
        device: address at which the GPU reads the same memory; 0 if it cannot.
        owner: what frees it.
    """

    array: NDArray[np.uint8]
    device: int
    owner: Any


class DeviceMemory(ABC):
    """Memory, copies and one stream of the first GPU.

    ``what`` is the name of a tensor, for messages. Addresses are plain integers. Copies are
    enqueued on ``stream`` and done when :meth:`synchronize` returns. All methods raise
    ``BackendError`` when CUDA reports an error, which also tells of failures of earlier work on
    the stream.
    """

    name: str
    graphs: bool = False

    @abstractmethod
    def device(self) -> DeviceInfo:
        """The GPU in use."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """A block with the GPU's context current in this thread; other calls are made in one."""

    @abstractmethod
    def create_stream(self) -> int:
        """A stream of its own; work on the default stream would wait for other users of it."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None:
        """Free a stream."""

    @abstractmethod
    def allocate(self, nbytes: int, what: str) -> int:
        """Address of new memory of the GPU."""

    @abstractmethod
    def free(self, address: int, what: str) -> None:
        """Give memory of the GPU back."""

    @abstractmethod
    def allocate_host(self, nbytes: int, what: str, *, mapped: bool = False) -> HostBuffer:
        """New page-locked memory; with ``mapped`` the GPU can address it."""

    @abstractmethod
    def free_host(self, buffer: HostBuffer, what: str) -> None:
        """Give page-locked memory back."""

    @abstractmethod
    def to_device(
        self, address: int, source: HostBuffer, nbytes: int, stream: int, what: str
    ) -> None:
        """Copy the first ``nbytes`` of a host buffer to the GPU."""

    @abstractmethod
    def to_host(
        self, target: HostBuffer, address: int, nbytes: int, stream: int, what: str
    ) -> None:
        """Copy ``nbytes`` from the GPU to the start of a host buffer."""

    @abstractmethod
    def on_device(self, target: int, source: int, nbytes: int, stream: int, what: str) -> None:
        """Copy inside the GPU's memory."""

    @abstractmethod
    def synchronize(self, stream: int, what: str) -> None:
        """Wait until all work on the stream is done."""

    def capture(self, stream: int, work: Callable[[], None], what: str) -> Any:
        """Record what ``work`` enqueues as a CUDA graph; only where :attr:`graphs` is true."""
        raise NotImplementedError(f"{self.name} has no CUDA graphs")

    def launch(self, graph: Any, stream: int, what: str) -> None:
        """Run a recorded graph."""
        raise NotImplementedError(f"{self.name} has no CUDA graphs")

    def free_graph(self, graph: Any, what: str) -> None:
        """Free a recorded graph."""
        raise NotImplementedError(f"{self.name} has no CUDA graphs")


def open_memory(name: str = "auto") -> DeviceMemory:
    """Open ``cuda-python`` or ``pycuda``; ``auto`` takes the first that is installed.

    Raises:
        BackendUnavailableError: neither is installed, or the chosen one is not.
        BackendError: it is installed, but there is no GPU or no driver.
    """
    makers = {"cuda-python": _cuda_python, "pycuda": _pycuda}
    wanted = list(makers) if name == "auto" else [name]
    reasons = []
    for item in wanted:
        try:
            if item not in makers:
                raise ImportError(f"unknown, choose from {', '.join(makers)}")
            return makers[item]()
        except ImportError as exc:
            reasons.append(f"{item}: {' '.join(str(exc).split())}")
    raise BackendUnavailableError(
        f"no access to the GPU's memory ({'; '.join(reasons)}): pip install cuda-bindings"
    )


def _cuda_python() -> DeviceMemory:
    from samrt.engines.memory_cuda import CudaPythonMemory, load_runtime

    return CudaPythonMemory(load_runtime())


def _pycuda() -> DeviceMemory:
    from samrt.engines.memory_pycuda import PyCudaMemory, load_driver

    return PyCudaMemory(load_driver())
