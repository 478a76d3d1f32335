"""One file of a bundle: is it there, and is it what the manifest says?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from samrt.manifest_artifacts import Artifact, DataFile

__all__ = ["file_problem", "sha256_of"]

_CHUNK = 1024 * 1024


def file_problem(folder: Path, artifact: Artifact | DataFile, hash_below: int | None) -> str | None:
    """What is wrong with a file of a bundle, in words; ``None`` if nothing is.

    Args:
        folder: of the bundle.
        artifact: what the manifest says about the file.
        hash_below: the content of files of this size and more is not read; ``None``: of none.
    """
    path = folder / artifact.file
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return f"{artifact.file} points outside the bundle"
        if not path.is_file():
            return f"{artifact.file} is missing"
        size = path.stat().st_size
        if size != artifact.bytes:
            return f"{artifact.file} has {size} bytes, expected {artifact.bytes}"
        if hash_below is not None and size >= hash_below:
            return None
        digest = sha256_of(path)
    except OSError as exc:
        return f"{artifact.file} cannot be read ({exc.strerror or exc})"
    if digest != artifact.sha256:
        return f"{artifact.file} has sha256 {digest[:12]}…, expected {artifact.sha256[:12]}…"
    return None


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
