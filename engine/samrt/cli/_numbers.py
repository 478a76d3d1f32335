"""Numbers on the command line: ``60,40,220,180`` or ``60 40 220 180``, negative ones included."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samrt.imaging.array import Window

__all__ = ["at_least", "box", "box3d", "join_values", "point", "window"]

_MOST_VALUES = {"--box": 4, "--box3d": 6, "--point": 3, "--window": 2}
_LIST = re.compile(r"[-+]?[.\d]")


def join_values(argv: Sequence[str]) -> list[str]:
    """Write the values of options that take several numbers as one ``--option=a,b,c`` word.

    So separate words work as well as commas, and a leading minus is not taken for an option.
    """
    words: list[str] = []
    at = 0
    while at < len(argv):
        option = argv[at]
        at += 1
        if option == "--":
            return [*words, option, *argv[at:]]
        if option not in _MOST_VALUES:
            words.append(option)
            continue
        stop = at
        while stop < len(argv) and stop - at < _MOST_VALUES[option] and _is_number(argv[stop]):
            stop += 1
        if stop == at and at < len(argv) and _LIST.match(argv[at]):
            stop = at + 1
        words.append(f"{option}={','.join(argv[at:stop])}" if stop > at else option)
        at = stop
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(text: str, counts: tuple[int, ...], form: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}") from None
    if len(values) not in counts:
        raise argparse.ArgumentTypeError(f"{text!r} has {len(values)} numbers, expected {form}")
    return values


def box(text: str) -> tuple[float, ...]:
    """``x0,y0,x1,y1``."""
    return _numbers(text, (4,), "x0,y0,x1,y1")


def box3d(text: str) -> tuple[float, ...]:
    """``x0,y0,z0,x1,y1,z1``."""
    return _numbers(text, (6,), "x0,y0,z0,x1,y1,z1")


def point(text: str) -> tuple[float, float, int]:
    """``x,y`` or ``x,y,label`` with label 1 (object) or 0 (background)."""
    values = _numbers(text, (2, 3), "x,y or x,y,label")
    label = values[2] if len(values) == 3 else 1.0
    if label not in (0.0, 1.0):
        raise argparse.ArgumentTypeError(
            f"label of {text!r} is {label:g}, expected 1 (object) or 0 (background)"
        )
    return values[0], values[1], int(label)


def window(text: str) -> Window:
    """Two numbers (``a,b``, ``centre/width``, ``lo:hi``), a rule, or a name; looked up later."""
    from samrt.imaging.windows import PRESETS

    rule = text.partition(":")[0]
    if rule in ("auto", "minmax", "percentile", "file", "lut", *PRESETS):
        return text
    marks = [mark for mark in "/:" if mark in text]
    pair = text.replace(marks[0], ",", 1) if marks else text
    _numbers(pair, (2,), f"two numbers, auto, minmax, percentile, file, lut, {', '.join(PRESETS)}")
    return text


def at_least(lowest: int) -> Callable[[str], int]:
    """Parser of a whole number not below ``lowest``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        return value

    return parse
