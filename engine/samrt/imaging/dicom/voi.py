"""Which values a viewer wants to see: the VOI step, chosen and described (PS3.3 C.11.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OptionError
from samrt.imaging.array import PERCENTILES, Window, check_window
from samrt.imaging.dicom import elements
from samrt.imaging.dicom.lut import Table, read_table
from samrt.imaging.windows import PRESETS, linear_limits

__all__ = ["Voi", "choose_voi"]

_EXPECTED = (
    "expected centre/width, lo:hi, auto, file, file:N, file:EXPLANATION, lut, lut:N, minmax, "
    f"percentile or one of {', '.join(PRESETS)}"
)


@dataclass(frozen=True, slots=True, eq=False)
class Voi:
    """A chosen mapping to grey.

    Attributes:
        kind: ``identity``, ``window``, ``sigmoid`` or ``lut``.
        source: where it comes from, such as ``file:0``, ``preset lung``, ``given``.
        limits: values that become black and white; ``None`` for identity, LUT and sigmoid.
        centre: of a window, if it was given so.
        width: of a window, if it was given so.
        function: DICOM's name of the window's function.
        table: of a LUT.
        remark: what a careful user should know.
    """

    kind: str
    source: str
    limits: tuple[float, float] | None = None
    centre: float | None = None
    width: float | None = None
    function: str | None = None
    table: Table | None = None
    remark: str | None = None

    def record(self) -> dict[str, Any]:
        """The choice as JSON."""
        return {
            "kind": self.kind,
            "source": self.source,
            "low": None if self.limits is None else self.limits[0],
            "high": None if self.limits is None else self.limits[1],
            "center": self.centre,
            "width": self.width,
            "function": self.function,
        }


def choose_voi(
    window: Window | None,
    groups: Sequence[Any],
    values: NDArray[Any],
    *,
    modality: str,
    hounsfield: bool,
    eight_bit: bool,
    signed: bool,
) -> Voi:
    """Choose the VOI mapping of a grey frame.

    Args:
        window: ``None`` or ``"auto"``; ``(lo, hi)``, ``"lo:hi"``, ``"centre/width"`` or
            ``"centre,width"`` in rescaled units; ``"minmax"``, ``"percentile"``; a CT preset's
            name; ``"file"``, ``"file:N"`` (from 0), ``"file:EXPLANATION"``; ``"lut"``, ``"lut:N"``.
        groups: data sets that may hold the file's own windows and tables, in order.
        values: rescaled values, padding left out, for the rules that look at them.
        modality: of the file, ``CT`` say.
        hounsfield: whether the values are Hounsfield units.
        eight_bit: whether stored values are 0..255 and mean what they say.
        signed: whether values may be negative.

    Returns:
        The choice. ``auto`` is: the file's first window; else its first VOI LUT; else
        ``soft-tissue`` for Hounsfield units; else eight-bit values as they are; else the 0.5th
        and 99.5th percentile (the last two rules but one are those of MedSAM's CT and MR).

    Raises:
        OptionError: no such window, or a CT preset for something else.
        ImageError: damaged windows, or limits that are none.
    """
    if window is None or window == "auto":
        return _auto(groups, values, hounsfield, eight_bit, signed)
    if isinstance(window, str):
        name, _, which = window.partition(":")
        if name == "file":
            return _from_file(groups, which)
        if name == "lut":
            return _from_lut(groups, which, signed)
        if window in PRESETS:
            if modality not in ("", "CT"):
                raise OptionError(
                    f"window {window!r} is in Hounsfield units of CT, this image is {modality}: "
                    "give centre/width in its own units, or auto"
                )
            centre, width = PRESETS[window]
            return _linear(centre, width, f"preset {window}")
        if window in ("minmax", "percentile"):
            return _measured(window, values)
        first, mark, second = window.replace(",", "/", 1).partition("/")
        if mark and _is_float(first) and _is_float(second):
            return _linear(float(first), float(second), "given")
        if ":" not in window:
            raise OptionError(f"unknown window {window!r}: {_EXPECTED}")
    limits = check_window(window)
    return Voi("window", "given", limits if isinstance(limits, tuple) else None)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _linear(centre: float, width: float, source: str) -> Voi:
    limits = linear_limits(centre, width)
    return Voi("window", source, limits, centre, width, "LINEAR")


def _measured(rule: str, values: NDArray[Any], remark: str | None = None) -> Voi:
    if values.size == 0:
        return Voi("window", rule, (0.0, 1.0), remark="every pixel is padding")
    lo, hi = float(values.min()), float(values.max())
    if rule == "percentile":
        lo, hi = (float(v) for v in np.percentile(values, PERCENTILES))
        if lo >= hi:
            lo, hi = float(values.min()), float(values.max())
    if lo >= hi:
        return Voi("window", rule, (lo, lo + 1.0), remark=f"all values are {lo:g}: it is black")
    return Voi("window", rule, (lo, hi), remark=remark)


def _auto(
    groups: Sequence[Any], values: NDArray[Any], hounsfield: bool, eight_bit: bool, signed: bool
) -> Voi:
    if _file_windows(groups):
        return _from_file(groups, "")
    if any(elements.sequence(group, "VOILUTSequence") for group in groups):
        return _from_lut(groups, "", signed)
    if hounsfield:
        centre, width = PRESETS["soft-tissue"]
        found = _linear(centre, width, "auto: soft-tissue")
        return Voi(
            "window", found.source, found.limits, centre, width, "LINEAR",
            remark="the file gives no window: centre 40, width 400 HU is used, --window chooses",
        )  # fmt: skip
    if eight_bit:
        return Voi("identity", "auto")
    found = _measured("percentile", values)
    remark = found.remark or (
        "the file gives no window: its 0.5th to 99.5th percentile is used, --window chooses"
    )
    return Voi("window", "auto: percentile", found.limits, remark=remark)


def _file_windows(groups: Sequence[Any]) -> list[tuple[float, float, str, str]]:
    """``(centre, width, explanation, function)`` of each window of the first set that has any."""
    for group in groups:
        centres = elements.numbers(group, "WindowCenter")
        widths = elements.numbers(group, "WindowWidth")
        if centres is None or widths is None:
            continue
        if len(centres) != len(widths):
            raise ImageError(f"it has {len(centres)} window centres and {len(widths)} widths")
        words = elements.raw(group, "WindowCenterWidthExplanation") or ()
        words = [words] if isinstance(words, str) else [str(word) for word in words]
        words += [""] * (len(centres) - len(words))
        function = elements.text(group, "VOILUTFunction") or "LINEAR"
        return [
            (c, w, word, function)
            for c, w, word in zip(centres, widths, words[: len(centres)], strict=True)
        ]
    return []


def _from_file(groups: Sequence[Any], which: str) -> Voi:
    windows = _file_windows(groups)
    if not windows:
        raise OptionError("the file has no window: choose another one, auto for instance")
    number = _pick(which, len(windows), [word for _, _, word, _ in windows], "window")
    centre, width, _, function = windows[number]
    source = f"file:{number}"
    if function == "LINEAR":
        return Voi("window", source, linear_limits(centre, width), centre, width, function)
    if not (math.isfinite(centre) and width > 0):
        raise ImageError(f"its window has the width {width:g}, expected more than 0")
    if function == "LINEAR_EXACT":
        limits = (centre - width / 2.0, centre + width / 2.0)
        return Voi("window", source, limits, centre, width, function)
    if function == "SIGMOID":
        return Voi("sigmoid", source, None, centre, width, function)
    raise ImageError("its VOI LUT function is none of LINEAR, LINEAR_EXACT, SIGMOID")


def _from_lut(groups: Sequence[Any], which: str, signed: bool) -> Voi:
    tables = next((t for g in groups if (t := elements.sequence(g, "VOILUTSequence"))), [])
    if not tables:
        raise OptionError("the file has no VOI LUT: choose a window, auto for instance")
    words = [str(elements.raw(table, "LUTExplanation") or "") for table in tables]
    number = _pick(which, len(tables), words, "VOI LUT")
    return Voi("lut", f"lut:{number}", table=read_table(tables[number], signed))


def _pick(which: str, count: int, words: Sequence[str], noun: str) -> int:
    if not which:
        return 0
    if which.isdigit() and int(which) < count:
        return int(which)
    for number, word in enumerate(words):
        if word.strip().lower() == which.strip().lower():
            return number
    raise OptionError(
        f"the file has {count} {noun}(s), none is {which!r}: expected 0 to {count - 1}"
    )
