"""The record of a run on the disk: one JSON line per target, so that nothing done is lost.

The first line holds what was run; a run goes on only under the very same settings. A line that
was cut off by a crash is taken away, the lines before it count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from samrt.closing import Closing
from samrt.errors import DatasetError, OutputError

__all__ = ["JOURNAL_NAME", "Journal", "read_header", "read_records"]

JOURNAL_NAME = "targets.jsonl"
_VERSION = 1
_MARK = "samrt_eval"


class Journal(Closing):
    """Appends records; use it as a context manager.

    Attributes:
        path: the file.
        done: keys of the targets that are in it.
        resumed: whether it was there before.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, force: bool = False) -> None:
        """Open or begin a journal.

        Args:
            path: the file; its folder is made.
            config: what is run; JSON-ready.
            force: begin anew if the file belongs to a run with other settings.

        Raises:
            OutputError: the file belongs to other settings and ``force`` is false, another
                process is writing it, or the disk refuses.
        """
        self.path = path
        self.done: set[str] = set()
        self.resumed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a+b")
        except OSError as exc:
            raise OutputError(f"cannot write {path}: {exc.strerror or exc}") from exc
        try:
            _lock(self._stream, path)
            self._begin(dict(config), force)
        except BaseException:
            self._stream.close()
            raise

    def _begin(self, config: dict[str, Any], force: bool) -> None:
        if self._stream.seek(0, os.SEEK_END):
            _cut_torn_line(self._stream)
            try:
                found = read_header(self.path)["config"]
                differing = sorted(k for k in {*found, *config} if found.get(k) != config.get(k))
            except DatasetError:
                found, differing = None, ["everything"]
            if found is not None and not differing:
                self.done = {str(record["key"]) for record in read_records(self.path)}
                self.resumed = True
                return
            if not force:
                raise OutputError(
                    f"{self.path} belongs to another run ({', '.join(differing)} differ): choose "
                    "another folder with -o, or --force to begin anew"
                )
            self._stream.truncate(0)
        self._write({_MARK: _VERSION, "config": config})

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record with its ``key``; it is in the file when this returns.

        Raises:
            OutputError: the disk refuses; what was written before stays.
        """
        self._write(record)
        self.done.add(str(record["key"]))

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"
        try:
            self._stream.write(line.encode("utf-8"))
            self._stream.flush()
        except OSError as exc:
            raise OutputError(f"cannot write {self.path}: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """See that all of it is on the disk; twice is fine."""
        if not self._stream.closed:
            with suppress(OSError):
                os.fsync(self._stream.fileno())
            self._stream.close()


def _lock(stream: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on this system
        return
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path} is being written by another run: wait or choose -o") from None
    except OSError:  # a file system without locks
        return


def _cut_torn_line(stream: BinaryIO) -> None:
    """Take away what follows the last line end."""
    end = stream.seek(0, os.SEEK_END)
    at = end
    while at > 0:
        start = max(0, at - 65536)
        stream.seek(start)
        found = stream.read(at - start).rfind(b"\n")
        if found >= 0:
            if start + found + 1 < end:
                stream.truncate(start + found + 1)
            return
        at = start
    stream.truncate(0)


def read_header(path: Path) -> dict[str, Any]:
    """The first line of a journal.

    Raises:
        DatasetError: no such file or no journal.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            header = json.loads(stream.readline(10_000_000))
    except (OSError, ValueError) as exc:
        raise DatasetError(
            f"{path} is no record of an evaluation: {' '.join(str(exc).split())}"
        ) from exc
    if not isinstance(header, dict) or header.get(_MARK) != _VERSION:
        raise DatasetError(f"{path} is no record of an evaluation by this version of samrt")
    if not isinstance(header.get("config"), dict):
        raise DatasetError(f"{path} has a damaged first line: run the evaluation again")
    return header


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Records in the order in which they were made; a torn last line is left out.

    Raises:
        DatasetError: no journal, or a damaged line.
    """
    read_header(path)
    with path.open("rb") as stream:
        stream.readline()
        for number, line in enumerate(stream, start=2):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                record["key"]
            except (ValueError, KeyError, TypeError) as exc:
                raise DatasetError(
                    f"line {number} of {path} is damaged: remove it to have its target run again"
                ) from exc
            yield record
