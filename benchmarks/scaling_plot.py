"""The figures of `scaling.py` as Markdown tables and as one SVG picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from machine import MUCH
from samrt.bench.plot import COLOURS
from samrt.bench.report import markdown_table, ms

TITLES = {
    "pictures": ("Size of the picture: file to mask", "side of the picture, pixels"),
    "prompts": ("Boxes in one call, picture encoded", "boxes"),
    "threads": ("Pictures per second, file to mask", "threads that send pictures"),
    "everything": ("Everything mode: grid of points", "points along a side"),
    "everything_pictures": ("Everything mode: size of the picture", "side of the picture, pixels"),
    "frames": ("Frame of SAM ViT-B's encoder", "side of the frame, pixels"),
}
WIDE, TALL, COLUMNS = 480, 330, 2
LEFT, TOP, ACROSS, DOWN = 58, 50, 260, 210
TITLE_SPACE = 40


def table(record: Mapping[str, Any]) -> str:
    """The machine and a Markdown table per sweep; an asterisk marks what others slowed down."""
    machine = record["host"]
    parts = [
        f"{machine['cpu']['model']}, {record['threads']} threads, samrt "
        f"{machine['versions']['samrt']}, commit {machine['commit']}"
    ]
    for sweep, points in record["sweeps"].items():
        title, axis = TITLES[sweep]
        parts += [f"{title} ({points[0]['model']})", _rows(sweep, axis, points)]
    shares = [p["others"] or 0.0 for points in record["sweeps"].values() for p in points]
    if max(shares, default=0.0) > MUCH:
        parts.append(f"\\* other programs took up to {max(shares):.0%} of the processors meanwhile")
    return "\n\n".join(parts)


def _rows(sweep: str, axis: str, points: Sequence[Mapping[str, Any]]) -> str:
    times = list(points[0].get("ms", {}))
    more = {"peak_mb": "peak MB", "results_mb": "results MB", "masks": "masks",
            "per_second": "per second"}  # fmt: skip
    extra = [name for name in more if name in points[0]]
    if sweep == "threads":
        axis = "threads of the engine, that send"
    head = [axis, *(f"{name.replace('_', ' ')} ms" for name in times), *(more[n] for n in extra)]
    rows = []
    for point in points:
        at = point["at"]
        rows.append([
            (", ".join(map(str, at)) if sweep == "threads" else str(at))
            + " \\*" * ((point["others"] or 0.0) > MUCH),
            *(ms(point["ms"][name]) for name in times),
            *(_number(name, point[name]) for name in extra),
        ])  # fmt: skip
    return markdown_table(head, rows)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in ("peak_mb", "masks"):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


def svg(record: Mapping[str, Any]) -> str:
    """A panel per sweep of at least two points: times in ms and, dashed, the peak in MB.

    Both axes are logarithmic; pictures per second have linear ones.
    """
    drawn = [name for name, points in record["sweeps"].items() if len(points) > 1]
    width = WIDE * min(COLUMNS, max(1, len(drawn)))
    height = TITLE_SPACE + TALL * math.ceil(len(drawn) / COLUMNS)
    machine = record["host"]
    models = {points[0]["model"] for name, points in record["sweeps"].items() if name != "frames"}
    title = (
        f"{', '.join(sorted(models))}, {machine['cpu']['model']}, {record['threads']} threads, "
        f"commit {machine['commit']}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        "<style>text{font:12px sans-serif;fill:#222}.s{font-size:11px;fill:#555}"
        ".t{font-weight:bold}polyline{fill:none;stroke-width:2}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(LEFT, 24, f"{title}; times in ms, dashed: peak memory in MB", "s"),
    ]
    for index, sweep in enumerate(drawn):
        x = WIDE * (index % COLUMNS)
        y = TITLE_SPACE + TALL * (index // COLUMNS)
        panel = _throughput if sweep == "threads" else _growth
        parts.append(f'<g transform="translate({x} {y})">')
        heading, axis = TITLES[sweep]
        parts += [_text(LEFT, 24, heading, "t"),
                  _text(LEFT + ACROSS / 2, TOP + DOWN + 40, axis, "s", "middle"),
                  *panel(record["sweeps"][sweep]), "</g>"]  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


def _growth(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of the stages and of memory over a number."""
    lines = {name.replace("_", " "): [p["ms"][name] for p in points] for name in points[0]["ms"]}
    memory = [p["peak_mb"] for p in points]
    if None not in memory:
        lines["peak, MB"] = memory
    values = [max(v, 1e-3) for line in lines.values() for v in line]
    low, high = math.floor(math.log10(max(min(values), 0.1))), math.ceil(math.log10(max(values)))
    xs = [math.log(p["at"] / points[0]["at"]) for p in points]
    places = [LEFT + ACROSS * x / xs[-1] for x in xs]

    def height(value: float) -> float:
        return TOP + DOWN * (high - math.log10(max(value, 10.0**low))) / (high - low)

    parts = []
    for power in range(low, high + 1):
        parts += _rule(height(10.0**power), f"{10.0**power:g}")
    parts += [_text(x, TOP + DOWN + 18, str(p["at"]), "s", "middle")
              for x, p in zip(places, points, strict=True)]  # fmt: skip
    for index, (name, line) in enumerate(lines.items()):
        dashed = name == "peak, MB"
        colour = "#333" if dashed else COLOURS[index % len(COLOURS)]
        spots = [(x, height(v)) for x, v in zip(places, line, strict=True)]
        parts += _curve(spots, colour, dashed) + _entry(index, name, colour, dashed)
    return parts


def _throughput(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per number of threads of the engine over the workers; from zero."""
    workers = sorted({p["at"][1] for p in points})
    places = {w: LEFT + ACROSS * (i + 0.5) / len(workers) for i, w in enumerate(workers)}
    most = max(p["per_second"] for p in points)
    step = 10.0 ** math.floor(math.log10(most))
    step = next(s for s in (step, step / 2, step / 5, step / 10) if most / s >= 3)
    top = step * math.ceil(most / step)
    parts = []
    for index in range(round(top / step) + 1):
        parts += _rule(TOP + DOWN * (1 - index * step / top), f"{index * step:g}")
    parts += [_text(x, TOP + DOWN + 18, str(w), "s", "middle") for w, x in places.items()]
    for index, threads in enumerate(sorted({p["at"][0] for p in points})):
        own = [p for p in points if p["at"][0] == threads]
        spots = [(places[p["at"][1]], TOP + DOWN * (1 - p["per_second"] / top)) for p in own]
        name = f"engine of {threads} thread{'s' if threads > 1 else ''}"
        colour = COLOURS[index % len(COLOURS)]
        parts += _curve(spots, colour) + _entry(index, name, colour)
    return parts


def _rule(y: float, label: str) -> list[str]:
    return [f'<path d="M{LEFT} {y:.1f}h{ACROSS}" stroke="#ddd"/>',
            _text(LEFT - 6, y + 4, label, "s", "end")]  # fmt: skip


def _curve(spots: Sequence[tuple[float, float]], colour: str, dashed: bool = False) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in spots]
    return [f'<polyline points="{path}" stroke="{colour}"{_dashes(dashed)}/>', *dots]


def _entry(index: int, name: str, colour: str, dashed: bool = False) -> list[str]:
    """A line of the legend."""
    x, y = LEFT + ACROSS + 14, TOP + 8 + 20 * index
    return [f'<path d="M{x} {y}h16" stroke="{colour}" stroke-width="2"{_dashes(dashed)}/>',
            _text(x + 22, y + 4, name, "s")]  # fmt: skip


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="5 3"' if dashed else ""


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f'class="{kind}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
