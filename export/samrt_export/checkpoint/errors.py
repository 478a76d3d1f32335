"""The error of everything that reads checkpoints, and how it shows names from a file."""

from __future__ import annotations

from collections.abc import Iterable

from samrt.errors import SamrtError

__all__ = ["CheckpointError", "listing", "shown"]

_NAME_CHARS = 120


class CheckpointError(SamrtError, ValueError):
    """A checkpoint cannot be used: damaged, unsafe, of another layout, or of another model.

    The message is one line.
    """


def shown(text: object) -> str:
    """A name or value out of a file, fit for one line: escaped if need be and cut."""
    plain = str(text)
    if not plain.isprintable() or not plain:
        plain = repr(plain)
    return plain if len(plain) <= _NAME_CHARS else f"{plain[: _NAME_CHARS - 3]}..."


def listing(names: Iterable[object], limit: int = 6) -> str:
    """The first ``limit`` names, then how many more there are."""
    items = [shown(name) for name in names]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
