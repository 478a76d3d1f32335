"""From the figures of single targets to those of a run.

A document holds, for the mean of sets, all targets, each set, each part of a collection, each
modality and each size of target, the mean of every figure as ``[mean, lower, upper, n]`` with a
95 % interval (see :mod:`samrt.evaluation.statistics`). Names: ``S5.deployable.dice`` is strategy
S5, the mask the model ranks highest, Dice; ``oracle`` is the best of the candidates by the truth;
``jitter 10-20.deployable.dice``; ``click 3.dice``; ``NoC@0.9.iou`` the clicks needed for an IoU of
0.9, all if it is never reached; ``ellipse.dice`` the ellipse in the box, without any model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.evaluation.statistics import Estimate, estimate, mean_of, quantiles
from samrt.evaluation.table import Table

__all__ = ["KIND", "dump", "examples", "main_strategy", "summarise"]

KIND = "samrt-eval"
_STAGES = ("decode_image", "preprocess", "encode", "everything", "decode_prompt", "postprocess")


def summarise(table: Table, config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The document of a run, JSON-ready.

    Args:
        table: figures of all targets.
        config: what was run, from the journal's first line.
        more: further parts, such as the environment.
    """
    seed = int(config.get("seed", 0))
    images, cases = table.images, table.cases
    every = np.arange(len(table.keys))
    groups: dict[str, dict[str, Any]] = {}
    by_set: dict[str, dict[str, Estimate]] = {}
    for name, rows in table.rows("set").items():
        by_set[name] = _estimates(table, rows, cases, seed)
    groups["set"] = {
        name: _group(found, table.rows("set")[name], images) for name, found in by_set.items()
    }
    macro = {
        column: mean_of({name: found[column] for name, found in by_set.items()})
        for column in table.columns
    }
    groups["all"] = {
        "mean of sets": _group(macro, every, images),
        "all targets": _group(_estimates(table, every, cases, seed), every, images),
    }
    for fact in ("part", "modality", "size"):
        groups[fact] = {
            name: _group(_estimates(table, rows, cases, seed), rows, images)
            for name, rows in table.rows(fact).items()
        }
    return {
        "kind": KIND,
        "version": 1,
        "config": dict(config),
        **more,
        "counts": {
            "targets": len(table.keys),
            "images": int(images.max()) + 1,
            "sets": len(by_set),
            "skipped": len(table.errors),
        },
        "main_strategy": main_strategy(config["strategies"]),
        "groups": groups,
        "times_ms": {s: quantiles(table.times[s]) for s in _STAGES if s in table.times},
        "examples": examples(table, main_strategy(config["strategies"])),
        "skipped": [{"key": k, "error": e} for k, e in table.errors.items()],
    }


def main_strategy(strategies: Sequence[str]) -> str:
    """The strategy that pictures and the first table show: the box, if it was asked."""
    return "S5" if "S5" in strategies else str(strategies[0])


def _estimates(
    table: Table, rows: NDArray[np.int64], cases: NDArray[np.int64], seed: int
) -> dict[str, Estimate]:
    return {
        name: estimate(column[rows], cases[rows], seed=seed)
        for name, column in table.columns.items()
    }


def _group(
    found: Mapping[str, Estimate], rows: NDArray[np.int64], images: NDArray[np.int64]
) -> dict[str, Any]:
    return {
        "targets": len(rows),
        "images": len(np.unique(images[rows])),
        "figures": {name: e.as_list() for name, e in found.items() if e.n},
    }


def examples(table: Table, strategy: str) -> dict[str, dict[str, str]]:
    """Set -> keys of its best, median and worst target by the Dice of the deployable mask."""
    values = table.columns[f"{strategy}.deployable.dice"]
    found = {}
    for name, rows in table.rows("set").items():
        order = rows[np.argsort(-values[rows], kind="stable")]
        picks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        unique: dict[str, str] = {}
        for what, row in picks.items():
            if table.keys[row] not in unique.values():
                unique[what] = table.keys[row]
        found[name] = unique
    return found


def dump(document: Mapping[str, Any]) -> str:
    """A document as JSON text with short lists on one line."""
    text = json.dumps(document, indent=1, allow_nan=False)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + _joined(m[1]) + "]", text)
    return flat + "\n"


def _joined(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def load_document(path: Path) -> dict[str, Any]:
    """Read a document written by ``samrt eval``.

    Raises:
        DatasetError: no such file, or something else.
    """
    from samrt.errors import DatasetError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot read {path}: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise DatasetError(f"{path} is no report of samrt eval: give its eval.json")
    return document
