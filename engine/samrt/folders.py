"""Where samrt keeps files of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from samrt.errors import OutputError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Folder for files that can be made again: ``SAMRT_CACHE``, or the system's cache folder.

    That is ``$XDG_CACHE_HOME/samrt`` or ``~/.cache/samrt``, ``~/Library/Caches/samrt`` on macOS
    and ``%LOCALAPPDATA%\\samrt\\Cache`` on Windows. It is not created here.

    Raises:
        OutputError: no home folder is known.
    """
    own = os.environ.get("SAMRT_CACHE")
    if own:
        return Path(own).expanduser()
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData/Local") / "samrt" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "samrt"
        base = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification has relative paths ignored.
        return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "samrt"
    except RuntimeError as exc:
        raise OutputError(f"no folder for a cache ({exc}): set SAMRT_CACHE to one") from exc
