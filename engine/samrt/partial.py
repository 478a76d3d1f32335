"""A file that is still arriving: ``NAME.part``, and ``NAME.part.json`` that says from where."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from samrt.errors import OutputError

__all__ = ["PartialFile", "open_partial"]


class PartialFile:
    """The growing file, open and locked against other processes.

    Attributes:
        target: the name it will get.
        path: the name it has.
    """

    def __init__(self, target: Path, stream: BinaryIO) -> None:
        self.target = target
        self.path = part_of(target)
        self._note = target.with_name(f"{target.name}.part.json")
        self._stream = stream

    def __len__(self) -> int:
        self._stream.flush()
        return os.fstat(self._stream.fileno()).st_size

    def append(self, piece: bytes) -> None:
        """Write at the end."""
        self._stream.seek(0, os.SEEK_END)
        self._stream.write(piece)

    def restart(self) -> None:
        """Drop what has arrived."""
        self._stream.seek(0)
        self._stream.truncate(0)

    def discard(self) -> None:
        """Drop what has arrived and where it came from."""
        self.restart()
        self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing behind."""
        self.discard()
        self.path.unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Leave nothing behind of a download of which nothing has arrived."""
        if self.path.exists() and not len(self):
            self.remove()

    def source(self) -> dict[str, Any]:
        """What :meth:`remember` wrote; empty if there is nothing or it is not readable."""
        try:
            note = json.loads(self._note.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def remember(self, url: str, validator: str | None) -> None:
        """Note the address and what ``If-Range`` needs."""
        self._note.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")

    def publish(self, *, force: bool) -> None:
        """Flush to the disk and take the target's name in one step.

        Raises:
            OutputError: without ``force``, something else has taken the name.
        """
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if force or not self._link():
            self.path.replace(self.target)
        self._note.unlink(missing_ok=True)

    def _link(self) -> bool:
        """Take the name unless it is taken; false where the file system has no hard links."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise OutputError(
                f"{self.target} has appeared meanwhile: it will not be replaced"
            ) from None
        except OSError as exc:
            if exc.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                return False
            raise
        self.path.unlink()
        return True


def part_of(target: Path) -> Path:
    """Path of the partial file of a target."""
    return target.with_name(f"{target.name}.part")


@contextlib.contextmanager
def open_partial(target: Path) -> Iterator[PartialFile]:
    """Open the partial file of a target for this process alone; made if there is none.

    Raises:
        OutputError: it cannot be written, is no regular file, or another process has it.
    """
    path = part_of(target)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror or exc}") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path} is not a regular file: choose another folder")
    with os.fdopen(descriptor, "r+b") as stream:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock before may have given the file its final name by now.
            mine = os.fstat(descriptor).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise OutputError(f"{path} is being downloaded by another process: wait for it")
        yield PartialFile(target, stream)
