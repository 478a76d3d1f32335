"""Two runs on the same prompts: what one loses against the other, target by target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.cases import answer_of
from samrt.evaluation.journal import JOURNAL_NAME, read_header, read_records
from samrt.evaluation.metrics import iou
from samrt.evaluation.statistics import Estimate, estimate, mean_of
from samrt.evaluation.summary import main_strategy
from samrt.evaluation.table import Table

__all__ = ["KIND", "compare", "journal_of"]

KIND = "samrt-eval-compare"
_DROPS = (0.01, 0.05)
_WORST = 8


def journal_of(path: Path) -> Path:
    """The journal of a run, given its folder, its ``eval.json`` or the journal itself.

    Raises:
        DatasetError: there is none.
    """
    place = path if path.suffix == ".jsonl" else (path if path.is_dir() else path.parent)
    journal = place if place.suffix == ".jsonl" else place / JOURNAL_NAME
    if not path.exists():
        raise DatasetError(f"{path} does not exist: give the folder or eval.json of a run")
    if not journal.is_file():
        raise DatasetError(
            f"{journal} is missing: comparing needs the single answers of a run, keep "
            f"{JOURNAL_NAME} beside eval.json"
        )
    return journal


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two tables whose rows belong together."""

    a: Table
    b: Table
    rows_a: NDArray[np.int64]
    rows_b: NDArray[np.int64]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Compare two runs; the difference is second minus first, so a drop is negative.

    Args:
        first, second: folders or ``eval.json`` of runs on the same data with the same prompts.

    Returns:
        A JSON-ready document: per strategy and set the mean Dice of both, their paired
        difference and the IoU between their masks, each as ``[mean, lower, upper, n]`` with a
        95 % interval by images; the share of targets that lose more than 0.01 and 0.05 Dice, and
        of those where the model chose another of its candidates; and the targets that lose most.

    Raises:
        DatasetError: not two runs, nothing in common, or other prompts.
    """
    journals = (journal_of(first), journal_of(second))
    configs = tuple(read_header(j)["config"] for j in journals)
    tables = tuple(Table.read(j) for j in journals)
    pair = _match(tables[0], tables[1], journals)
    strategies = [s for s in configs[0]["strategies"] if s in configs[1]["strategies"]]
    if not strategies:
        raise DatasetError(f"{first} and {second} share no strategy")
    agreement, changed = _masks(journals, {pair.a.keys[i] for i in pair.rows_a}, strategies)
    main = main_strategy(strategies)
    seed = int(configs[0].get("seed", 0))
    return {
        "kind": KIND,
        "version": 1,
        "runs": [
            {"path": str(p), "config": c} for p, c in zip((first, second), configs, strict=True)
        ],
        "counts": {
            "targets": len(pair.rows_a),
            "only_in_first": len(pair.a.keys) - len(pair.rows_a),
            "only_in_second": len(pair.b.keys) - len(pair.rows_b),
        },
        "main_strategy": main,
        "strategies": {
            s: {
                **_strategy(pair, s, agreement[s], seed),
                "share_choosing_another_mask": round(changed[s] / len(pair.rows_a), 5),
            }
            for s in strategies
        },
        "worst": _worst(pair, main, agreement[main]),
    }


def _match(a: Table, b: Table, journals: tuple[Path, Path]) -> _Pair:
    places = {key: row for row, key in enumerate(b.keys)}
    rows = [(i, places[key]) for i, key in enumerate(a.keys) if key in places]
    if not rows:
        raise DatasetError(f"{journals[0]} and {journals[1]} have no target in common")
    rows_a, rows_b = (np.array(r, np.int64) for r in zip(*rows, strict=True))
    return _Pair(a, b, rows_a, rows_b)


def _masks(
    journals: tuple[Path, Path], keys: set[str], strategies: list[str]
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Strategy -> key -> IoU of the two deployable masks, and how often another one was chosen.

    One pair of records at a time is in memory.
    """
    offsets = _offsets(journals[1], keys)
    found: dict[str, dict[str, float]] = {s: {} for s in strategies}
    changed = dict.fromkeys(strategies, 0)
    with journals[1].open("rb") as stream:
        for record in read_records(journals[0]):
            key = str(record["key"])
            if key not in offsets or "error" in record:
                continue
            stream.seek(offsets[key])
            other = _parse(stream.readline())
            for strategy in strategies:
                _check_prompts(record, other, strategy)
                masks = (answer_of(record, strategy), answer_of(other, strategy))
                if masks[0].shape != masks[1].shape:
                    raise DatasetError(f"{key} has images of two sizes: the data differ")
                found[strategy][key] = iou(*masks)
                changed[strategy] += len({_index(r, strategy) for r in (record, other)}) - 1
    return found, changed


def _index(record: Mapping[str, Any], strategy: str) -> int:
    """Which of its candidates the model chose."""
    return int(record["strategies"][strategy]["deployable"]["index"])


def _offsets(journal: Path, keys: set[str]) -> dict[str, int]:
    """Where the lines of the given targets begin."""
    found = {}
    with journal.open("rb") as stream:
        at = len(stream.readline())
        for line in stream:
            if line.endswith(b"\n"):
                key = str(_parse(line)["key"])
                if key in keys:
                    found[key] = at
            at += len(line)
    return found


def _parse(line: bytes) -> dict[str, Any]:
    import json

    record: dict[str, Any] = json.loads(line)
    return record


def _check_prompts(a: Mapping[str, Any], b: Mapping[str, Any], strategy: str) -> None:
    one, two = a["strategies"][strategy], b["strategies"][strategy]
    if any(one.get(k) != two.get(k) for k in ("box", "points", "labels")):
        raise DatasetError(
            f"{strategy} of {a['key']} was asked with two different prompts: both runs must use "
            "the same data and the same version"
        )


def _strategy(pair: _Pair, strategy: str, agreement: Mapping[str, float], seed: int) -> Any:
    """Figures of one strategy per set, for all targets, and as the mean of sets."""
    column = f"{strategy}.deployable.dice"
    one, two = pair.a.columns[column][pair.rows_a], pair.b.columns[column][pair.rows_b]
    values = {
        "dice_first": one,
        "dice_second": two,
        "dice_difference": two - one,
        "mask_iou": np.array([agreement[pair.a.keys[i]] for i in pair.rows_a]),
    }
    cases = pair.a.cases[pair.rows_a]
    place = {int(row): at for at, row in enumerate(pair.rows_a)}
    sets = {
        name: np.array([place[int(r)] for r in rows if int(r) in place], np.int64)
        for name, rows in pair.a.rows("set").items()
    }
    sets = {name: rows for name, rows in sets.items() if rows.size}
    parts = {
        name: {k: estimate(v[rows], cases[rows], seed=seed) for k, v in values.items()}
        for name, rows in sets.items()
    }
    groups = {name: _listed(found) for name, found in parts.items()}
    macro = {k: mean_of({name: found[k] for name, found in parts.items()}) for k in values}
    everyone = {k: estimate(v, cases, seed=seed) for k, v in values.items()}
    drop = -values["dice_difference"]
    return {
        "mean of sets": _listed(macro),
        "all targets": _listed(everyone),
        "set": groups,
        "share_losing_more_than": {
            f"{limit:g}": round(float(np.mean(drop > limit)), 5) for limit in _DROPS
        },
        "largest_drop": round(float(drop.max()), 5),
        "lowest_mask_iou": round(float(values["mask_iou"].min()), 5),
    }


def _listed(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: value.as_list() for name, value in found.items()}


def _worst(pair: _Pair, strategy: str, agreement: Mapping[str, float]) -> list[dict[str, Any]]:
    """The targets that lose most Dice; of equals those whose masks agree least."""
    column = f"{strategy}.deployable.dice"
    rows = []
    for i, j in zip(pair.rows_a, pair.rows_b, strict=True):
        one, two = float(pair.a.columns[column][i]), float(pair.b.columns[column][j])
        rows.append((two - one, agreement[pair.a.keys[i]], pair.a.keys[i], one, two, int(i)))
    rows.sort(key=lambda r: r[:3])
    return [
        {
            "key": key,
            "set": pair.a.facts["set"][i],
            "target": pair.a.facts["target"][i],
            "dice_first": round(one, 5),
            "dice_second": round(two, 5),
            "mask_iou": round(agree, 5),
        }
        for _, agree, key, one, two, i in rows[:_WORST]
    ]
