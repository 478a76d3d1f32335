"""The report as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from samrt.evaluation.report import words
from samrt.evaluation.table import GOALS, RULES

__all__ = ["comparison_markdown", "metric_rows", "noc_rows", "report_markdown", "volume_rows"]

_GROUPS = (
    ("part", "Parts of collections"),
    ("modality", "By modality"),
    ("size", "By size of the target"),
)
_METRICS = ("dice", "iou", "nsd", "hd", "hd95", "asd")


def report_markdown(document: Mapping[str, Any]) -> str:
    """All tables of a run."""
    config, counts, groups = document["config"], document["counts"], document["groups"]
    main = document["main_strategy"]
    parts = [
        f"# Evaluation: {words.title(document)}",
        f"{words.counted(counts['targets'], 'target')} on "
        f"{words.counted(counts['images'], 'image')} in {words.counted(counts['sets'], 'set')}, "
        f"{counts['skipped']} skipped; seed {config['seed']}. Model {config['model']['model_id']}, "
        f"samrt {config['samrt']}. Not for clinical use.",
        *_failures(document),
        "## Dice per set",
    ]
    rows = {"mean of sets": groups["all"]["mean of sets"], **groups["set"]}
    parts += [_dice_table(rows, config["strategies"], rule) for rule in RULES[::-1]]
    parts += [f"## All figures, {words.strategy_name(main)}, deployable", _metric_table(rows, main)]
    for fact, heading in _GROUPS:
        if groups[fact]:
            parts += [
                f"## {heading}, deployable Dice",
                _dice_table(groups[fact], config["strategies"]),
            ]
    if "volumes" in document:
        parts += _volume_parts(document["volumes"])
    if config["jitter_px"]:
        parts += ["## Box jitter (pixels), deployable Dice", _jitter_table(rows, config)]
    if config["clicks"]:
        parts += ["## Corrective clicks, Dice", _click_table(rows, config["clicks"])]
        parts += ["## Number of clicks", _noc_table(rows, config["clicks"])]
    parts += ["## Time (ms)", _time_table(document["times_ms"])]
    parts += ["## How", "\n".join(f"- {line}" for line in words.method(document))]
    remarks = document.get("remarks") or []
    if remarks or words.skipped(document):
        skipped = words.skipped(document)
        parts += ["## Remarks", "\n".join(f"- {line}" for line in [*remarks, *skipped])]
    return "\n\n".join(parts) + "\n"


def _failures(document: Mapping[str, Any]) -> Iterable[str]:
    bad, main = words.failing(document), words.strategy_name(document["main_strategy"])
    if bad:
        names = ", ".join(f"{name} ({value:.3f})" for name, value in bad)
        yield f"**Fails** (mean Dice of {main} below {words.FAILS_BELOW:g}): {names}."
    level = words.below_ellipse(document)
    if level:
        yield f"**No better than the ellipse in the box**: {', '.join(level)}."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def _dice_table(
    rows: Mapping[str, Any], strategies: Sequence[str], rule: str = "deployable"
) -> str:
    head = [rule, "n", *(words.strategy_name(s) for s in strategies)]
    if rule == "deployable":
        head.append("ellipse")
    body = []
    for name, group in rows.items():
        cells = [words.figure(group, f"{s}.{rule}.dice") for s in strategies]
        if rule == "deployable":
            cells.append(words.figure(group, "ellipse.dice", interval=False))
        body.append([name, str(group["targets"]), *cells])
    return table(head, body)


def _metric_table(rows: Mapping[str, Any], strategy: str) -> str:
    return table(*metric_rows(rows, strategy))


def metric_rows(
    rows: Mapping[str, Any], strategy: str, rule: str = "deployable"
) -> tuple[list[str], list[list[str]]]:
    """Head and body of a table of all figures of one strategy under one rule."""
    names = [f"{strategy}.{rule}.{m}" for m in _METRICS]
    mm = [f"{strategy}.{rule}.{m}_mm" for m in ("hd95", "asd")]
    if any(name in group["figures"] for group in rows.values() for name in mm):
        names += mm
    head = ["set", "n", *(_metric_name(n.rpartition(".")[2]) for n in names)]
    body = []
    for name, group in rows.items():
        cells = [words.figure(group, n, _digits(n)) for n in names]
        body.append([name, str(group["targets"]), *cells])
    return head, body


def _metric_name(metric: str) -> str:
    known = {"dice": "Dice", "iou": "Jaccard", "nsd": "NSD"}
    plain, _, unit = metric.partition("_")
    return known.get(metric, f"{plain.upper()} ({unit or 'px'})")


def _digits(name: str) -> int:
    return 3 if name.rpartition(".")[2] in ("dice", "iou", "nsd") else 1


def _volume_parts(volumes: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"## Whole volumes\n\n{words.counted(volumes['objects'], 'object')} in "
        f"{words.counted(volumes['cases'], 'volume')}, "
        f"{len(volumes['skipped'])} skipped."
    )
    for way, rule in words.volume_columns(volumes):
        yield f"### {words.way_name(way, rule)}"
        yield table(*volume_rows(volumes, way, rule))


def volume_rows(
    volumes: Mapping[str, Any], way: str, rule: str
) -> tuple[list[str], list[list[str]]]:
    """Head and body of a table of all 3-D figures of one way of asking."""
    unit = "mm" if volumes["spacing_known"] else "voxels"
    names = [f"{way}.{rule}.{m}" for m in _METRICS]
    head = ["set or object", "n", "volumes"]
    head += [_metric_name(m) if _digits(m) == 3 else f"{m.upper()} ({unit})" for m in _METRICS]
    groups = volumes["groups"]
    sets = groups["set"] if len(groups["set"]) > 1 else {}
    rows = [*groups["all"].items(), *sets.items(), *groups["target"].items()]
    body = [
        [n, str(g["targets"]), str(g["volumes"]), *(words.figure(g, c, _digits(c)) for c in names)]
        for n, g in rows
    ]
    return head, body


def _jitter_table(rows: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    names = ["S5.deployable.dice"] if "S5" in config["strategies"] else []
    names += [f"jitter {level}.deployable.dice" for level in config["jitter_px"]]
    head = ["set", *(["0"] if "S5" in config["strategies"] else []), *config["jitter_px"]]
    return table(head, ([n, *(words.figure(g, c) for c in names)] for n, g in rows.items()))


def _click_table(rows: Mapping[str, Any], count: int) -> str:
    shown = range(1, count + 1)
    body = [
        [n, *(words.figure(g, f"click {i}.dice", interval=False) for i in shown)]
        for n, g in rows.items()
    ]
    return table(["set", *(str(i) for i in shown)], body)


def _noc_table(rows: Mapping[str, Any], count: int) -> str:
    return table(*noc_rows(rows, count))


def noc_rows(rows: Mapping[str, Any], count: int) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table of clicks needed."""
    goals = [(metric, goal) for metric in ("iou", "dice") for goal in GOALS]
    label = {"iou": "IoU", "dice": "Dice"}
    head = ["set"]
    for metric, goal in goals:
        head += [f"NoC@{goal:g} {label[metric]} (max {count})", "reached"]
    body = []
    for name, group in rows.items():
        cells = [name]
        for metric, goal in goals:
            cells.append(words.figure(group, f"NoC@{goal:g}.{metric}", 2, interval=False))
            cells.append(words.figure(group, f"reached@{goal:g}.{metric}", 2, interval=False))
        body.append(cells)
    return head, body


def _time_table(times: Mapping[str, Any]) -> str:
    body = [
        [stage, str(t["n"]), *(f"{t[k]:.1f}" for k in ("mean", "p50", "p90"))]
        for stage, t in times.items()
    ]
    return table(["stage", "n", "mean", "p50", "p90"], body)


def comparison_markdown(document: Mapping[str, Any]) -> str:
    """The tables of a comparison."""
    a, b = (words.title(run) for run in document["runs"])
    counts = document["counts"]
    parts = [
        f"# Comparison: {b} against {a}",
        f"{counts['targets']} targets in both runs, asked with the same prompts; "
        f"{counts['only_in_first']} only in the first, {counts['only_in_second']} only in the "
        "second. The difference is second minus first: a drop is negative.",
    ]
    for name, found in document["strategies"].items():
        parts.append(f"## {words.strategy_name(name)}")
        rows = {k: found[k] for k in ("mean of sets", "all targets")} | found["set"]
        names = ("dice_first", "dice_second", "dice_difference", "mask_iou")
        body = [
            [n, str(g["dice_first"][3]), *(words.figure({"figures": g}, c, 4) for c in names)]
            for n, g in rows.items()
        ]
        head = ["set", "n", "Dice, first", "Dice, second", "difference", "IoU of the masks"]
        parts.append(table(head, body))
        shares = found["share_losing_more_than"].items()
        losing = ", ".join(f"{share:.1%} lose more than {limit} Dice" for limit, share in shares)
        parts.append(
            f"{losing}; for {found['share_choosing_another_mask']:.1%} another candidate mask is "
            f"chosen; the largest drop is {found['largest_drop']:.4f}, the lowest IoU of two "
            f"masks {found['lowest_mask_iou']:.4f}."
        )
    parts.append(f"## Worst cases, {words.strategy_name(document['main_strategy'])}")
    body = [
        [
            w["set"],
            w["target"],
            w["key"],
            *(f"{w[k]:.4f}" for k in ("dice_first", "dice_second", "mask_iou")),
        ]
        for w in document["worst"]
    ]
    parts.append(table(["set", "target", "key", "Dice, first", "Dice, second", "mask IoU"], body))
    return "\n\n".join(parts) + "\n"
