"""What is closed: classes for a ``with`` statement, and processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["Closing", "end_process"]

_Self = TypeVar("_Self", bound="Closing")


class Closing(ABC):
    """A context manager that gives itself and closes itself, whatever happens inside."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; closing twice is fine."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def end_process(process: Popen[Any]) -> None:
    """Kill a process and close its pipes; nothing of it is left, whatever it was doing."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what was still to be written went to a dead process
                continue
