"""The report as one HTML page with plots and pictures of cases, without scripts or network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.evaluation.dataset import Target
from samrt.evaluation.pictures import COLOURS, data_uri
from samrt.evaluation.report import markdown, words
from samrt.evaluation.report.page import cards, legend, page, section, table
from samrt.evaluation.report.solids import volumes_section
from samrt.evaluation.report.svg import Curve, Mark, Row, bars, dot_plot, line_plot
from samrt.evaluation.strategies import STRATEGIES
from samrt.evaluation.table import GOALS, Table

__all__ = ["Case", "colour_legend", "report_html"]

_MOST_DOTS = 240
_GROUP_WORDS = (
    ("size", "size, share of the image"),
    ("modality", "modality"),
    ("part", "part of a collection"),
)
_STAGE_WORDS = {
    "decode_image": "read the image",
    "preprocess": "preprocess",
    "encode": "encode (once per image)",
    "everything": "everything mode (per image)",
    "decode_prompt": "decode (per prompt)",
    "postprocess": "postprocess (per prompt)",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A target to show: ``what`` is best, median or worst, ``picture`` is RGB uint8."""

    set: str
    what: str
    target: Target
    dice: float
    picture: NDArray[np.uint8]


def report_html(document: Mapping[str, Any], figures: Table, cases: Sequence[Case]) -> str:
    """The page of a run."""
    config, groups = document["config"], document["groups"]
    rows = {**groups["set"]}
    order = sorted(rows, key=lambda name: -_mean(rows[name], _main_dice(document)))
    parts = [
        *_head(document),
        _distribution(document, figures, order),
        _strategies(document, order),
    ]
    if "volumes" in document:
        parts.append(volumes_section(document["volumes"]))
    curves = [_clicks(document, order), _jitter(document, order)]
    if any(curves):
        parts.append(f'<div class="two">{"".join(curves)}</div>')
    parts.append(_gallery(document, cases, order))
    parts.append(_groups(document))
    parts.append(_times(document["times_ms"]))
    parts.append(_details(document, order))
    lines = "".join(f"<li>{escape(line)}</li>" for line in words.method(document))
    parts.append(section("How this was measured", f"<ul>{lines}</ul>"))
    parts += _remarks(document)
    parts.append(
        f"<footer>samrt {escape(config['samrt'])}, model <code>"
        f"{escape(config['model']['model_id'])}</code>, seed {config['seed']}, data digest <code>"
        f"{escape(config['dataset']['digest'])}</code>. Not for clinical use.</footer>"
    )
    return page(f"Evaluation: {words.title(document)}", parts)


def _main_dice(document: Mapping[str, Any]) -> str:
    return f"{document['main_strategy']}.deployable.dice"


def _mean(group: Mapping[str, Any], name: str) -> float:
    found = group["figures"].get(name)
    return float("nan") if found is None else float(found[0])


def _head(document: Mapping[str, Any]) -> Iterable[str]:
    counts, main = document["counts"], document["main_strategy"]
    group = document["groups"]["all"]["mean of sets"]
    yield f"<h1>Evaluation of {escape(words.title(document))}</h1>"
    yield (
        f'<p class="lead">{words.counted(counts["targets"], "target")} on '
        f"{words.counted(counts['images'], 'image')} in {words.counted(counts['sets'], 'set')}. "
        "Figures are means of sets unless they say otherwise, with 95 % "
        "intervals.</p>"
    )
    shown = [
        (f"{main}.deployable.dice", f"Dice, {STRATEGIES[main]}", "model's choice", 3),
        (f"{main}.oracle.dice", f"Dice, {STRATEGIES[main]}", "best candidate (oracle)", 3),
        (f"{main}.deployable.nsd", "Surface Dice (NSD)", STRATEGIES[main], 3),
        (f"{main}.deployable.hd95", "HD95", "pixels", 1),
    ]
    if document["config"]["clicks"]:
        count = document["config"]["clicks"]
        shown.append((f"click {count}.dice", f"Dice after {count} clicks", "model's choice", 3))
    items = []
    for name, what, small, digits in shown:
        value, _, interval = words.figure(group, name, digits).partition(" [")
        items.append((value, what, f"{small}, {_range(interval)}" if interval else small))
    encode, decode = (document["times_ms"].get(s) for s in ("encode", "decode_prompt"))
    if encode and decode:
        text = f"{encode['p50']:.0f} + {decode['p50']:.0f} ms"
        items.append((text, "Encode + decode", "medians, image + prompt"))
    yield cards(items)
    bad, level = words.failing(document), words.below_ellipse(document)
    if bad or level:
        lines = []
        if bad:
            names = ", ".join(f"{escape(n)} ({v:.2f})" for n, v in bad)
            lines.append(f"<b>Fails</b> (mean Dice below {words.FAILS_BELOW:g}): {names}.")
        if level:
            names = escape(", ".join(level))
            lines.append(f"<b>No better than the ellipse in the box:</b> {names}.")
        yield f'<div class="warn">{"<br>".join(lines)}</div>'


def _range(interval: str) -> str:
    return interval.rstrip("]").replace(", ", " to ")


def _interval(group: Mapping[str, Any], name: str) -> tuple[float, float | None, float | None]:
    mean, lo, hi = group["figures"][name][:3]
    return float(mean), lo, hi


def _distribution(document: Mapping[str, Any], figures: Table, order: Sequence[str]) -> str:
    """Every target as a dot, the mean of each set over it."""
    main, name = document["main_strategy"], _main_dice(document)
    by_set = figures.rows("set")
    rows = []
    for set_name in order:
        values = figures.columns[name][by_set[set_name]]
        shown = values[:: max(1, -(-len(values) // _MOST_DOTS))]
        group = document["groups"]["set"][set_name]
        mean, lo, hi = _interval(group, name)
        marks = [Mark(main.lower(), mean, lo, hi, label=words.figure(group, name))]
        if "ellipse.dice" in group["figures"]:
            ellipse = _interval(group, "ellipse.dice")[0]
            marks.insert(0, Mark("ellipse", ellipse, hollow=True, label=f"ellipse {ellipse:.3f}"))
        rows.append(Row(f"{set_name} ({group['targets']})", marks, shown.tolist()))
    return section(
        f"Dice of every target, {words.strategy_name(main)}",
        legend([(main.lower(), "mean and 95 % interval"), ("hollow", "ellipse in the box")]),
        dot_plot(rows, low=0.0, high=1.0, step=0.1, what="Dice, the model's choice of mask"),
        note="One small dot per target; the number of targets stands behind each set's name.",
    )


def _strategies(document: Mapping[str, Any], order: Sequence[str]) -> str:
    """All strategies per set: full dots deployable, rings oracle."""
    strategies = document["config"]["strategies"]
    groups = {name: document["groups"]["set"][name] for name in order}
    if len(groups) > 1:
        groups = {"mean of sets": document["groups"]["all"]["mean of sets"], **groups}
    rows = []
    for name, group in groups.items():
        marks = []
        for strategy in strategies:
            for rule, hollow in (("oracle", True), ("deployable", False)):
                column = f"{strategy}.{rule}.dice"
                if column in group["figures"]:
                    mean, lo, hi = _interval(group, column)
                    label = f"{words.strategy_name(strategy)}, {rule}: {mean:.3f}"
                    marks.append(Mark(strategy.lower(), mean, lo, hi, hollow, label))
        rows.append(Row(name, marks, strong=name == "mean of sets"))
    colours = [(s.lower(), words.strategy_name(s)) for s in strategies]
    return section(
        "Ways of prompting",
        legend([*colours, ("hollow", "ring: best candidate mask (oracle)")]),
        dot_plot(rows, low=0.0, high=1.0, step=0.1, what="mean Dice", dodge=True),
        note="Full dots are the mask that the model itself ranks highest; a ring of the same "
        "colour is what a choice by the truth would have given.",
    )


def _clicks(document: Mapping[str, Any], order: Sequence[str]) -> str:
    count = document["config"]["clicks"]
    if not count:
        return ""
    names = [f"click {i}.dice" for i in range(1, count + 1)]
    groups = document["groups"]
    main = groups["all"]["mean of sets"]
    goals = ", ".join(
        f"NoC@{goal:g} = {words.figure(main, f'NoC@{goal:g}.iou', 2, interval=False)}"
        for goal in GOALS
    )
    plot = line_plot(
        _curve(main, names, range(1, count + 1)),
        {n: _curve(groups["set"][n], names, range(1, count + 1)) for n in order},
        x_label="corrective clicks",
        y_label="mean Dice",
        ticks=range(1, count + 1),
        low=_floor(groups["set"].values(), names),
        css="s6",
    )
    return section(
        "Corrective clicks", plot,
        note=f"From nothing, a click at a time. {goals} (IoU, at most {count}).",
    )  # fmt: skip


def _jitter(document: Mapping[str, Any], order: Sequence[str]) -> str:
    config, groups = document["config"], document["groups"]
    levels = [(f"jitter {n}.deployable.dice", _middle(n)) for n in config["jitter_px"]]
    if "S5" in config["strategies"]:
        levels.insert(0, ("S5.deployable.dice", 0.0))
    if len(levels) < 2:
        return ""
    names, places = [n for n, _ in levels], [p for _, p in levels]
    main = groups["all"]["mean of sets"]
    plot = line_plot(
        _curve(main, names, places),
        {n: _curve(groups["set"][n], names, places) for n in order},
        x_label="pixels that each edge of the box is off (middle of the level)",
        y_label="mean Dice",
        ticks=places,
        low=_floor(groups["set"].values(), names),
    )
    loss = _mean(main, names[0]) - _mean(main, names[-1])
    return section(
        "Careless boxes", plot,
        note=f"From the first to the last level the mean of sets loses {loss:.3f} Dice. "
        "Pixels are counted, not shares of the box, so small targets feel more of it.",
    )  # fmt: skip


def _middle(level: str) -> float:
    low, _, high = level.partition("-")
    return (float(low) + float(high or low)) / 2.0


def _curve(group: Mapping[str, Any], names: Sequence[str], places: Iterable[float]) -> Curve:
    return [(float(x), *_interval(group, n)) for x, n in zip(places, names, strict=True)]


def _floor(groups: Iterable[Mapping[str, Any]], names: Sequence[str]) -> float:
    """Lower end of the scale: the tenth below everything shown."""
    least = min(_mean(group, name) for group in groups for name in names)
    return float(np.floor(max(0.0, min(least, 0.8)) * 10.0) / 10.0)


def colour_legend() -> str:
    """What the tints of an error map mean."""
    said = {"agreed": "agrees with the truth", "missed": "missed", "extra": "too much"}
    parts = [
        f'<span><i class="square" style="background:rgb{COLOURS[k]}"></i>{v}</span>'
        for k, v in said.items()
    ]
    return f'<div class="legend">{"".join(parts)}</div>'


def _gallery(document: Mapping[str, Any], cases: Sequence[Case], order: Sequence[str]) -> str:
    main = document["main_strategy"]
    rank = {"best": 0, "median": 1, "worst": 2}
    parts = [colour_legend()]
    for name in order:
        own = sorted((c for c in cases if c.set == name), key=lambda c: rank[c.what])
        mean = _mean(document["groups"]["set"][name], _main_dice(document))
        parts.append(f"<h3>{escape(name)} <small>mean {mean:.3f}</small></h3>")
        parts.append('<div class="gallery">')
        parts += [_figure(case) for case in own]
        parts.append("</div>")
    return section(
        f"Best, median and worst case of each set, {words.strategy_name(main)}", *parts,
        note="Left the image around the target, right the model's choice against the truth.",
    )  # fmt: skip


def _figure(case: Case) -> str:
    target = case.target
    text = f"{case.what} of {case.set}: {target.name}"
    return (
        f'<figure><img src="{data_uri(case.picture)}" alt="{escape(text, quote=True)}">'
        f"<figcaption><b>{case.what}: Dice {case.dice:.3f}</b>, {escape(target.name)}, "
        f'{target.area_px} px<br><span title="{escape(target.key, quote=True)}">'
        f"{escape(target.image.rpartition('/')[2])}</span></figcaption></figure>"
    )


def _groups(document: Mapping[str, Any]) -> str:
    strategies = document["config"]["strategies"]
    head = ["", "n", *(words.strategy_name(s) for s in strategies), "ellipse"]
    parts = []
    for fact, heading in _GROUP_WORDS:
        rows = []
        if not document["groups"][fact]:
            continue
        for name, group in document["groups"][fact].items():
            cells = [words.figure(group, f"{s}.deployable.dice") for s in strategies]
            ellipse = words.figure(group, "ellipse.dice", interval=False)
            rows.append([name, str(group["targets"]), *cells, ellipse])
        parts.append(table([heading, *head[1:]], rows))
    return section(
        "By size of the target and by modality", *parts,
        note="Dice of the model's choice over all targets of a group, whatever their set.",
    )  # fmt: skip


def _times(times: Mapping[str, Any]) -> str:
    shown = [
        (_STAGE_WORDS.get(s, s), t["p50"], f"{t['p50']:.1f} ms, 90 % below {t['p90']:.1f}")
        for s, t in times.items()
        if t["n"]
    ]
    return section(
        "Time per stage", bars(shown, what="median time per stage"),
        note="Medians of this run on this machine, next to whatever else it was doing.",
    )  # fmt: skip


def _details(document: Mapping[str, Any], order: Sequence[str]) -> str:
    """All tables of the Markdown report, folded."""
    groups, config = document["groups"], document["config"]
    rows = {"mean of sets": groups["all"]["mean of sets"]}
    rows |= {name: groups["set"][name] for name in order}
    parts = []
    for strategy in config["strategies"]:
        parts.append(f"<details><summary>{escape(words.strategy_name(strategy))}, all figures"
                     "</summary>")  # fmt: skip
        for rule in ("deployable", "oracle"):
            head, body = markdown.metric_rows(rows, strategy, rule)
            parts.append(table([f"{rule}", *head[1:]], body, strong=("mean of sets",)))
        parts.append("</details>")
    if config["clicks"]:
        head, body = markdown.noc_rows(rows, config["clicks"])
        parts.append("<details><summary>Number of clicks</summary>")
        parts.append(table(head, body, strong=("mean of sets",)) + "</details>")
    return section("All figures", *parts)


def _remarks(document: Mapping[str, Any]) -> Iterable[str]:
    lines = [*(document.get("remarks") or []), *words.skipped(document)]
    if lines:
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        yield section("Remarks", f"<ul>{items}</ul>")
