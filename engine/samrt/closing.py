"""What every class that is closed and used in a ``with`` statement shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

__all__ = ["Closing"]

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
