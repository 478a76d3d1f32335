"""Keeping C libraries from writing to standard error in the middle of a one-line message."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Captured", "captured_stderr"]

_MOST_CHARACTERS = 200


class Captured:
    """What was written to standard error by native code.

    Attributes:
        text: empty, or the first line, cut to 200 characters; set when the block is left.
    """

    def __init__(self) -> None:
        self.text = ""


@contextmanager
def captured_stderr() -> Iterator[Captured]:
    """Catch what libraries such as libtiff print by themselves to file descriptor 2.

    It is of use only to a command with one thread: the descriptor belongs to the whole process.
    Where there is no such descriptor nothing is caught.
    """
    captured = Captured()
    try:
        kept = os.dup(2)
    except OSError:
        yield captured
        return
    with tempfile.TemporaryFile() as sink:
        sys.stderr.flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield captured
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            lines = sink.read(10_000).decode("utf-8", errors="replace").split("\n")
            captured.text = lines[0].strip()[:_MOST_CHARACTERS]
