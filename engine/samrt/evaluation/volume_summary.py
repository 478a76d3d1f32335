"""From the figures of single objects in volumes to the part ``volumes`` of a run's document.

The part holds, for all objects, each set and each kind of object, means as ``[mean, lower, upper,
n]`` with 95 % intervals by bootstrap over volumes. Names: ``slices.deployable.dice`` is the box on
every slice, the masks the model ranks highest, 3-D Dice; ``propagate.deployable.hd95`` the 95th
percentile of the surface distances in millimetres after propagation from the middle slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.journal import read_header, read_records
from samrt.evaluation.solids import SOLID_METRICS
from samrt.evaluation.statistics import estimate

__all__ = ["summarise_volumes"]

_ALL = "all objects"


def summarise_volumes(journal: Path) -> dict[str, Any]:
    """The part ``volumes`` of a document, JSON-ready.

    Raises:
        DatasetError: no journal, or damaged.
    """
    config = read_header(journal)["config"]
    records, skipped = [], []
    for record in read_records(journal):
        if "error" in record:
            skipped.append({"key": record["key"], "error": record["error"]})
        else:
            records.append(record)
    try:
        rows = [dict(_figures(record)) for record in records]
        groups = _groups(records, rows, int(config.get("seed", 0)))
    except (KeyError, TypeError, ValueError) as exc:
        raise DatasetError(f"{journal} holds a malformed record: run the evaluation again") from exc
    return {
        "ways": list(config["volumes"]),
        "objects": len(records),
        "cases": len({(r["set"], r["case"]) for r in records}),
        "spacing_known": all(r["spacing"] is not None for r in records),
        "groups": groups,
        "skipped": skipped,
        "worst": _worst(records),
    }


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for way, rules in record["ways"].items():
        for rule in ("deployable", "oracle"):
            for metric in SOLID_METRICS if rule in rules else ():
                value = rules[rule][metric]
                if value is not None:
                    yield f"{way}.{rule}.{metric}", float(value)


def _groups(
    records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, float]], seed: int
) -> dict[str, dict[str, Any]]:
    if not records:
        return {"all": {}, "set": {}, "target": {}}
    names = [f"{r['set']}\n{r['case']}" for r in records]
    cases = np.unique(names, return_inverse=True)[1].astype(np.int64)
    groups: dict[str, dict[str, Any]] = {
        "all": {_ALL: _group(rows, np.arange(len(rows)), cases, seed)}
    }
    for fact in ("set", "target"):
        values = np.array([str(r[fact]) for r in records])
        groups[fact] = {
            name: _group(rows, np.flatnonzero(values == name), cases, seed)
            for name in sorted(set(values.tolist()))
        }
    return groups


def _group(
    rows: Sequence[Mapping[str, float]],
    chosen: NDArray[np.int64],
    cases: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    columns = dict.fromkeys(name for row in chosen for name in rows[row])
    found = {}
    for name in columns:
        values = np.array([rows[row].get(name, np.nan) for row in chosen], np.float64)
        found[name] = estimate(values, cases[chosen], seed=seed).as_list()
    return {
        "targets": len(chosen),
        "volumes": len(np.unique(cases[chosen])),
        "figures": found,
    }


def _worst(records: Sequence[Mapping[str, Any]], count: int = 5) -> list[dict[str, Any]]:
    """The objects with the lowest Dice of the first way, and how propagation ended there."""
    listed = []
    for record in records:
        ways = record["ways"]
        values = {way: found["deployable"]["dice"] for way, found in ways.items()}
        stopped = ways.get("propagate", {}).get("stopped")
        listed.append({"key": record["key"], "dice": values, "stopped": stopped})
    return sorted(listed, key=lambda r: float(min(r["dice"].values())))[:count]
