"""Printing: results to standard output, remarks to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from samrt.errors import OutputError

__all__ = ["flush", "print_json", "print_table", "say", "size_text", "warn"]


def say(line: str) -> None:
    """Print one line.

    Raises:
        OutputError: standard output does not take it.
        BrokenPipeError: its reader has gone.
    """
    try:
        print(line)
    except UnicodeEncodeError:  # a file name that the terminal's encoding lacks
        encoding = sys.stdout.encoding or "ascii"
        say(line.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as exc:
        _give_up(exc)


def flush() -> None:
    """Push out what has been printed; raises as :func:`say`."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _give_up(exc)


def _give_up(exc: OSError) -> NoReturn:
    """Let the interpreter's own last flush go nowhere, then tell the caller."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(exc, BrokenPipeError):
        raise exc
    raise OutputError(f"cannot write to standard output: {exc.strerror or exc}") from exc


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    say(json.dumps(document, indent=2, allow_nan=False))


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows with columns padded to the same width."""
    table = [list(row) for row in rows]
    columns = max((len(row) for row in table), default=0)
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(columns)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join(cells).rstrip())


def size_text(count: int) -> str:
    """A number of bytes for people, such as ``9.6 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000.0:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000.0
    return f"{value:.1f} GB"


def warn(messages: Iterable[str]) -> None:
    """Print each warning once on standard error."""
    for message in dict.fromkeys(messages):
        print(f"samrt: warning: {message}", file=sys.stderr)
