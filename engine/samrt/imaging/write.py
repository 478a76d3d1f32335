"""Writing a set of files: all of them or none, and nothing is replaced unasked.

Every file is first written beside its target under a temporary name and flushed to the disk.
Only when all are there are they renamed, one atomic step each. If any step fails, files already
renamed are taken back, replaced ones are put back, and temporary files are removed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from samrt.errors import OutputError

__all__ = ["check_targets", "write_files"]


def check_targets(
    paths: Iterable[Path], *, force: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Check, before any work is done, that a set of files may be written.

    Args:
        paths: the targets.
        force: whether existing regular files may be replaced.
        inputs: files that must never be replaced.

    Raises:
        OutputError: two targets are the same; a target exists and ``force`` is false, is no
            regular file, or is an input; its folder is no folder or not writable.
    """
    seen: set[Path] = set()
    guarded = [path for path in inputs if path.exists()]
    for path in paths:
        if path in seen:
            raise OutputError(f"{path} would be written twice in one run: choose other names")
        seen.add(path)
        try:
            _check_target(path, force, guarded)
        except (OSError, ValueError) as exc:
            if isinstance(exc, OutputError):
                raise
            raise OutputError(f"cannot write {path}: {_reason(exc)}") from exc


def _check_target(path: Path, force: bool, guarded: list[Path]) -> None:
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: a path holds no null character")
    if path.is_symlink() or path.exists():
        if any(path.exists() and path.samefile(other) for other in guarded):
            raise OutputError(f"{path} is an input of this run: it will not be replaced")
        if not force:
            raise OutputError(f"{path} exists: use --force to replace it or choose another folder")
        if not path.is_symlink() and not path.is_file():
            raise OutputError(f"{path} is not a regular file: it will not be replaced")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder: choose another place for {path.name}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"folder {folder} is not writable: choose another one")


def write_files(files: Mapping[Path, bytes], *, force: bool = False) -> None:
    """Write all files or none.

    Missing folders are created. New files get the permissions that the process gives by default;
    a replaced file keeps its own. A symbolic link is replaced, not followed.

    Raises:
        OutputError: as :func:`check_targets`, or the disk refused; everything is as before.
    """
    check_targets(files, force=force)
    job = _Job()
    path = Path()
    try:
        for path, content in files.items():
            job.stage(path, content)
        for path in files:
            job.publish(path, force)
    except BaseException as exc:
        job.roll_back()
        if isinstance(exc, OutputError) or not isinstance(exc, OSError):
            raise
        raise OutputError(f"cannot write {path}: {_reason(exc)}; nothing was written") from exc
    job.finish()


@dataclass(slots=True)
class _Job:
    """What has been done so far, so that it can be undone."""

    staged: dict[Path, Path] = field(default_factory=dict)
    backups: dict[Path, Path] = field(default_factory=dict)
    published: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def stage(self, path: Path, content: bytes) -> None:
        """Write the content beside its target and flush it to the disk."""
        self._make_folder(path.parent)
        mode = 0o666
        with suppress(OSError):
            mode = path.lstat().st_mode & 0o777 if path.is_file() else mode
        temporary = _sibling(path, "tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.staged[path] = temporary
        descriptor = os.open(temporary, flags, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def publish(self, path: Path, force: bool) -> None:
        """Give a staged file its name."""
        temporary = self.staged[path]
        if force:
            if path.is_symlink() or path.exists():
                self.backups[path] = _sibling(path, "old")
                _keep(path, self.backups[path])
            temporary.replace(path)
        else:
            _rename_without_replacing(temporary, path)
        self.published.append(path)
        del self.staged[path]

    def finish(self) -> None:
        """Remove what was replaced and make the names durable."""
        for backup in self.backups.values():
            with suppress(OSError):
                backup.unlink()
        for folder in {path.parent for path in self.published}:
            _sync_folder(folder)

    def roll_back(self) -> None:
        """Put everything back; goes on past single failures."""
        for path in self.published:
            with suppress(OSError):
                path.unlink()
        for path, backup in self.backups.items():
            with suppress(OSError):
                backup.replace(path)
                # Renaming one of two names of the same file onto the other keeps both.
                backup.unlink(missing_ok=True)
        for temporary in self.staged.values():
            with suppress(OSError):
                temporary.unlink()
        for folder in reversed(self.folders):
            with suppress(OSError):
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.exists() and folder != folder.parent:
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir()
            self.folders.append(new)


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".samrt-{secrets.token_hex(8)}.{kind}")


def _keep(path: Path, backup: Path) -> None:
    """Give a file a second name; where links do not work it is moved there instead."""
    if not path.is_symlink():
        with suppress(OSError):
            os.link(path, backup)
            return
    path.rename(backup)


def _rename_without_replacing(temporary: Path, path: Path) -> None:
    """Rename, failing if the target has appeared meanwhile, on every file system that can."""
    try:
        os.link(temporary, path)
    except OSError:  # taken, or no hard links here (FAT, some network folders)
        if path.is_symlink() or path.exists():
            raise OutputError(
                f"{path} appeared while this run was working: it was left alone"
            ) from None
        temporary.replace(path)
        return
    with suppress(OSError):
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries where the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(exc: BaseException) -> str:
    return str(getattr(exc, "strerror", None) or exc)
