"""A progress bar on one line of standard error; nothing where that is no terminal."""

from __future__ import annotations

import sys
import time

__all__ = ["ProgressBar"]

_WIDTH = 28
_EVERY_SECONDS = 0.2


class ProgressBar:
    """Call it with what is being done, how much is done, and how much there is."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._start = self._last = 0.0
        self._first = 0
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw, but not more than a few times per second."""
        now = time.monotonic()
        if not self._tty or total < 1:
            return
        if not self._start:
            self._start, self._first = now, done
        if now - self._last < _EVERY_SECONDS and done != total:
            return
        self._last = now
        filled = _WIDTH * done // total
        left = ""
        if done > self._first and done < total:
            seconds = (now - self._start) / (done - self._first) * (total - done)
            left = f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
        bar = f"[{'#' * filled:{_WIDTH}}] {done} of {total}{left}"
        print(f"\r{bar}  {what[:24]}\033[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line, if there is one."""
        if self._tty and self._start:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._start = self._last = 0.0
