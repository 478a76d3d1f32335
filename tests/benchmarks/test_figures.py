"""The benchmarks' own figures: what is measured, marked and drawn."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

Import = Callable[[str], ModuleType]
SVG = "{http://www.w3.org/2000/svg}"


def test_other_programs_work_is_told_apart(
    benchmark_module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = benchmark_module("machine")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    for busy, own, share in ((1.5, 1.5, 0.0), (1.5, 0.5, 0.25), (9.0, 0.0, 1.0)):
        clocks = iter([(0.0, 100.0, 5.0), (2.0, 100.0 + busy, 5.0 + own)])
        now = {}

        def tick(clocks: Any = clocks, now: Any = now) -> float:
            now.update(zip(("wall", "busy", "own"), next(clocks), strict=True))
            return float(now["busy"])

        clock = SimpleNamespace(
            perf_counter=lambda now=now: now.get("wall", 0.0),
            process_time=lambda now=now: now.get("own", 5.0),
        )
        monkeypatch.setattr(machine, "time", clock)
        monkeypatch.setattr(machine, "_busy_s", tick)
        assert machine.Others().share() == pytest.approx(share)
    monkeypatch.setattr(machine, "_busy_s", lambda: None)
    assert machine.Others().share() is None


@pytest.fixture
def sweeps(benchmark_module: Import) -> dict[str, Any]:
    """Two quick points each of the sweeps that need no other process."""
    work = benchmark_module("scaling").work
    job = {"model": "tiny", "backend": "onnxruntime", "threads": 1, "runs": 1}
    wanted = {"pictures": (64, 512), "prompts": (1, 3), "threads": ((1, 1), (1, 2)),
              "everything": (4, 5)}  # fmt: skip
    return {
        sweep: [work({**job, "sweep": sweep, "at": at}) for at in points]
        for sweep, points in wanted.items()
    }


def test_growth_is_measured_tabulated_and_drawn(
    benchmark_module: Import, sweeps: dict[str, Any]
) -> None:
    drawn = benchmark_module("scaling_plot")
    assert sweeps["pictures"][1]["iou"] >= 0.7
    assert sweeps["everything"][0]["masks"] >= 1
    few, many = sweeps["prompts"]
    assert many["results_mb"] == pytest.approx(3 * few["results_mb"])
    for points in sweeps.values():
        assert all(point["peak_mb"] > 20 for point in points)
        points[0]["others"], points[1]["others"] = 0.0, 0.0
    sweeps["pictures"][1]["others"] = 0.4
    host = {"cpu": {"model": "a processor"}, "versions": {"samrt": "1"}, "commit": "abc"}
    record = {"host": host, "threads": 1, "sweeps": sweeps}
    text = drawn.table(record)
    assert "| 512 \\* " in text
    assert "| 64  " in text
    assert "other programs took up to 40% of the processors" in text
    picture = ElementTree.fromstring(drawn.svg(record))
    words = {item.text for item in picture.iter(f"{SVG}text")}
    assert {title for title, _ in drawn.TITLES.values()} - words == {
        drawn.TITLES["everything_pictures"][0], drawn.TITLES["frames"][0]
    }  # fmt: skip
    for line in picture.iter(f"{SVG}polyline"):
        for spot in line.attrib["points"].split():
            x, y = map(float, spot.split(","))
            assert drawn.LEFT <= x <= drawn.LEFT + drawn.ACROSS
            assert drawn.TOP <= y <= drawn.TOP + drawn.DOWN


def test_peers_are_marked_where_others_slowed_them_down(benchmark_module: Import) -> None:
    peers = benchmark_module("peers")
    found = {
        "min_ms": 20.0, "median_ms": 21.0, "processor_min_ms": 40.0, "error": 1e-7,
        "peak_mb": 300.0, "of_sgemm": 0.5, "others": 0.02, "commit": "new",
    }  # fmt: skip
    ours = {**found, "min_ms": 10.0, "others": 0.3, "about": "cpu form", "commit": "old"}
    row = {
        "threads": 2, "sgemm_gflops": 100.0, "state": {"load_average": [0.1]},
        "peers": {
            "osam": found,
            "samrt, ONNX Runtime": ours,
            "samexporter": {"reason": "absent", "commit": "new"},
        },
    }  # fmt: skip
    record = {
        "host": {"cpu": {"model": "a processor"}},
        "models": {"mobile_sam": {"rows": {"encode": row}}},
    }
    lines = peers.table(record).splitlines()
    (title,) = [line for line in lines if "MobileSAM: encode" in line]
    assert "commit new and old" in title
    (theirs,) = [line for line in lines if line.startswith("| osam")]
    (mine,) = [line for line in lines if line.startswith("| samrt, ONNX")]
    assert theirs.startswith("| osam | 20.0 | 21.0 | 1.00 |")
    assert mine.startswith("| samrt, ONNX Runtime (cpu form) \\* | 10.0 | 21.0 | 0.50 |")
    assert "| samexporter | not timed: absent |" in "\n".join(lines)
    assert "other programs took up to 30% of the processors" in lines[-1]
