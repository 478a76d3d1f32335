"""The threads of an ONNX Runtime session, kept off the processor of the thread that calls.

After a pause, Linux as a guest of KVM wakes all threads of a session on one processor and moves
them only some milliseconds later (`cpp_ext/include/samrt/placement.hpp`). The library of samrt's
operators therefore makes the threads, whatever the graph, and tells them before every run which
processors to use: all that they had but the caller's. Affinities that the program around samrt
sets are kept to.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from typing import Any

from samrt.backends.operators import library_path, library_problem

__all__ = ["Crew", "hire"]


class Crew:
    """The threads of the session that is opened with the options it was hired for."""

    def __init__(self, library: Any, number: int) -> None:
        self._library, self._number = library, number

    def step_aside(self) -> None:
        """Send waiting threads off the caller's processor: before each run; takes microseconds."""
        self._library.samrt_ops_step_aside(self._number)

    def serves(self, session: Any) -> None:
        """Dismiss the crew when ``session`` is gone."""
        weakref.finalize(session, self._library.samrt_ops_dismiss, self._number)


def hire(options: Any) -> Crew | None:
    """A crew for the one session to be opened with ``options``, which learn samrt's operators too.

    ``options`` are an ``onnxruntime.SessionOptions``. ``None`` where the library is missing or does
    not load, or the system cannot place threads: the session then makes threads of its own.
    """
    path = library_path()
    if path is None or library_problem() is not None:
        return None
    options.register_custom_ops_library(str(path))
    library = _library(str(path))
    number = library.samrt_ops_crew()
    return Crew(library, number) if number else None


@cache
def _library(path: str) -> Any:
    library = ctypes.CDLL(path)
    library.samrt_ops_crew.restype = ctypes.c_int
    library.samrt_ops_crew.argtypes = []
    for function in (library.samrt_ops_step_aside, library.samrt_ops_dismiss):
        function.restype = None
        function.argtypes = [ctypes.c_int]
    return library
