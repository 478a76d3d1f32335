"""Figures as text, and the sentences that both kinds of report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samrt.evaluation.strategies import STRATEGIES

__all__ = [
    "FAILS_BELOW",
    "counted",
    "failing",
    "figure",
    "method",
    "skipped",
    "strategy_name",
    "title",
    "volume_columns",
    "way_name",
]

FAILS_BELOW = 0.7
"""Sets whose mean Dice lies below this are named as failing; a usual line for "usable"."""

WAY_WORDS = {
    "slices": "a box on every slice",
    "propagate": "one box on the middle slice, propagated",
}

RULE_WORDS = {"deployable": "the model's choice", "oracle": "best of the candidates"}


def figure(group: Mapping[str, Any], name: str, digits: int = 3, *, interval: bool = True) -> str:
    """``0.853 [0.840, 0.866]``; a dash where there is none."""
    found = group["figures"].get(name)
    if found is None or found[0] is None:
        return "–"
    # adding zero turns the -0.0 that rounding may leave into 0.0
    mean, lo, hi = (None if v is None else round(v, digits) + 0.0 for v in found[:3])
    text = f"{mean:.{digits}f}"
    if interval and lo is not None:
        text += f" [{lo:.{digits}f}, {hi:.{digits}f}]"
    return text


def strategy_name(name: str) -> str:
    """``S5 (box)``."""
    return f"{name} ({STRATEGIES[name]})"


def way_name(way: str, rule: str = "deployable") -> str:
    """How a volume was asked, in words."""
    return WAY_WORDS[way] + (" (oracle)" if rule == "oracle" else "")


def volume_columns(volumes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``(way, rule)`` of each answer that a run has about its volumes."""
    pairs = {"slices": ("deployable", "oracle"), "propagate": ("deployable",)}
    return [(way, rule) for way in volumes["ways"] for rule in pairs[way]]


def title(document: Mapping[str, Any]) -> str:
    """Model, precision and backend of a run."""
    model = document["config"]["model"]
    return f"{model['name']}, {model['precision']}, {model['backend']}"


def skipped(document: Mapping[str, Any]) -> list[str]:
    """What could not be read, one line each."""
    found = [*document["skipped"], *document.get("volumes", {}).get("skipped", [])]
    return [f"skipped {s['key']}: {s['error']}" for s in found]


def counted(number: int, what: str) -> str:
    """``1 set``, ``2 sets``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def failing(document: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Sets and parts that fail with the main strategy and their Dice, the worst first."""
    column = f"{document['main_strategy']}.deployable.dice"
    groups = {**document["groups"]["set"], **document["groups"]["part"]}
    means = {n: g["figures"][column][0] for n, g in groups.items()}
    return sorted(((n, m) for n, m in means.items() if m < FAILS_BELOW), key=lambda pair: pair[1])


def below_ellipse(document: Mapping[str, Any]) -> list[str]:
    """Sets where the model's box answer is no better than the ellipse in the box."""
    if "S5" not in document["config"]["strategies"]:
        return []
    return [
        name
        for name, group in {**document["groups"]["set"], **document["groups"]["part"]}.items()
        if group["figures"]["S5.deployable.dice"][0] <= group["figures"]["ellipse.dice"][0]
    ]


def method(document: Mapping[str, Any]) -> Sequence[str]:
    """How the figures came about, one sentence or two each."""
    config = document["config"]
    lines = [
        "Prompts follow COSMOS 1050K (arXiv 2304.14660): the first point is the centre of mass if "
        "it lies inside, other points are sampled uniformly, negative ones from the box enlarged "
        "twice; boxes are tight; targets of 50 pixels or fewer are dropped.",
        "Deployable: the candidate mask that the model itself ranks highest. Oracle: the "
        "candidate with the highest Dice, which nobody can pick without the truth.",
        "Intervals are 95 %, by bootstrap over images; slices of one volume count as one image, "
        "pictures of one patient in separate files do not. The mean of sets counts every set the "
        "same.",
        "HD, HD95 and ASD are in pixels between border pixels, averaged over answers that are not "
        f"empty. NSD has a tolerance of {config['nsd_tolerance']:g} mm where the spacing is known "
        "and of as many pixels elsewhere.",
        "Ellipse: the ellipse inscribed in the box, an answer without any model.",
    ]
    if "volumes" in document:
        unit = "millimetres" if document["volumes"]["spacing_known"] else "voxels"
        lines.append(
            "Volumes: the masks of all slices of an object are put together and measured in three "
            f"dimensions; distances and the tolerance of NSD are in {unit}. Every slice "
            "that holds the object is asked with its tight box, slices of few pixels too; or only "
            "the middle one of them, from where the mask is followed up and down until the rules "
            "of propagation stop it. Intervals are by bootstrap over volumes."
        )
    steps = config.get("refine_steps", 0)
    if steps:
        lines.append(
            f"Every answer was refined: asked {counted(steps, 'time')} more, with the best mask of "
            "the time before as mask input; not in everything mode and in following an object."
        )
    if config["jitter_px"]:
        lines.append(
            "Jitter moves each edge of the box by itself, inwards or outwards, by a distance "
            "uniform in the level."
        )
    if config["clicks"]:
        lines.append(
            "Clicks go to the pixel deepest inside what is wrong; each answer is the model's own "
            "choice. NoC counts clicks until the goal is reached, all of them if it never is."
        )
    return lines
