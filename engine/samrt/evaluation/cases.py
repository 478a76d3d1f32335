"""Pictures of chosen targets of a run, drawn from its data set and the masks in its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.dataset import Dataset, Target
from samrt.evaluation.journal import read_records
from samrt.evaluation.pictures import (
    case_picture,
    error_panel,
    plain_panel,
    window_of,
)
from samrt.imaging.rle import rle_to_mask
from samrt.types import Prompt

__all__ = ["answer_of", "draw_case", "draw_pair", "records_of"]

_TILE = 264


def records_of(journal: Path, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Records of the given targets.

    Raises:
        DatasetError: damaged, or one is missing.
    """
    wanted = set(keys)
    found = {str(r["key"]): r for r in read_records(journal) if r["key"] in wanted}
    missing = sorted(wanted - set(found))
    if missing:
        raise DatasetError(f"{journal} has no record of {missing[0]}: run the evaluation again")
    return found


def answer_of(record: Mapping[str, Any], strategy: str) -> NDArray[np.bool_]:
    """The deployable mask of a strategy, ``(H, W)`` bool."""
    return rle_to_mask(record["strategies"][strategy]["rle"])


def prompt_of(record: Mapping[str, Any], strategy: str) -> Prompt | None:
    """The prompt of a strategy; ``None`` for everything mode."""
    asked = record["strategies"][strategy]
    if asked.get("box") is None and asked.get("points") is None:
        return None
    return Prompt(box=asked["box"], point_coords=asked["points"], point_labels=asked["labels"])


def draw_case(
    dataset: Dataset, target: Target, record: Mapping[str, Any], strategy: str, tile: int = _TILE
) -> NDArray[np.uint8]:
    """The image and the answer's error map side by side, ``(tile, 2 tile + gap, 3)`` uint8."""
    image, truth = dataset.read_image(target), dataset.read_mask(target)
    answer = answer_of(record, strategy)
    window = window_of([truth, answer], target.box, target.size)
    shown = error_panel(image, truth, answer, window, tile, prompt=prompt_of(record, strategy))
    return case_picture([plain_panel(image, window, tile), shown])


def draw_pair(
    dataset: Dataset,
    target: Target,
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    strategy: str,
    tile: int = _TILE,
) -> NDArray[np.uint8]:
    """The image and the error maps of two runs, ``(tile, 3 tile + gaps, 3)`` uint8."""
    image, truth = dataset.read_image(target), dataset.read_mask(target)
    answers = [answer_of(record, strategy) for record in records]
    window = window_of([truth, *answers], target.box, target.size)
    prompt = prompt_of(records[0], strategy)
    panels = [error_panel(image, truth, a, window, tile, prompt=prompt) for a in answers]
    return case_picture([plain_panel(image, window, tile), *panels])
