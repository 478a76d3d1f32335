"""Running one engine: named tensors, one stream, page-locked buffers, results that are copies."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.backends.base import Arrays, Session
from samrt.engines.api import Api
from samrt.engines.channel import Block, Channel, bytes_of, is_frozen
from samrt.engines.loading import LoadedEngine
from samrt.engines.memory import HostBuffer
from samrt.engines.record import EngineRecord
from samrt.errors import BackendError
from samrt.manifest import TensorSpec

__all__ = ["EngineSession"]

_MOST_GRAPHS = 8

Signature = tuple[tuple[str, tuple[int, ...], int], ...]


class EngineSession(Session):
    """An engine, its execution context and its buffers; runs one at a time.

    Memory on the GPU: inputs and outputs have a buffer each that only grows. The outputs of an
    encoder (all sizes fixed) are handed to the channel by :meth:`retain`, so that the decoder
    reads them where they are.

    Attributes:
        record: manifest of the engine.
    """

    def __init__(self, loaded: LoadedEngine, record: EngineRecord, channel: Channel) -> None:
        super().__init__(loaded.label, record.inputs, record.outputs)
        self.record = record
        self._loaded: LoadedEngine | None = loaded
        self._api: Api = loaded.api
        self._ranges = record.ranges
        self._channel = channel
        self._fixed = all(isinstance(n, int) for spec in record.outputs for n in spec.shape)
        self._device: dict[str, Block] = {}
        self._host: dict[str, HostBuffer] = {}
        self._pending: dict[str, tuple[weakref.ref[NDArray[Any]], Block]] = {}
        self._graphs: OrderedDict[Signature, Any] = OrderedDict()
        self._own_graphs = channel.options.cuda_graph and not loaded.handles_graphs
        channel.join()

    # -- one run -------------------------------------------------------------------------------

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        self._check_sizes(feeds)
        with self._channel.work():
            loaded = self._loaded
            if loaded is None:
                raise BackendError(f"model {self.name} is closed: load it again")
            self._reclaim()
            loaded.log.errors.clear()
            try:
                return self._run_alone(loaded.context, feeds)
            except BaseException:
                self._drain()
                raise

    def _run_alone(self, context: Any, feeds: Arrays) -> dict[str, NDArray[Any]]:
        signature = []
        for spec in self.inputs:
            array = feeds[spec.name]
            if not context.set_input_shape(spec.name, tuple(array.shape)):
                raise self._failure(f"did not take {spec.name!r} with the shape {array.shape}")
            address = self._place_input(spec.name, array)
            signature.append((spec.name, tuple(array.shape), address))
        missing = context.infer_shapes()
        if missing:
            raise self._failure(f"cannot tell the shapes of {', '.join(map(str, missing))}")
        for spec in self.outputs:
            shape = tuple(int(n) for n in context.get_tensor_shape(spec.name))
            if any(n < 0 for n in shape):
                raise self._failure(f"cannot tell the shape of {spec.name!r}, got {shape}")
            signature.append((spec.name, shape, self._place_output(spec, shape)))
        for name, _, address in signature:
            if not context.set_tensor_address(name, address):
                raise self._failure(f"did not take the memory of {name!r}")
        self._enqueue(context, tuple(signature))
        return self._fetch({name: shape for name, shape, _ in signature[len(self.inputs) :]})

    def _place_input(self, name: str, array: NDArray[Any]) -> int:
        """Bring an input to the GPU; the address that the engine shall read."""
        channel, memory, stream = self._channel, self._channel.memory, self._channel.stream
        nbytes = max(array.nbytes, 1)
        there = channel.resident(array)
        if there is not None and not self._own_graphs:
            return there.address
        if there is not None:  # a graph needs the same address every time
            own = self._device[name] = channel.grown(self._device.get(name), nbytes, name)
            memory.on_device(own.address, there.address, nbytes, stream, name)
            return own.address
        staging = self._host[name] = channel.grown_host(self._host.get(name), nbytes, name)
        staging.array[: array.nbytes] = bytes_of(array)
        if channel.options.zero_copy:
            return staging.device
        if is_frozen(array) and not self._own_graphs:
            fresh = Block(memory.allocate(nbytes, name), nbytes)
            memory.to_device(fresh.address, staging, nbytes, stream, name)
            if not channel.keep(array, fresh):
                self._replace(name, fresh)
            return fresh.address
        own = self._device[name] = channel.grown(self._device.get(name), nbytes, name)
        memory.to_device(own.address, staging, nbytes, stream, name)
        return own.address

    def _replace(self, name: str, block: Block) -> None:
        old = self._device.pop(name, None)
        self._device[name] = block
        if old is not None:
            self._channel.discard(old, name)

    def _place_output(self, spec: TensorSpec, shape: Sequence[int]) -> int:
        """Memory for an output; the address that the engine shall write to."""
        channel = self._channel
        nbytes = max(int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize, 1)
        host = channel.grown_host(self._host.get(spec.name), nbytes, spec.name)
        self._host[spec.name] = host
        if channel.options.zero_copy:
            return host.device
        block = channel.grown(self._device.get(spec.name), nbytes, spec.name)
        self._device[spec.name] = block
        return block.address

    def _enqueue(self, context: Any, signature: Signature) -> None:
        """Start the kernels: as a graph from the second time on that all addresses are the same."""
        memory, stream = self._channel.memory, self._channel.stream

        def execute() -> None:
            if not context.execute_async_v3(stream):
                raise self._failure("could not be started")

        if not self._own_graphs:
            execute()
            return
        if signature not in self._graphs:
            self._remember(signature, None)
            execute()  # the runtime sets itself up on the first run of a shape
            return
        if self._graphs[signature] is None:
            self._graphs[signature] = memory.capture(stream, execute, self.name)
        self._graphs.move_to_end(signature)
        memory.launch(self._graphs[signature], stream, self.name)

    def _remember(self, signature: Signature, graph: Any) -> None:
        self._graphs[signature] = graph
        while len(self._graphs) > _MOST_GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            if oldest is not None:
                self._channel.memory.free_graph(oldest, self.name)

    def _fetch(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        """Wait for the results and copy them out of the buffers."""
        channel, memory = self._channel, self._channel.memory
        results = {
            spec.name: np.empty(shapes[spec.name], np.dtype(spec.dtype)) for spec in self.outputs
        }
        if not channel.options.zero_copy:
            for name, array in results.items():
                block = self._device[name]
                if array.nbytes:
                    memory.to_host(
                        self._host[name], block.address, array.nbytes, channel.stream, name
                    )
        memory.synchronize(channel.stream, self.name)
        channel.collect()
        for name, array in results.items():
            bytes_of(array)[:] = self._host[name].array[: array.nbytes]
        if self._fixed and not channel.options.zero_copy and not self._own_graphs:
            for name, array in results.items():
                self._pending[name] = (weakref.ref(array), self._device.pop(name))
        return results

    def retain(self, results: Arrays) -> None:
        """Let the decoder read these results where the last run left them.

        Called with arrays that this session returned and that have been made read-only. Any
        other array is left alone.
        """
        with self._channel.work():
            for name, array in results.items():
                waiting = self._pending.get(name)
                if waiting is None or waiting[0]() is not array:
                    continue
                if self._channel.keep(array, waiting[1]):
                    del self._pending[name]

    def _reclaim(self) -> None:
        """Use the memory of results again that nobody retained."""
        for name, (_, block) in self._pending.items():
            self._replace(name, block)
        self._pending.clear()

    def _drain(self) -> None:
        """After a failure: let nothing be in flight that uses the buffers."""
        try:
            self._channel.memory.synchronize(self._channel.stream, self.name)
        except BackendError:
            return  # the stream is broken; the first error says why

    # -- checks ----------------------------------------------------------------------------------

    def _check_sizes(self, feeds: Arrays) -> None:
        for name, sizes in self._ranges.items():
            shape = tuple(feeds[name].shape)
            if not sizes.contains(shape):
                raise BackendError(
                    f"engine {self.name} takes {name!r} from {list(sizes.smallest)} to "
                    f"{list(sizes.largest)}, got {list(shape)}: use a smaller chunk_size, or build "
                    "it again with larger --max-prompts and --max-points"
                )

    def _failure(self, what: str) -> BackendError:
        log = self._loaded.log if self._loaded is not None else None
        reason = log.reason() if log is not None else "closed"
        return BackendError(f"engine {self.name} {what}: {reason}")

    # -- end of life -----------------------------------------------------------------------------

    def close(self) -> None:
        """Free the engine and its memory; closing twice is fine.

        Raises:
            BackendError: CUDA reports an error; everything else has been freed all the same.
        """
        super().close()
        with self._channel.work():
            if self._loaded is None:
                return
            if self._loaded.jit is not None:
                self._loaded.jit.save()
            self._loaded = None
            first = self._free_all()
        self._channel.leave()
        if first is not None:
            raise first

    def _free_all(self) -> BackendError | None:
        memory, first = self._channel.memory, None
        self._reclaim()
        steps: list[tuple[Any, Any, str]] = [
            (memory.free_graph, graph, self.name)
            for graph in self._graphs.values()
            if graph is not None
        ]
        steps += [(memory.free, block.address, name) for name, block in self._device.items()]
        steps += [(memory.free_host, buffer, name) for name, buffer in self._host.items()]
        for function, item, name in steps:
            try:
                function(item, name)
            except BackendError as exc:
                first = first or exc
        self._graphs.clear()
        self._device.clear()
        self._host.clear()
        return first
