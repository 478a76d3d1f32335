"""What the encoder and the decoder of one model share on the GPU: a stream, a lock, embeddings.

Nothing here runs beside anything else: every run holds the lock until its stream is idle, so
memory is reused and freed only when no kernel can still see it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.engines.memory import DeviceMemory, HostBuffer
from samrt.errors import OptionError

__all__ = ["Block", "Channel", "ExecutionOptions", "bytes_of", "is_frozen"]

_YES, _NO = ("1", "yes", "on", "true"), ("", "0", "no", "off", "false")


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """How engines are run; read from the environment where a backend is opened by its name.

    Attributes:
        memory: ``auto``, ``cuda-python`` or ``pycuda`` (``SAMRT_GPU_MEMORY``).
        cuda_graph: replay the kernels of a shape seen before as one graph
            (``SAMRT_CUDA_GRAPH=1``).
        zero_copy: let the GPU read and write the processor's memory instead of copying, for
            machines on which both are the same chips, such as a Jetson (``SAMRT_ZERO_COPY=1``).
        resident_bytes: most GPU memory for embeddings kept between encode and decode.
    """

    memory: str = "auto"
    cuda_graph: bool = False
    zero_copy: bool = False
    resident_bytes: int = 256 * 2**20

    @classmethod
    def from_environment(cls) -> ExecutionOptions:
        """Options as the environment's variables say.

        Raises:
            OptionError: a variable is neither yes nor no.
        """
        return cls(
            memory=os.environ.get("SAMRT_GPU_MEMORY", "auto"),
            cuda_graph=_switch("SAMRT_CUDA_GRAPH"),
            zero_copy=_switch("SAMRT_ZERO_COPY"),
        )


def _switch(name: str) -> bool:
    text = os.environ.get(name, "").lower()
    if text not in (*_YES, *_NO):
        raise OptionError(f"{name} is {text!r}, expected 1 or 0")
    return text in _YES


@dataclass(slots=True)
class Block:
    """Memory of the GPU: its address and how much of it there is."""

    address: int
    nbytes: int


def is_frozen(array: NDArray[Any]) -> bool:
    """Whether nobody can change an array: read-only, and not a view of something else."""
    return bool(array.flags.owndata and not array.flags.writeable)


class Channel:
    """A stream, a lock, and the arrays that already lie on the GPU.

    Arrays that cannot change any more (an embedding's features) are remembered with their copy on
    the GPU for as long as they live, so a second prompt about an image sends the prompt only.

    Attributes:
        memory: the GPU's memory.
        options: how engines are run.
        stream: the one stream.
        closed: the last session has gone, and the stream with it.
    """

    def __init__(self, memory: DeviceMemory, options: ExecutionOptions) -> None:
        if options.cuda_graph and not memory.graphs:
            raise OptionError(
                f"{memory.name} has no CUDA graphs: install cuda-bindings, or switch them off"
            )
        self.memory = memory
        self.options = options
        self._lock = threading.RLock()
        self._users = 0
        self.closed = False
        self._residents: OrderedDict[int, tuple[weakref.ref[NDArray[Any]], Block]] = OrderedDict()
        self._dead: deque[int] = deque()
        self._discarded: list[tuple[Block, str]] = []
        self._depth = 0
        self._touched: set[int] = set()
        with memory.current():
            self.stream = memory.create_stream()

    @contextmanager
    def work(self) -> Iterator[None]:
        """A block in which this thread alone uses the GPU's memory and the stream."""
        with self._lock, self.memory.current():
            if self._depth == 0:
                self._bury()
                self.collect()
                self._touched.clear()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def join(self) -> None:
        """One more session uses the channel."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """A session has gone; the last one frees the stream and the embeddings."""
        with self.work():
            self._users -= 1
            if self._users > 0:
                return
            for key in list(self._residents):
                self._forget(key)
            self.collect()
            self.closed = True
            self.memory.destroy_stream(self.stream)

    # -- arrays on the GPU; all called inside ``work`` ---------------------------------------------

    def resident(self, array: NDArray[Any]) -> Block | None:
        """The copy of a frozen array on the GPU, if there is one."""
        found = self._residents.get(id(array))
        if found is None or found[0]() is not array or not is_frozen(array):
            return None
        self._residents.move_to_end(id(array))
        self._touched.add(id(array))
        return found[1]

    def keep(self, array: NDArray[Any], block: Block) -> bool:
        """Take over ``block``, which holds what ``array`` does; false if it is not taken.

        Older copies give way if there are too many, but none that the run in progress reads.
        """
        if not is_frozen(array):
            return False
        if id(array) in self._residents:  # its note of death has not been read yet
            self._forget(id(array))
        spare = [key for key in self._residents if key not in self._touched]
        excess = self._held() + block.nbytes - self.options.resident_bytes
        if excess > sum(self._residents[key][1].nbytes for key in spare):
            return False
        while excess > 0:
            oldest = spare.pop(0)
            excess -= self._residents[oldest][1].nbytes
            self._forget(oldest)
        key, dead = id(array), self._dead
        # The callback may run in any thread at any time, so it only leaves a note.
        self._residents[key] = (weakref.ref(array, lambda _: dead.append(key)), block)
        self._touched.add(key)
        return True

    def _held(self) -> int:
        return sum(block.nbytes for _, block in self._residents.values())

    def _bury(self) -> None:
        """Free the copies of arrays that are gone."""
        while self._dead:
            key = self._dead.popleft()
            found = self._residents.get(key)
            if found is not None and found[0]() is None:
                self._forget(key)

    def _forget(self, key: int) -> None:
        _, block = self._residents.pop(key)
        self.discard(block, "embedding")

    # -- buffers that are used again ---------------------------------------------------------------

    def grown(self, block: Block | None, nbytes: int, what: str) -> Block:
        """``block`` if it is large enough, else a larger one in its place."""
        if block is not None and block.nbytes >= nbytes:
            return block
        new = Block(self.memory.allocate(nbytes, what), nbytes)
        if block is not None:
            self.discard(block, what)
        return new

    def discard(self, block: Block, what: str) -> None:
        """Free memory as soon as the stream is idle."""
        self._discarded.append((block, what))

    def collect(self) -> None:
        """Free what has been discarded; called when the stream is idle."""
        while self._discarded:
            block, what = self._discarded.pop()
            self.memory.free(block.address, what)

    def grown_host(self, buffer: HostBuffer | None, nbytes: int, what: str) -> HostBuffer:
        """The same for page-locked memory."""
        if buffer is not None and buffer.array.nbytes >= nbytes:
            return buffer
        new = self.memory.allocate_host(nbytes, what, mapped=self.options.zero_copy)
        if buffer is not None:
            self.memory.free_host(buffer, what)
        return new


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a C-contiguous array, ``(n,)`` uint8, without a copy."""
    return array.reshape(-1).view(np.uint8)
