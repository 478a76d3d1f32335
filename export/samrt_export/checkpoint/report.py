"""Compare the names and shapes of a checkpoint with what a network expects, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from samrt_export.checkpoint.errors import CheckpointError, listing

__all__ = ["KeyReport", "compare_keys", "grouped"]

_SHOWN_GROUPS = 12
_DIGITS = 6

Shape = tuple[int, ...]
Cells = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class KeyReport:
    """How a checkpoint differs from what is expected; names are in the order they came in.

    Attributes:
        missing: expected but not there.
        unexpected: there but not expected.
        misshaped: ``(name, expected shape, shape that is there)``.
        ignored: there, not expected, and known to be of no use.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[tuple[str, Shape, Shape], ...]
    ignored: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every expected tensor is there in its shape, and no unknown one."""
        return not (self.missing or self.unexpected or self.misshaped)

    def lines(self) -> list[str]:
        """Every difference, one line for each group of names that are alike.

        For example ``missing image_encoder.blocks.{0..11}.attn.{rel_pos_h,rel_pos_w}``.
        """
        found = [f"missing {name}" for name in grouped(self.missing)]
        found += [f"unexpected {name}" for name in grouped(self.unexpected)]
        pairs = dict.fromkeys((want, got) for _, want, got in self.misshaped)
        for want, got in pairs:
            alike = [name for name, w, g in self.misshaped if (w, g) == (want, got)]
            for name in grouped(alike):
                found.append(f"{name} has shape {_text(got)}, expected {_text(want)}")
        return found

    def raise_if_bad(self, family: str) -> None:
        """Do nothing if the checkpoint fits.

        Args:
            family: what was expected, for the message.

        Raises:
            CheckpointError: it does not fit; one line with the counts and the groups.
        """
        if self.fits:
            return
        counts = (
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected and "
            f"{len(self.misshaped)} misshaped tensors"
        )
        raise CheckpointError(
            f"checkpoint does not fit {family}: {counts}: {listing(self.lines(), _SHOWN_GROUPS)}; "
            "is it another model, or was it saved in part?"
        )


def compare_keys(
    expected: Mapping[str, Shape], got: Mapping[str, Shape], ignorable: Iterable[str] = ()
) -> KeyReport:
    """Compare names and shapes.

    Args:
        expected: parameter name -> shape of the network.
        got: parameter name -> shape in the checkpoint.
        ignorable: shell-style patterns (``image_encoder.head.*``) of names that may be there
            without being expected. They never excuse a missing or misshaped tensor.
    """
    patterns = tuple(ignorable)
    extra = [name for name in got if name not in expected]
    ignored = [n for n in extra if any(fnmatchcase(n, pattern) for pattern in patterns)]
    known = set(ignored)
    return KeyReport(
        missing=tuple(name for name in expected if name not in got),
        unexpected=tuple(name for name in extra if name not in known),
        misshaped=tuple(
            (name, tuple(shape), tuple(got[name]))
            for name, shape in expected.items()
            if name in got and tuple(got[name]) != tuple(shape)
        ),
        ignored=tuple(ignored),
    )


def grouped(names: Iterable[str]) -> list[str]:
    """Names with numbers and last parts folded: ``blocks.{0..11}.norm1.{bias,weight}``."""
    rows: list[Cells] = [tuple((part,) for part in name.split(".")) for name in names]
    for place in range(max((len(row) for row in rows), default=0)):
        rows = _folded(rows, place, numbers=True)
    for place in range(max((len(row) for row in rows), default=0)):
        rows = _folded(rows, place, numbers=False)
    return [".".join(_cell(cell) for cell in row) for row in rows]


def _folded(rows: list[Cells], place: int, *, numbers: bool) -> list[Cells]:
    """Merge rows that differ in one place only, if there are numbers, or it is the last one."""
    merged: dict[object, Cells] = {}
    for index, row in enumerate(rows):
        is_number = place < len(row) and all(_is_number(part) for part in row[place])
        foldable = is_number if numbers else place == len(row) - 1 and not is_number
        key: object = (row[:place], row[place + 1 :], len(row)) if foldable else index
        if key in merged:
            parts = dict.fromkeys((*merged[key][place], *row[place]))
            merged[key] = (*row[:place], tuple(parts), *row[place + 1 :])
        else:
            merged[key] = row
    return list(merged.values())


def _cell(parts: tuple[str, ...]) -> str:
    if len(parts) == 1:
        return parts[0]
    if not all(_is_number(part) for part in parts):
        return f"{{{','.join(sorted(parts))}}}"
    values = sorted({int(part) for part in parts})
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [str(a) if a == b else f"{a}..{b}" if b > a + 1 else f"{a},{b}" for a, b in runs]
    return f"{{{','.join(texts)}}}"


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= _DIGITS


def _text(shape: Shape) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
