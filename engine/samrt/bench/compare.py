"""Two documents of ``samrt bench``: how many times as long does the second one take?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bench.report import markdown_table, ms, run_title
from samrt.bench.run import BENCH_VERSION
from samrt.bench.scenarios import END_TO_END
from samrt.errors import OptionError

__all__ = ["Comparison", "compare", "comparison_document", "comparison_table", "read_document"]

_RESAMPLES = 2000
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Comparison:
    """One stage of two runs.

    Attributes:
        run: what was measured.
        stage: its name.
        first: median in ms.
        second: median in ms.
        ratio: second / first.
        low: lower end of the ratio's 95 % interval (bootstrap of both medians).
        high: upper end.
        spread_first: (quartile 3 - quartile 1) / median.
        spread_second: the same.
        samples: their numbers.
    """

    run: str
    stage: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    spread_first: float
    spread_second: float
    samples: tuple[int, int]

    @property
    def verdict(self) -> str:
        """``faster``, ``slower``, or ``no difference shown``: the interval holds 1."""
        if self.low <= 1.0 <= self.high:
            return "no difference shown"
        return "faster" if self.high < 1.0 else "slower"


def read_document(path: Path) -> dict[str, Any]:
    """Read what ``samrt bench --output`` has written.

    Raises:
        OptionError: missing, unreadable, or something else.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise OptionError(f"{path} is larger than 256 MiB: not a result of samrt bench")
        document = json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise OptionError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, OptionError):
            raise
        raise OptionError(f"{path} is not JSON: not a result of samrt bench") from exc
    version = document.get("bench_version") if isinstance(document, dict) else None
    if version != BENCH_VERSION:
        raise OptionError(
            f"{path} has bench_version {version!r}, expected {BENCH_VERSION}: measure again with "
            "samrt bench --output"
        )
    try:
        for run in document["runs"]:
            run_title(run)
            for times in run["times_ms"].values():
                _times(times)
            _times(run["times_ms"][END_TO_END])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise OptionError(f"{path} is damaged ({exc!r}): measure again") from exc
    return dict(document)


def _times(values: Any) -> NDArray[np.float64]:
    times = np.asarray(values, np.float64)
    if times.ndim != 1 or not times.size or not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError("times must be a list of positive numbers")
    return times


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[list[Comparison], list[str]]:
    """Compare the runs of two documents that measured the same.

    Runs with the same scenario, backend and precision belong together; a single run on each side
    does so if the scenario is the same.

    Returns:
        One comparison per stage that both have, and what speaks against comparing them.

    Raises:
        OptionError: no runs belong together.
    """
    pairs = _pairs(first["runs"], second["runs"])
    if not pairs:
        found = [", ".join(run_title(run) for run in d["runs"]) for d in (first, second)]
        raise OptionError(f"no runs to compare: one file has {found[0]}, the other {found[1]}")
    rng = np.random.default_rng(0)
    results, doubts = [], _differences(first, second)
    for a, b in pairs:
        title = run_title(a) if run_title(a) == run_title(b) else f"{run_title(a)} / {run_title(b)}"
        doubts += [f"{title}: {text}" for text in _run_differences(a, b)]
        names = [END_TO_END, *(n for n in a["times_ms"] if n != END_TO_END)]
        results += [
            _one(title, name, _times(a["times_ms"][name]), _times(b["times_ms"][name]), rng)
            for name in names
            if name in b["times_ms"]
        ]
    return results, doubts


def _pairs(first: list[Any], second: list[Any]) -> list[tuple[Any, Any]]:
    if len(first) == len(second) == 1 and first[0]["scenario"] == second[0]["scenario"]:
        return [(first[0], second[0])]
    known = {run_title(run): run for run in second}
    return [(run, known[run_title(run)]) for run in first if run_title(run) in known]


def _one(
    title: str,
    name: str,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    rng: np.random.Generator,
) -> Comparison:
    low_a, median_a, high_a = (float(v) for v in np.percentile(a, (25, 50, 75)))
    low_b, median_b, high_b = (float(v) for v in np.percentile(b, (25, 50, 75)))
    floor = 1e-9  # a stage that did not happen took no time
    ratios = np.maximum(_medians(b, rng), floor) / np.maximum(_medians(a, rng), floor)
    low, high = (float(v) for v in np.percentile(ratios, (2.5, 97.5)))
    return Comparison(
        run=title,
        stage=name,
        first=median_a,
        second=median_b,
        ratio=max(median_b, floor) / max(median_a, floor),
        low=low,
        high=high,
        spread_first=(high_a - low_a) / max(median_a, floor),
        spread_second=(high_b - low_b) / max(median_b, floor),
        samples=(len(a), len(b)),
    )


def _medians(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of resampled lists."""
    picks = rng.integers(0, len(values), (_RESAMPLES, len(values)))
    return np.asarray(np.median(values[picks], axis=1))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What differs between the machines."""
    a, b = first.get("host", {}), second.get("host", {})
    found = []
    for name in ("cpu", "cpus_usable", "memory_bytes", "platform", "board", "gpus"):
        if a.get(name) != b.get(name):
            found.append(f"other {name}: {a.get(name)} and {b.get(name)}")
    return found


def _run_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs between two runs besides the time."""
    found = []
    for name in ("model_id", "backend_version", "threads", "device"):
        if a["engine"].get(name) != b["engine"].get(name):
            found.append(f"{name} {a['engine'].get(name)} and {b['engine'].get(name)}")
    for name in ("prompts_per_image", "workers", "interval_ms", "affinity", "prompts"):
        have = a.get("settings", {}).get(name), b.get("settings", {}).get(name)
        if have[0] != have[1]:
            found.append(f"other {name}")
    if a.get("picture", {}).get("sha256") != b.get("picture", {}).get("sha256"):
        found.append("other pictures")
    return found


def comparison_table(results: list[Comparison]) -> str:
    """The comparisons as Markdown."""
    head = ["run", "stage", "A ms", "B ms", "B / A", "95 %", "spread A, B", "runs A, B", "B is"]
    rows = [
        [
            item.run,
            item.stage,
            ms(item.first),
            ms(item.second),
            f"{item.ratio:.3f}",
            f"{item.low:.3f} to {item.high:.3f}",
            f"{item.spread_first:.0%}, {item.spread_second:.0%}",
            f"{item.samples[0]}, {item.samples[1]}",
            item.verdict,
        ]
        for item in results
    ]
    return markdown_table(head, rows, left=2)


def comparison_document(results: list[Comparison], doubts: list[str]) -> dict[str, Any]:
    """The same, ready for JSON."""
    rows = [
        {
            "run": r.run, "stage": r.stage, "first_ms": r.first, "second_ms": r.second,
            "ratio": r.ratio, "low": r.low, "high": r.high, "spread_first": r.spread_first,
            "spread_second": r.spread_second, "samples": list(r.samples), "verdict": r.verdict,
        }
        for r in results
    ]  # fmt: skip
    return {"comparisons": rows, "doubts": doubts}
