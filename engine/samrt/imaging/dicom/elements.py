"""Values of data elements with their types checked.

Messages name the element and never show its value: a damaged file may hold a patient's name
anywhere.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from samrt.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["number", "numbers", "quiet", "raw", "sequence", "text", "whole"]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logs of pydicom and highdicom, which may quote a file, from being shown."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def raw(dataset: Dataset, keyword: str) -> Any:
    """The value of an element as pydicom gives it, ``None`` if it is absent or empty.

    Raises:
        ImageError: it cannot be parsed.
    """
    try:
        value: Any = getattr(dataset, keyword, None)
        if hasattr(value, "__len__") and len(value) == 0:
            return None
    except Exception as exc:
        raise _bad(keyword, "its value cannot be parsed") from exc
    return value


def _bad(keyword: str, why: str) -> ImageError:
    return ImageError(f"DICOM element {keyword} is damaged: {why}")


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """Finite numbers of an element, ``None`` if it is absent.

    Raises:
        ImageError: no finite numbers, or not ``count`` of them.
    """
    value = raw(dataset, keyword)
    if value is None:
        return None
    items = value if _is_many(value) else [value]
    try:
        found = tuple(float(item) for item in items)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _bad(keyword, "it is not numeric") from exc
    if not all(math.isfinite(item) for item in found):
        raise _bad(keyword, "it is not finite")
    if count is not None and len(found) != count:
        raise _bad(keyword, f"it has {len(found)} values, expected {count}")
    return found


def _is_many(value: Any) -> bool:
    return not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__iter__")


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number, ``None`` if the element is absent."""
    found = numbers(dataset, keyword, 1)
    return None if found is None else found[0]


def whole(dataset: Dataset, keyword: str) -> int | None:
    """One whole number, ``None`` if the element is absent."""
    found = number(dataset, keyword)
    if found is not None and found != int(found):
        raise _bad(keyword, "it is no whole number")
    return None if found is None else int(found)


def text(dataset: Dataset, keyword: str) -> str | None:
    """A code string or UID, printable ASCII of at most 64 characters; ``None`` if absent."""
    value = raw(dataset, keyword)
    if value is None:
        return None
    if _is_many(value):
        value = next(iter(value))
    found = str(value).strip("\0 ")
    if len(found) > 64 or not found.isascii() or not found.isprintable():
        raise _bad(keyword, "it is no short text")
    return found or None


def sequence(dataset: Dataset | None, keyword: str) -> list[Any]:
    """Items of a sequence, an empty list if it is absent.

    Raises:
        ImageError: it is no sequence.
    """
    value = None if dataset is None else raw(dataset, keyword)
    if value is None:
        return []
    from pydicom.sequence import Sequence

    if not isinstance(value, Sequence):
        raise _bad(keyword, "it is no sequence")
    return list(value)
