"""The backends for TensorRT and TensorRT-RTX: engines that ``samrt build`` has put into the cache.

Opening a model never builds an engine, which takes minutes; it says how to build it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from samrt.backends.base import Backend, Proof, Session, SessionOptions
from samrt.bundle import sha256_of
from samrt.engines.api import Api, load_api
from samrt.engines.cache import EngineCache
from samrt.engines.channel import Channel, ExecutionOptions
from samrt.engines.execution import EngineSession
from samrt.engines.jit import jit_path
from samrt.engines.loading import load_engine
from samrt.engines.memory import DeviceMemory, open_memory
from samrt.engines.proof import EngineProof
from samrt.engines.record import EngineRecord, model_digest
from samrt.errors import BackendError

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest import Artifact

__all__ = ["TensorRTBackend", "TensorRTRtxBackend"]


class TensorRTBackend(Backend):
    """Runs engines on the GPU; the two sessions of a model share a stream and its embeddings.

    Args:
        api: the runtime; imported where ``None``.
        memory: the GPU's memory; opened at the first session where ``None``.
        options: how engines are run; from the environment where ``None``.
        cache: where engines lie; the user's cache folder where ``None``.
        only: digest of an ONNX file -> the engine to open in place of the latest one.
    """

    name = "tensorrt"
    runtime: ClassVar[str] = "tensorrt"

    def __init__(
        self,
        api: Api | None = None,
        memory: DeviceMemory | None = None,
        options: ExecutionOptions | None = None,
        cache: EngineCache | None = None,
        only: Mapping[str, EngineRecord] | None = None,
    ) -> None:
        self._api = load_api(self.runtime) if api is None else api
        self._memory = memory
        self._options = ExecutionOptions.from_environment() if options is None else options
        self._cache = EngineCache() if cache is None else cache
        self._only = dict(only or {})
        self._channel: Channel | None = None

    def create(self, model: Path | bytes, options: SessionOptions) -> Session:
        """Open the engine of an ONNX file without data files; see :meth:`open_artifact`."""
        if isinstance(model, bytes):
            return self._open(hashlib.sha256(model).hexdigest(), "from memory", options)
        try:
            digest = sha256_of(model)
        except OSError as exc:
            raise BackendError(f"cannot open model {model.name}: {exc.strerror or exc}") from exc
        return self._open(digest, model.name, options)

    def open_artifact(self, bundle: Bundle, artifact: Artifact, options: SessionOptions) -> Session:
        """Open the engine of a bundle's encoder or decoder.

        Of ``options`` only ``allow_refused`` counts, the others are about the processor.

        Raises:
            BackendError: no engine in the cache was built from this file for this runtime and
                this GPU, or it is damaged.
            VerificationError: it is refused by its verification.
        """
        label = f"{bundle.manifest.name} {artifact.file}"
        return self._open(model_digest(artifact), label, options)

    def _open(self, digest: str, label: str, options: SessionOptions) -> Session:
        record = self._only.get(digest) or self._cache.choose(
            digest, label, self._api, self._gpu().device(), allow_refused=options.allow_refused
        )
        return self._open_engine(record, label)

    def _gpu(self) -> DeviceMemory:
        memory = self._memory = self._memory or open_memory(self._options.memory)
        return memory

    def _open_engine(self, record: EngineRecord, label: str) -> EngineSession:
        memory = self._gpu()
        self._cache.check(record)
        if self._channel is None or self._channel.closed:
            self._channel = Channel(memory, self._options)
        path = self._cache.path_of(record)
        with self._channel.work():
            loaded = load_engine(
                self._api,
                path,
                record,
                label,
                cuda_graph=self._options.cuda_graph,
                jit_file=jit_path(path, record, memory.device()),
            )
        return EngineSession(loaded, record, self._channel)

    def proof(self, sessions: Mapping[str, Session]) -> Proof | None:
        """The record in the manifests of these engines."""
        records = {
            role: session.record
            for role, session in sessions.items()
            if isinstance(session, EngineSession)
        }
        return EngineProof(self._cache, records, self._gpu().device(), self._api.version)

    def device(self) -> str:
        """Name and generation of the GPU."""
        return self._gpu().device().key

    def version(self) -> str:
        """Version of the runtime."""
        return self._api.version


class TensorRTRtxBackend(TensorRTBackend):
    """The same with TensorRT-RTX."""

    name = "tensorrt-rtx"
    runtime: ClassVar[str] = "tensorrt-rtx"
