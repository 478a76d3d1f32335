"""Compiled models that a runtime can write down and read back, kept in samrt's cache folder.

An entry is one file under the digest of everything it depends on, with its own sha256 in its first
bytes: a runtime does not notice a changed weight in what it reads back. An entry that is damaged is
forgotten and compiled again from the bundle's file, which is the same model. It holds code for
this machine, so a folder that other users may write to is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samrt.errors import BackendError, OutputError
from samrt.folders import cache_folder
from samrt.imaging.write import write_files

__all__ = ["CompiledCache", "CompiledKey"]

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class CompiledKey:
    """Everything that a compiled model depends on.

    Attributes:
        model_sha256: :func:`samrt.engines.record.model_digest` of the ONNX file.
        runtime: name of the backend.
        version: version of its runtime.
        device: the device and what it can do.
        flags: options that it was compiled with.
    """

    model_sha256: str
    runtime: str
    version: str
    device: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """32 hex digits over all of it."""
        parts = [self.model_sha256, self.runtime, self.version, self.device, dict(self.flags)]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class CompiledCache:
    """Compiled models on disk.

    Attributes:
        folder: where they lie; it need not exist yet.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (cache_folder() if folder is None else folder) / "compiled"

    def path_of(self, key: CompiledKey) -> Path:
        """The file of an entry."""
        return self.folder / f"{key.runtime}-{key.digest}.bin"

    @property
    def writable(self) -> bool:
        """Whether entries can be added; makes the folder if it is missing."""
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.access(self.folder, os.W_OK | os.X_OK)

    def load(self, key: CompiledKey) -> bytes | None:
        """The content of an entry; ``None`` if there is none or it is damaged.

        Raises:
            BackendError: every user of this machine may replace it.
        """
        path = self.path_of(key)
        try:
            modes = path.lstat().st_mode, self.folder.stat().st_mode
            if not stat.S_ISREG(modes[0]):
                return None
            if os.name == "posix" and (modes[0] | modes[1]) & stat.S_IWOTH:
                raise BackendError(
                    f"compiled model {path} can be written by every user of this machine and may "
                    "have been replaced: delete it, or set SAMRT_CACHE to a folder of your own"
                )
            with path.open("rb") as stream:
                digest, content = stream.read(_DIGEST_BYTES), stream.read()
        except OSError:
            return None
        return content if hashlib.sha256(content).digest() == digest else None

    def store(self, key: CompiledKey, content: bytes) -> bool:
        """Keep a compiled model; an entry of the same key is replaced.

        Returns:
            Whether it was kept: a full disk, say, does not spoil what has been compiled.
        """
        signed = hashlib.sha256(content).digest() + content
        try:
            write_files({self.path_of(key): signed}, force=True)
        except OutputError:
            return False
        return True
