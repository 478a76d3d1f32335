"""What a runtime says during a build: its log, and how far it is."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from samrt.engines.api import Api

__all__ = ["BuildLog", "Progress", "make_logger", "make_monitor"]

Progress = Callable[[str, float], None]
"""``progress(phase, fraction)``, fraction 0..1 of that phase."""

_NO_DRIVER = "cudaError 35"
_MOST_KEPT = 200
_LONGEST = 400
_EVERY_SECONDS = 0.2


class BuildLog:
    """Errors and warnings of a runtime, newest last, at most 200 of each kind."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, rank: int, text: str) -> None:
        """Keep one message; ``rank`` 0 and 1 are errors, 2 warnings, the rest is dropped."""
        kept = self.errors if rank <= 1 else self.warnings
        if rank <= 2 and len(kept) < _MOST_KEPT:
            kept.append(" ".join(text.split())[:_LONGEST])

    def reason(self) -> str:
        """The errors in one line.

        Remarks about a missing driver are left out unless there is nothing else: TensorRT-RTX
        makes them along with every other error on a machine without a GPU.
        """
        telling = [text for text in self.errors if _NO_DRIVER not in text]
        chosen = list(dict.fromkeys(telling or self.errors))[:3]
        return "; ".join(chosen) or "the runtime gave no reason"


_LOGGERS: dict[int, tuple[Any, Any]] = {}
"""Identity of a runtime's module -> the module, which is kept alive, and its logger."""


def make_logger(api: Api, log: BuildLog) -> Any:
    """A runtime's logger object that fills ``log``, as long as that lives, and prints nothing.

    A runtime keeps the first logger it is given for as long as any of its objects lives, and
    ignores all others. So there is one for each runtime, and it tells every log: a build and a
    load after it, or the encoder and the decoder of a model, all hear what is said.
    """
    known = _LOGGERS.get(id(api.module))
    logger = _new_logger(api.module.ILogger) if known is None else known[1]
    _LOGGERS[id(api.module)] = (api.module, logger)
    logger.logs.add(log)
    return logger


def _new_logger(base: Any) -> Any:
    class Logger(base):  # type: ignore[misc]
        """Hands messages on; must never raise, it is called from native code."""

        def __init__(self) -> None:
            base.__init__(self)
            self.logs: weakref.WeakSet[BuildLog] = weakref.WeakSet()

        def log(self, severity: Any, text: str) -> None:
            """Called by the runtime, from any thread."""
            for log in list(self.logs):
                log.add(int(severity), str(text))

    return Logger()


class Cancelled:
    """Whether the user interrupted the build."""

    def __init__(self) -> None:
        self.asked = False


def make_monitor(
    api: Api, progress: Progress, cancelled: Cancelled, every_seconds: float | None = None
) -> Any:
    """A runtime's progress monitor that reports its outermost phases and ends on Ctrl-C.

    An exception must not pass through the native build, so an interruption only asks it to stop.
    ``progress`` is called once in ``every_seconds`` (0.2), with 0.0 at every step.
    """
    base: Any = api.module.IProgressMonitor
    pause = _EVERY_SECONDS if every_seconds is None else every_seconds

    class Monitor(base):  # type: ignore[misc]
        """Called by the runtime at the start, at every step and at the end of a phase."""

        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}
            self._last = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            try:
                self._steps[phase_name] = max(int(num_steps), 1)
                self._tell(phase_name, 0.0)
            except KeyboardInterrupt:
                cancelled.asked = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; the answer says whether to go on."""
            try:
                total = self._steps.get(phase_name, 1)
                self._tell(phase_name, min((int(step) + 1) / total, 1.0))
            except KeyboardInterrupt:
                cancelled.asked = True
            return not cancelled.asked

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            self._steps.pop(phase_name, None)

        def _tell(self, phase: str, fraction: float) -> None:
            now = time.monotonic()
            if now - self._last >= pause:
                self._last = now
                progress(phase, fraction)

    return Monitor()
