"""The page of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.evaluation.pictures import data_uri
from samrt.evaluation.report import words
from samrt.evaluation.report.html import colour_legend
from samrt.evaluation.report.page import cards, page, section, table
from samrt.evaluation.report.svg import Mark, Row, dot_plot

__all__ = ["comparison_html"]


def comparison_html(document: Mapping[str, Any], pictures: Sequence[NDArray[np.uint8]]) -> str:
    """The page; ``pictures`` go with the first entries of ``document["worst"]``."""
    first, second = (words.title(run) for run in document["runs"])
    main = document["main_strategy"]
    found = document["strategies"][main]
    parts = [
        f"<h1>{escape(second)} against {escape(first)}</h1>",
        f'<p class="lead">{document["counts"]["targets"]} targets in both runs, asked with the '
        "same prompts. Differences are second minus first: a drop is negative.</p>",
        _cards(main, found),
        _differences(main, found),
        _tables(document),
        _worst(document, pictures),
        f"<footer>samrt; models <code>{_model(document, 0)}</code> and <code>"
        f"{_model(document, 1)}</code>. Not for clinical use.</footer>",
    ]
    return page(f"Comparison: {second} against {first}", parts)


def _model(document: Mapping[str, Any], number: int) -> str:
    return escape(str(document["runs"][number]["config"]["model"]["model_id"]))


def _cards(main: str, found: Mapping[str, Any]) -> str:
    group = {"figures": found["mean of sets"]}
    items = []
    for name, what in (
        ("dice_difference", "Dice difference"),
        ("mask_iou", "IoU of the two masks"),
    ):
        value, _, interval = words.figure(group, name, 4).partition(" [")
        items.append((value, f"{what}, {main}", interval.rstrip("]").replace(", ", " to ")))
    for limit, share in found["share_losing_more_than"].items():
        items.append((f"{share:.1%}", f"lose more than {limit} Dice", "of all targets"))
    items.append(
        (f"{found['share_choosing_another_mask']:.1%}", "choose another", "candidate mask")
    )
    items.append((f"{found['largest_drop']:.3f}", "largest drop", "one target"))
    return cards(items)


def _differences(main: str, found: Mapping[str, Any]) -> str:
    rows = []
    named = {"mean of sets": found["mean of sets"], **found["set"]}
    reach = 0.005
    for name, group in named.items():
        mean, lo, hi = group["dice_difference"][:3]
        reach = max(reach, *(abs(v) for v in (mean, lo, hi) if v is not None))
        label = f"{name}: {mean:+.4f}"
        rows.append(Row(name, [Mark(main.lower(), mean, lo, hi, label=label)],
                        strong=name == "mean of sets"))  # fmt: skip
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if reach / s <= 5)
    edge = step * float(np.ceil(reach / step))
    plot = dot_plot(rows, low=-edge, high=edge, step=step, what="difference of the mean Dice")
    return section(f"Dice difference per set, {words.strategy_name(main)}", plot)


def _tables(document: Mapping[str, Any]) -> str:
    parts = []
    names = ("dice_first", "dice_second", "dice_difference", "mask_iou")
    for strategy, found in document["strategies"].items():
        rows = {k: found[k] for k in ("mean of sets", "all targets")} | found["set"]
        body = [
            [n, str(g["dice_first"][3]), *(words.figure({"figures": g}, c, 4) for c in names)]
            for n, g in rows.items()
        ]
        head = [words.strategy_name(strategy), "n", "Dice, first", "Dice, second", "difference",
                "IoU of the masks"]  # fmt: skip
        opened = " open" if strategy == document["main_strategy"] else ""
        parts.append(f"<details{opened}><summary>{escape(words.strategy_name(strategy))}</summary>")
        parts.append(table(head, body, strong=("mean of sets",)) + "</details>")
    return section("Figures", *parts)


def _worst(document: Mapping[str, Any], pictures: Sequence[NDArray[np.uint8]]) -> str:
    if not pictures:
        return ""
    parts = [colour_legend(), '<div class="gallery wide">']
    for case, picture in zip(document["worst"], pictures, strict=False):
        text = f"{case['set']}: {case['target']}"
        parts.append(
            f'<figure><img src="{data_uri(picture)}" alt="{escape(text, quote=True)}"><figcaption>'
            f"<b>Dice {case['dice_first']:.4f} → {case['dice_second']:.4f}</b>, IoU of the "
            f"masks {case['mask_iou']:.4f}, {escape(text)}<br>{escape(case['key'])}</figcaption>"
            "</figure>"
        )
    parts.append("</div>")
    return section("Where most is lost", *parts, note="The image, the first run, the second run.")
