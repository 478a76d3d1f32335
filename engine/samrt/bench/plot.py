"""Latency histograms and stage bars as an SVG picture, written by hand: no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from samrt.bench.report import ms, run_title
from samrt.bench.scenarios import END_TO_END

__all__ = ["COLOURS", "svg"]

_WIDTH, _ROW, _TOP, _LEFT, _PLOT = 960, 150, 60, 60, 400
_BAR_LEFT, _BAR_WIDTH, _BINS = 540, 380, 40
# Okabe and Ito's colours, told apart by colour-blind people too (jfly.uni-koeln.de/color).
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999",
)  # fmt: skip
_REST = "#333333"
_STYLE = (
    "text{font-family:sans-serif;font-size:12px;fill:#222}.t{font-weight:bold}"
    ".s{font-size:11px;fill:#555}"
)


def svg(document: Mapping[str, Any]) -> str:
    """A row per run: times end to end on the left, medians of the stages on the right.

    Runs of the same scenario share their axes.
    """
    runs = document["runs"]
    names = _stage_names(runs)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    colours["rest"] = _REST
    height = _TOP + _ROW * len(runs) + 40
    engine = runs[0]["engine"]
    title = f"{engine['model_id']}, {document['host']['cpu']['model']}, {engine['threads']} threads"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 22, title, "t"),
        _text(_LEFT, 44, "end to end, ms: number of runs", "s"),
        _text(_BAR_LEFT, 44, "median of each stage, ms", "s"),
    ]
    for index, run in enumerate(runs):
        top = _TOP + _ROW * index
        peers = [r for r in runs if r["scenario"] == run["scenario"]]
        parts += _histogram(run, peers, top)
        parts += _bars(run, peers, top, colours)
    parts += _legend(colours, height - 16)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _stage_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    names: list[str] = []
    for run in runs:
        names += [name for name in run["stages"] if name not in names and name != END_TO_END]
    return names


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, words: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" '
        f'fill="{colour}"><title>{escape(words)}</title></rect>'
    )


def _line(x: float, y0: float, y1: float, colour: str, dash: str) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y0:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="1.5" stroke-dasharray="{dash}"/>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between two others."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    for part in (1.0, 0.5, 0.2, 0.1):
        first = math.ceil(low / (step * part))
        found = [k * step * part for k in range(first, int(high / (step * part)) + 1)]
        if len(found) >= 4:
            return found
    return found


def _range(peers: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    times = np.concatenate([np.asarray(r["times_ms"][END_TO_END], float) for r in peers])
    deadlines = [r["settings"].get("deadline_ms") for r in peers]
    low, high = float(times.min()), float(times.max())
    high = max([high, *(d for d in deadlines if d)])
    margin = max((high - low) * 0.04, high * 0.01, 1e-6)
    return max(0.0, low - margin), high + margin


def _histogram(run: Mapping[str, Any], peers: Sequence[Mapping[str, Any]], top: float) -> list[str]:
    low, high = _range(peers)
    base, tall = top + _ROW - 42, _ROW - 66

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * _PLOT

    counts, edges = np.histogram(run["times_ms"][END_TO_END], _BINS, (low, high))
    most = int(counts.max())
    parts = [_text(_LEFT, top + 14, run_title(run), "t")]
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            height = tall * int(count) / most
            words = f"{ms(float(start))} to {ms(float(end))} ms: {int(count)} runs"
            left, wide = x(float(start)), x(float(end)) - x(float(start)) - 0.5
            parts.append(_rect(left, base - height, wide, height, COLOURS[0], words))
    parts.append(f'<path d="M{_LEFT} {base}h{_PLOT}" stroke="#222" fill="none"/>')
    for tick in _ticks(low, high):
        parts.append(f'<path d="M{x(tick):.1f} {base}v4" stroke="#222"/>')
        parts.append(_text(x(tick), base + 17, f"{tick:g}", "s", "middle"))
    parts.append(_text(_LEFT - 6, base - tall + 4, str(most), "s", "end"))
    parts.append(_text(_LEFT - 6, base + 4, "0", "s", "end"))
    times = run["stages"][END_TO_END]
    marks = [("median", times["median"], "2 2", "#222")]
    for name in ("p90", "p99"):
        value = times["percentiles"][name]["value"]
        if value is not None:
            marks.append((name, value, "5 3", "#D55E00"))
    if times["deadline"]:
        marks.append(("deadline", times["deadline"]["ms"], "1 0", "#C00000"))
    for _, value, dash, colour in marks:
        if low <= value <= high:
            parts.append(_line(x(value), base - tall - 2, base, colour, dash))
    words = ", ".join(f"{name} {ms(value)}" for name, value, _, _ in marks)
    parts.append(_text(_LEFT, base + 33, f"{words}; {times['count']} runs", "s"))
    return parts


def _bars(
    run: Mapping[str, Any],
    peers: Sequence[Mapping[str, Any]],
    top: float,
    colours: Mapping[str, str],
) -> list[str]:
    longest = max(_total(peer) for peer in peers) or 1.0
    y, left = top + 40, float(_BAR_LEFT)
    medians = {n: s["median"] for n, s in run["stages"].items() if n != END_TO_END}
    whole = run["stages"][END_TO_END]["median"]
    medians["rest"] = max(0.0, whole - sum(medians.values()))
    parts = []
    for name, value in medians.items():
        wide = value / longest * _BAR_WIDTH
        parts.append(_rect(left, y, wide, 30, colours[name], f"{name}: {ms(value)} ms"))
        if wide > 34:
            dark = colours[name] in ("#0072B2", "#D55E00", "#009E73", _REST)
            fill = "#fff" if dark else "#222"
            parts.append(
                f'<text x="{left + wide / 2:.1f}" y="{y + 19}" text-anchor="middle" '
                f'style="fill:{fill}">{ms(value)}</text>'
            )
        left += wide
    parts.append(_text(_BAR_LEFT, y + 48, f"end to end {ms(whole)} ms", "s"))
    return parts


def _total(run: Mapping[str, Any]) -> float:
    stages = run["stages"]
    parts = sum(stage["median"] for name, stage in stages.items() if name != END_TO_END)
    return float(max(parts, stages[END_TO_END]["median"]))


def _legend(colours: Mapping[str, str], y: float) -> list[str]:
    parts, x = [], float(_LEFT)
    for name, colour in colours.items():
        parts.append(_rect(x, y - 10, 12, 12, colour, name))
        parts.append(_text(x + 17, y, name))
        x += 34 + 7 * len(name)
    return parts
