"""Whole volumes in ``samrt eval``: what is asked of them, the run, and the lines printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.cli._progress import ProgressBar
    from samrt.evaluation.dataset import Dataset
    from samrt.evaluation.runner import Plan
    from samrt.predictor import Predictor

__all__ = ["asked_ways", "print_volumes", "run_volumes", "ways"]

_AUTO = ("slices",)


def ways(text: str) -> tuple[str, ...] | None:
    """``slices,propagate``, ``none`` (empty) or ``auto`` (``None``)."""
    from samrt.errors import OptionError
    from samrt.evaluation.volumes import check_ways

    words = [part.strip() for part in text.split(",")]
    if words in (["none"], ["auto"]):
        return () if words == ["none"] else None
    try:
        return check_ways(words)
    except OptionError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def asked_ways(
    args: argparse.Namespace, dataset: Dataset, engine: Predictor
) -> tuple[tuple[str, ...], list[str]]:
    """How volumes are asked, and remarks about what was left out.

    What was named must be possible; what was left open is the box on every slice.

    Raises:
        OptionError: volumes were asked for and there are none, or the model takes no boxes.
        ExtraUnavailableError: surface-distance is not installed.
    """
    from samrt.errors import OptionError
    from samrt.evaluation.solids import need_surface_distance

    boxes = engine.manifest.prompts.box
    if args.volumes:
        if not dataset.solids:
            raise OptionError(
                f"--volumes is for data with volumes, {dataset.path} ({dataset.kind}) has none: "
                "leave it out"
            )
        if not boxes:
            raise OptionError("this model takes no boxes: leave --volumes out")
    if args.volumes == () or not dataset.solids:
        return (), []
    if not boxes:
        return (), ["no figures of whole volumes: this model takes no boxes"]
    need_surface_distance()
    return args.volumes or _AUTO, []


def run_volumes(
    args: argparse.Namespace,
    engine: Predictor,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    bar: ProgressBar,
    *,
    asked: tuple[str, ...],
    more: Mapping[str, Any],
    resumed: Callable[[bool, int, int, str], None],
) -> None:
    """Ask about all chosen objects; their records go to a journal of their own.

    Raises:
        SamrtError: as :func:`samrt.evaluation.volumes.evaluate_volumes`.
    """
    from samrt.evaluation.dataset import choose_solids
    from samrt.evaluation.journal import Journal
    from samrt.evaluation.runner import config_of
    from samrt.evaluation.volumes import VOLUMES_NAME, evaluate_volumes

    solids = choose_solids(
        dataset, sets=args.sets, exclude=args.exclude, limit=args.limit, seed=args.seed
    )
    config = config_of(engine, dataset, solids, plan, volumes=list(asked), **more)
    with Journal(folder / VOLUMES_NAME, config, force=args.force) as journal:
        resumed(journal.resumed, len(journal.done), len(solids), "objects in volumes")
        try:
            evaluate_volumes(
                engine, dataset, solids, asked, journal,
                tolerance=plan.tolerance, refine_steps=plan.refine_steps, skip_bad=plan.skip_bad,
                progress=bar,
            )  # fmt: skip
        finally:
            bar.end()


def print_volumes(volumes: Mapping[str, Any]) -> None:
    """The 3-D figures of all objects for people."""
    from samrt.cli._report import print_table, say
    from samrt.evaluation.report import words

    objects, cases = volumes["objects"], volumes["cases"]
    say(f"{words.counted(objects, 'object')} in {words.counted(cases, 'volume')}, 3-D")
    rows = [["", "Dice", "NSD", f"HD95 ({'mm' if volumes['spacing_known'] else 'voxels'})"]]
    for group in volumes["groups"]["all"].values():
        for way, rule in words.volume_columns(volumes):
            cells = [
                words.figure(group, f"{way}.{rule}.{metric}", digits)
                for metric, digits in (("dice", 3), ("nsd", 3), ("hd95", 1))
            ]
            rows.append([words.way_name(way, rule), *cells])
    print_table(rows)
