"""Kernels that a runtime compiles when an engine is loaded, kept for the next start.

TensorRT-RTX engines hold portable code; what a GPU really runs is compiled at the first load.
The result is kept beside the engine, for exactly this engine, GPU and driver. It can always be
made again, so a file that is missing, damaged or refused by the runtime costs time and nothing
else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.engines.memory import DeviceInfo
from samrt.engines.record import EngineRecord
from samrt.errors import BackendError, OutputError
from samrt.imaging.write import write_files

__all__ = ["JitCache", "attach_jit_cache", "jit_path"]

_DIGEST_BYTES = 32


@dataclass(slots=True)
class JitCache:
    """A runtime's cache of compiled kernels and the file it is kept in.

    Attributes:
        native: the runtime's object.
        path: the file.
        known: what the file holds.
    """

    native: Any
    path: Path
    known: bytes

    def save(self) -> None:
        """Write the kernels down if there are new ones; a full disk only costs the next start."""
        content = bytes(self.native.serialize())
        if not content or content == self.known:
            return
        digest = hashlib.sha256(content).digest()
        with contextlib.suppress(OutputError):
            write_files({self.path: digest + content}, force=True)
            self.known = content


def jit_path(engine: Path, record: EngineRecord, device: DeviceInfo) -> Path:
    """The file for one engine on one GPU with one driver, beside the engine."""
    machine = hashlib.sha256(f"{device.key}\n{device.driver}".encode()).hexdigest()[:8]
    return engine.with_name(f"jit-{record.sha256[:12]}-{machine}.bin")


def attach_jit_cache(config: Any, path: Path) -> JitCache | None:
    """Give a runtime configuration its cache; ``None`` where the runtime has none.

    Raises:
        BackendError: the runtime does not take the cache.
    """
    if not hasattr(config, "create_runtime_cache"):
        return None
    native, content = config.create_runtime_cache(), _read(path)
    if native is None:
        raise BackendError(f"the runtime cannot make a cache of kernels for {path.name}")
    if content and not native.deserialize(content):
        content = b""
    if not config.set_runtime_cache(native):
        raise BackendError(f"the runtime does not take the cache of kernels {path.name}: remove it")
    return JitCache(native, path, content)


def _read(path: Path) -> bytes:
    """The kept kernels; empty where there are none that can be trusted."""
    try:
        if os.name == "posix" and path.lstat().st_mode & stat.S_IWOTH:
            return b""
        content = path.read_bytes()
    except OSError:
        return b""
    digest, kernels = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return kernels if hashlib.sha256(kernels).digest() == digest else b""
