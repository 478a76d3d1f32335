"""The part of the HTML page about whole volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samrt.evaluation.report import markdown, words
from samrt.evaluation.report.page import legend, section, table
from samrt.evaluation.report.svg import Mark, Row, dot_plot

__all__ = ["volumes_section"]

_COLOURS = {"slices": "s5", "propagate": "s2"}


def volumes_section(volumes: Mapping[str, Any]) -> str:
    """3-D Dice of each set and kind of object as a plot, all figures as tables."""
    if not volumes["objects"]:
        return ""
    groups = {**volumes["groups"]["all"]}
    if len(volumes["groups"]["set"]) > 1:
        groups |= volumes["groups"]["set"]
    groups |= volumes["groups"]["target"]
    rows = [Row(f"{n} ({g['targets']})", _marks(volumes, g), strong=n in volumes["groups"]["all"])
            for n, g in groups.items()]  # fmt: skip
    colours = [(_COLOURS[way], words.way_name(way)) for way in volumes["ways"]]
    if "slices" in volumes["ways"]:
        colours.append(("hollow", "ring: best candidate masks (oracle)"))
    parts = [
        legend(colours),
        dot_plot(rows, low=0.0, high=1.0, step=0.1, what="mean 3-D Dice", dodge=True),
    ]
    for way, rule in words.volume_columns(volumes):
        head, body = markdown.volume_rows(volumes, way, rule)
        parts.append(f"<h3>{words.way_name(way, rule)}</h3>")
        parts.append(table(head, body, strong=tuple(volumes["groups"]["all"])))
    return section(
        "Whole volumes", *parts,
        note=f"{words.counted(volumes['objects'], 'object')} in "
        f"{words.counted(volumes['cases'], 'volume')}; the masks of all slices put together, "
        "measured in 3-D.",
    )  # fmt: skip


def _marks(volumes: Mapping[str, Any], group: Mapping[str, Any]) -> list[Mark]:
    marks = []
    for way, rule in words.volume_columns(volumes):
        mean, lo, hi, _ = group["figures"].get(f"{way}.{rule}.dice", (None,) * 4)
        if mean is not None:
            label = f"{words.way_name(way, rule)}: {mean:.3f}"
            marks.append(Mark(_COLOURS[way], mean, lo, hi, hollow=rule == "oracle", label=label))
    return marks
