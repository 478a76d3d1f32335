"""Plots as SVG text; colours come from the page's style sheet, so they follow its theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Mark", "Row", "bars", "dot_plot", "line_plot"]

_ROW = 26
_DODGED_ROW = 46
_RIGHT = 18
_TOP = 8
_BOTTOM = 40
_CHAR = 6.9
_COLUMN = 600

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mean with its interval in one row: ``css`` names its colour, ``hollow`` draws a ring."""

    css: str
    mean: float
    lo: float | None = None
    hi: float | None = None
    hollow: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a dot plot; ``cloud`` holds the single values behind the marks."""

    label: str
    marks: Sequence[Mark]
    cloud: Sequence[float] = ()
    strong: bool = False


def _svg(width: float, height: float, body: Sequence[str], what: str) -> str:
    wide = ' class="wide"' if width > _COLUMN else ""
    return (
        f'<svg{wide} viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(what, quote=True)}">{"".join(body)}</svg>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, css: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{css}"/>'


def _text(x: float, y: float, text: str, css: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def dot_plot(
    rows: Sequence[Row],
    *,
    low: float,
    high: float,
    step: float,
    what: str,
    width: int = 1000,
    dodge: bool = False,
) -> str:
    """Rows of marks on one horizontal scale from ``low`` to ``high``.

    With ``dodge`` marks of different colours lie above one another, so that none hides another.
    """
    tall = _DODGED_ROW if dodge else _ROW
    left = 16 + _CHAR * max(len(row.label) for row in rows)
    height = _TOP + tall * len(rows) + _BOTTOM

    def x(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return left + share * (width - left - _RIGHT)

    bottom = _TOP + tall * len(rows)
    body = []
    for i in range(round((high - low) / step) + 1):
        tick = low + i * step
        body.append(_line(x(tick), _TOP, x(tick), bottom, "grid"))
        body.append(_text(x(tick), bottom + 17, f"{tick:g}", "tick", "middle"))
    body.append(_text((left + width - _RIGHT) / 2, bottom + 34, what, "axis", "middle"))
    for number, row in enumerate(rows):
        middle = _TOP + tall * (number + 0.5)
        if dodge and number % 2:
            body.append(
                f'<rect x="{left:.1f}" y="{middle - tall / 2:.1f}" '
                f'width="{width - _RIGHT - left:.1f}" height="{tall}" class="zebra"/>'
            )
        css = "label strong" if row.strong else "label"
        body.append(_text(left - 10, middle + 4, row.label, css, "end"))
        if not dodge:
            body.append(_line(left, middle, width - _RIGHT, middle, "rule"))
        for i, value in enumerate(row.cloud):
            shift = ((i * 0.618034) % 1.0 - 0.5) * (_ROW - 9)
            body.append(
                f'<circle cx="{x(value):.1f}" cy="{middle + shift:.1f}" r="2.3" class="cloud"/>'
            )
        colours = list(dict.fromkeys(mark.css for mark in row.marks))
        for mark in row.marks:
            shift = colours.index(mark.css) - (len(colours) - 1) / 2.0 if dodge else 0.0
            body += _mark(mark, middle + shift * (tall - 14) / max(len(colours), 1), x)
    return _svg(width, height, body, what)


def _mark(mark: Mark, y: float, place: Scale) -> list[str]:
    parts = []
    if mark.lo is not None and mark.hi is not None and not mark.hollow:
        parts.append(_line(place(mark.lo), y, place(mark.hi), y, f"interval {mark.css}"))
    css = f"ring {mark.css}" if mark.hollow else f"dot {mark.css}"
    radius = 4.2 if mark.hollow else 5.2
    title = f"<title>{escape(mark.label)}</title>" if mark.label else ""
    parts.append(
        f'<circle cx="{place(mark.mean):.1f}" cy="{y:.1f}" r="{radius}" class="{css}">{title}'
        "</circle>"
    )
    return parts


Curve = Sequence[tuple[float, float, float | None, float | None]]


def line_plot(
    main: Curve,
    faint: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    ticks: Sequence[float],
    low: float,
    high: float = 1.0,
    width: int = 490,
    height: int = 330,
    css: str = "s5",
) -> str:
    """One curve with its band, over faint ones named at their ends.

    Points are ``(x, y, lower, upper)``; the y scale goes from ``low`` to ``high``.
    """
    names = 16 + _CHAR * 0.86 * max((len(n) for n in faint), default=0)
    left, right, bottom = 48.0, width - names, height - 44.0
    x0, x1 = min(ticks), max(ticks)

    def x(value: float) -> float:
        return left + (value - x0) / (x1 - x0 or 1.0) * (right - left)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - 12.0)

    body = []
    steps = round((high - low) / 0.1)
    for i in range(steps + 1):
        value = low + i * 0.1
        if steps <= 6 or i % 2 == 0:
            body.append(_line(left, y(value), right, y(value), "grid"))
            body.append(_text(left - 8, y(value) + 4, f"{value:.1f}", "tick", "end"))
    for tick in ticks:
        body.append(_text(x(tick), bottom + 18, f"{tick:g}", "tick", "middle"))
    body.append(_text((left + right) / 2, height - 8, x_label, "axis", "middle"))
    body.append(
        f'<text transform="translate(12 {bottom / 2 + 6:.0f}) rotate(-90)" class="axis" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    ends = _spread({name: y(curve[-1][1]) for name, curve in faint.items()}, 11.5, bottom)
    for name, curve in faint.items():
        points = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in curve)
        body.append(f'<polyline points="{points}" class="faint"><title>{escape(name)}</title>')
        body.append("</polyline>")
        body.append(_line(right + 1, y(curve[-1][1]), right + 12, ends[name], "leader"))
        body.append(_text(right + 15, ends[name] + 3.5, name, "tiny"))
    body += _band(main, x, y, css)
    return _svg(width, height, body, f"{y_label} against {x_label}")


def _band(curve: Curve, x: Scale, y: Scale, css: str) -> list[str]:
    parts = []
    known = [(p[0], p[2], p[3]) for p in curve if p[2] is not None and p[3] is not None]
    if len(known) == len(curve):
        upper = [f"{x(at):.1f},{y(hi):.1f}" for at, _, hi in known]
        lower = [f"{x(at):.1f},{y(lo):.1f}" for at, lo, _ in reversed(known)]
        parts.append(f'<polygon points="{" ".join(upper + lower)}" class="band {css}"/>')
    points = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in curve)
    parts.append(f'<polyline points="{points}" class="main {css}"/>')
    for p in curve:
        parts.append(
            f'<circle cx="{x(p[0]):.1f}" cy="{y(p[1]):.1f}" r="3.6" class="dot {css}">'
            f"<title>{p[1]:.3f}</title></circle>"
        )
    return parts


def _spread(places: Mapping[str, float], gap: float, bottom: float) -> dict[str, float]:
    """Move labels apart so that none hides another, each group of them about its middle."""
    groups: list[tuple[list[str], float]] = []  # names, and where the first of them lies
    for name in sorted(places, key=lambda n: places[n]):
        names, top = [name], places[name]
        while groups and groups[-1][1] + len(groups[-1][0]) * gap > top:
            names = groups.pop()[0] + names
            top = sum(places[n] - i * gap for i, n in enumerate(names)) / len(names)
        top = max(min(top, bottom - (len(names) - 1) * gap), gap)
        groups.append((names, top))
    return {n: top + i * gap for names, top in groups for i, n in enumerate(names)}


def bars(values: Sequence[tuple[str, float, str]], *, what: str, width: int = 1000) -> str:
    """Horizontal bars ``(label, length, text at its end)`` on a common scale from 0."""
    left = 16 + _CHAR * max(len(label) for label, _, _ in values)
    most = max(value for _, value, _ in values) or 1.0
    room = width - left - 16 - _CHAR * max(len(text) for _, _, text in values)
    body = []
    for number, (label, value, text) in enumerate(values):
        top = _TOP + number * 28
        length = max(1.0, value / most * room)
        body.append(_text(left - 10, top + 16, label, "label", "end"))
        body.append(
            f'<rect x="{left:.1f}" y="{top + 3}" width="{length:.1f}" height="18" rx="3" '
            'class="bar"/>'
        )
        body.append(_text(left + length + 8, top + 16, text, "tick"))
    return _svg(width, _TOP * 2 + 28 * len(values), body, what)
