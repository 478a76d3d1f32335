"""Records of models that a runtime compiles while they are loaded, kept in samrt's cache folder.

A record is a small JSON file under the digest of what it is about: the model files, the runtime's
version, the devices. Another file, version or device has another digest, so it is compared again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samrt.backends.base import Proof
from samrt.folders import cache_folder
from samrt.imaging.write import write_files

__all__ = ["KeptProof"]

_VERSION = 1
_MOST_BYTES = 4 * 2**20


class KeptProof(Proof):
    """The record of one pair of sessions.

    Args:
        runtime: name of the backend.
        about: everything that the answers depend on, JSON-ready.
        advice: what to do where they are wrong.
        folder: the cache; samrt's own where ``None``.
    """

    def __init__(
        self, runtime: str, about: Mapping[str, Any], advice: str, folder: Path | None = None
    ) -> None:
        self._runtime, self._about, self._advice = runtime, dict(about), advice
        self._folder = folder

    @property
    def path(self) -> Path:
        """The file of the record.

        Raises:
            OutputError: no folder for a cache is known.
        """
        text = json.dumps(self._about, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        folder = cache_folder() if self._folder is None else self._folder
        return folder / "proofs" / f"{self._runtime}-{digest}.json"

    def record(self) -> Mapping[str, Any] | None:
        """The record; ``None`` if there is none, it is damaged, or every user may write it."""
        path = self.path
        try:
            modes = path.lstat().st_mode, path.parent.stat().st_mode
            if not stat.S_ISREG(modes[0]) or path.stat().st_size > _MOST_BYTES:
                return None
            if os.name == "posix" and (modes[0] | modes[1]) & stat.S_IWOTH:
                return None
            document = json.loads(path.read_text("utf-8"))
            known = document["proof_version"] == _VERSION and document["about"] == self._about
            record = document["record"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return record if known and isinstance(record, dict) else None

    def store(self, record: Mapping[str, Any]) -> None:
        """Keep a record; an older one is replaced.

        Raises:
            OutputError: the cache folder does not take it.
        """
        path = self.path
        document = {"proof_version": _VERSION, "about": self._about, "record": dict(record)}
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        write_files({path: text.encode()}, force=True)

    def advice(self) -> str:
        """What to do where the sessions are wrong, in words."""
        return self._advice
