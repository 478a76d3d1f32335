"""Look-up tables of DICOM: modality and VOI tables (PS3.3 C.11.1.1, C.11.2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging.dicom import elements

__all__ = ["Table", "read_table"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table of grey values.

    Attributes:
        first: input value of the first entry; lower values get it too.
        entries: ``(N,)`` uint16; values beyond the last entry get the last.
        bits: bits of an entry, 8 to 16.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Entries of whole numbers of any shape; fractions are cut off."""
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        result: NDArray[np.uint16] = self.entries[index]
        return result


def read_table(item: Any, signed: bool) -> Table:
    """Read an item of a ModalityLUTSequence or VOILUTSequence.

    Args:
        item: the data set.
        signed: whether the values that enter the table may be negative.

    Raises:
        ImageError: damaged.
    """
    descriptor = elements.numbers(item, "LUTDescriptor", 3)
    data = elements.raw(item, "LUTData")
    if descriptor is None or data is None:
        raise ImageError("a look-up table lacks its descriptor or its data")
    count, first, bits = (int(value) for value in descriptor)
    count = (count & 0xFFFF) or 65536
    # Both may have been read as signed or unsigned words: undo the wrong one.
    first = (first + 32768) % 65536 - 32768 if signed else first % 65536
    if not 8 <= bits <= 16:
        raise ImageError(f"a look-up table has entries of {bits} bits, expected 8 to 16")
    try:
        entries = _entries(data, count)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ImageError("a look-up table is damaged: its data are no numbers") from exc
    if len(entries) != count:
        raise ImageError(f"a look-up table has {len(entries)} entries, its descriptor says {count}")
    return Table(first, entries, bits)


def _entries(data: Any, count: int) -> NDArray[np.uint16]:
    if not isinstance(data, bytes):
        return np.array([int(v) & 0xFFFF for v in np.atleast_1d(data)], np.uint16)
    if len(data) in (count, count + count % 2) and count > 1:  # one byte each
        return np.frombuffer(data[:count], np.uint8).astype(np.uint16)
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint16)
