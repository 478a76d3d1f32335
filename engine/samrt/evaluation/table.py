"""All figures of a run in columns: eight bytes a figure, whatever the masks weigh."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.clicks import clicks_needed
from samrt.evaluation.journal import read_records

__all__ = ["BUCKETS", "GOALS", "RULES", "Table", "bucket_of"]

BUCKETS = (("under 0.1 %", 0.001), ("0.1 to 1 %", 0.01), ("1 to 10 %", 0.1), ("over 10 %", 2.0))
"""Target sizes as a share of the image, and where each ends."""

RULES = ("oracle", "deployable")
GOALS = (0.8, 0.9)
_NAN = float("nan")
_NAMED = ("image", "modality", "target")


def bucket_of(share: float) -> str:
    """Name of the size bucket of a target that covers ``share`` of its image."""
    return next(name for name, end in BUCKETS if share < end)


@dataclass(slots=True)
class Table:
    """One row per target.

    Attributes:
        keys: the targets.
        facts: name of a fact (``set``, ``part``, ``case``, ``image``, ``modality``, ``target``,
            ``size``) -> its value per row; empty for a target that is of no part.
        columns: name of a figure, such as ``S5.deployable.dice`` -> ``(N,)`` float64 with NaN
            where there is none.
        times: stage -> milliseconds, of images or of prompts.
        errors: key -> why a target was skipped.
    """

    keys: list[str] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=dict)
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a journal.

        Raises:
            DatasetError: no journal, damaged, or without any finished target.
        """
        table = cls(facts={name: [] for name in ("set", "part", "case", *_NAMED, "size")})
        growing: dict[str, array[float]] = {}
        for record in read_records(path):
            if "error" in record:
                table.errors[str(record["key"])] = str(record["error"])
                continue
            try:
                table._add(record, growing)
            except (KeyError, TypeError, ValueError, StopIteration) as exc:
                raise DatasetError(
                    f"the record of {record['key']} in {path} is malformed: run it again"
                ) from exc
        count = len(table.keys)
        if not count:
            raise DatasetError(f"{path} holds no finished target: run the evaluation first")
        for name, values in growing.items():
            values.extend([_NAN] * (count - len(values)))
            table.columns[name] = np.array(values, np.float64)
        return table

    def _add(self, record: Mapping[str, Any], growing: dict[str, array[float]]) -> None:
        row = len(self.keys)
        for name in ("set", *_NAMED):
            self.facts[name].append(str(record[name]))
        self.facts["case"].append(str(record.get("case") or record["image"]))
        part = record.get("part")
        self.facts["part"].append(f"{record['set']}: {part}" if part else "")
        self.facts["size"].append(bucket_of(float(record["share"])))
        for name, value in _figures(record):
            if value is None:
                continue
            column = growing.setdefault(name, array("d"))
            column.extend([_NAN] * (row - len(column)))
            column.append(float(value))
        for stage, value in _times(record):
            self.times.setdefault(stage, []).append(value)
        self.keys.append(str(record["key"]))

    @property
    def images(self) -> NDArray[np.int64]:
        """``(N,)`` number of the image of each row."""
        return self._numbers("image")

    @property
    def cases(self) -> NDArray[np.int64]:
        """``(N,)`` number of the case of each row: rows of one case are not independent."""
        return self._numbers("case")

    def _numbers(self, fact: str) -> NDArray[np.int64]:
        pairs = [f"{s}\n{i}" for s, i in zip(self.facts["set"], self.facts[fact], strict=True)]
        return np.unique(pairs, return_inverse=True)[1].astype(np.int64)

    def rows(self, fact: str) -> dict[str, NDArray[np.int64]]:
        """Value of a fact -> its rows, in the order of the values (sizes: small to large)."""
        values = np.array(self.facts[fact])
        names = [name for name, _ in BUCKETS] if fact == "size" else sorted(set(values.tolist()))
        found = {name: np.flatnonzero(values == name) for name in names}
        return {name: rows for name, rows in found.items() if rows.size and name}


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for name, strategy in record["strategies"].items():
        for rule in RULES:
            for metric, value in strategy[rule].items():
                if metric not in ("index", "score"):
                    yield f"{name}.{rule}.{metric}", value
        yield f"{name}.score", strategy["deployable"]["score"]
    for level, answer in record.get("jitter", {}).items():
        for rule in RULES:
            yield f"jitter {level}.{rule}.dice", answer[rule]
    for metric, value in record["ellipse"].items():
        yield f"ellipse.{metric}", value
    curve = record.get("clicks")
    if curve:
        for metric in ("dice", "iou"):
            for number, value in enumerate(curve[metric], start=1):
                yield f"click {number}.{metric}", value
            for goal in GOALS:
                yield f"NoC@{goal:g}.{metric}", clicks_needed(curve[metric], goal)
                reached = max(curve[metric]) >= goal
                yield f"reached@{goal:g}.{metric}", float(reached)


def _times(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for stage, value in (record.get("image_ms") or {}).items():
        yield stage, float(value)
    for strategy in record["strategies"].values():
        for stage in ("decode_prompt", "postprocess"):
            value = strategy.get(f"{stage}_ms")
            if value is not None:
                yield stage, float(value)
