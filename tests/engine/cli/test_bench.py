"""``samrt bench`` as it is called: real measurements of the small committed model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from samrt.bench import run as bench_run

Cli = Callable[..., Any]
SHORT = ("--warmup", "1", "--runs", "3", "--threads", "1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))


def test_every_scenario_is_measured_and_written(
    samrt_command: Cli, bundle_path: Path, workplace: Path
) -> None:
    found = samrt_command(
        "bench", bundle_path, *SHORT, "--scenario", "all", "--deadline-ms", "10000",
        "-o", "a.json", "--plot", "a.svg", "--markdown", "a.md",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert found.out == (workplace / "a.md").read_text("utf-8")
    ElementTree.parse(workplace / "a.svg")
    document = json.loads((workplace / "a.json").read_text("utf-8"))
    runs = {run["scenario"]: run for run in document["runs"]}
    assert list(runs) == ["single-stream", "interactive", "offline", "cold-start"]
    for name, run in runs.items():
        assert run["stages"]["end_to_end"]["count"] == 3, name
        assert run["stages"]["end_to_end"]["deadline"]["misses"] == 0
        assert run["memory"]["peak_rss_bytes"] > 10**7
        assert run["engine"]["threads"] == 1
        assert run["answer"]["against"].startswith("the figures in its manifest")
    assert runs["offline"]["throughput_per_s"] > 0
    cold = runs["cold-start"]["stages"]
    assert set(cold) >= {"interpreter", "import", "load", "encode", "end_to_end"}
    parts = sum(stage["median"] for name, stage in cold.items() if name != "end_to_end")
    assert parts <= cold["end_to_end"]["max"]
    again = samrt_command("bench", bundle_path, *SHORT, "-o", "a.json")
    assert "a.json exists" in again.error
    same = samrt_command("bench", "compare", "a.json", "a.json", "--fail-above", "1.01")
    assert (same.code, same.out.count("no difference shown")) == (0, 6 + 3 + 6 + 9)


def test_compare_fails_where_it_is_told_to(
    samrt_command: Cli, bundle_path: Path, workplace: Path
) -> None:
    done = samrt_command("bench", bundle_path, *SHORT, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    Path("a.json").write_text(done.out, "utf-8")
    times = document["runs"][0]["times_ms"]
    times["end_to_end"] = [2 * value for value in times["end_to_end"]]
    Path("b.json").write_text(json.dumps(document), "utf-8")
    worse = samrt_command("bench", "compare", "a.json", "b.json", "--fail-above", "1.5")
    assert worse.code == 3
    assert "2.000 times as long, at most 1.5 was wanted" in worse.err
    better = samrt_command("bench", "compare", "b.json", "a.json", "--fail-above", "1.5", "--json")
    assert better.code == 0
    assert json.loads(better.out)["comparisons"][0]["ratio"] == pytest.approx(0.5)


def test_the_fastest_backend_is_taken_from_then_on(
    samrt_command: Cli, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are written into the measurement, so that the outcome is certain."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    measured = bench_run._warm

    def warm(job: Any) -> dict[str, Any]:
        found = measured(job)
        slow = 9.0 if job.backend == "onnxruntime" else 1.0
        found["times_ms"]["end_to_end"] = [slow for _ in found["times_ms"]["end_to_end"]]
        return found

    monkeypatch.setattr(bench_run, "_warm", warm)
    done = samrt_command(
        "bench", bundle_path, *SHORT, "--backend", "onnxruntime,openvino", "--choose", "--json"
    )
    assert done.code == 0, done.err
    assert "auto now takes openvino" in done.err
    runs = json.loads(done.out)["runs"]
    assert runs[1]["answer"]["mask_iou_worst"] >= 0.999
    auto = json.loads(samrt_command("bench", bundle_path, *SHORT, "--json").out)["runs"][0]
    assert auto["engine"]["backend_requested"] == "auto"
    assert auto["engine"]["backend_effective"] == "openvino"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nowhere",), "nowhere"),
        (("--backend", "nonsense", "--runs", "3"), "unknown backend 'nonsense'"),
        (("--precision", "int8", "--runs", "3"), "no precision 'int8'"),
        (("--box", "1,2,3,4"), "--box and --point are about --image"),
        (("--choose",), "--choose needs several backends"),
        (("--choose", "--backend", "a,b", "--form", "cpu"), "leave --form out"),
        (("--image", "none.png"), "none.png"),
        (("compare", "a.json", "b.json"), "cannot read a.json"),
    ],
)
def test_bad_input_is_one_line(samrt_command: Cli, words: tuple[str, ...], text: str) -> None:
    found = samrt_command("bench", *words)
    assert found.code == 1, found.err
    last = [line for line in found.err.splitlines() if line.startswith("samrt: error: ")]
    assert len(last) == 1
    assert text in last[0]


@pytest.mark.parametrize(
    "words",
    [
        ("--scenario", "fast"), ("compare", "a.json"), ("a", "b"), ("--runs", "0"),
        ("--cpus", "3-1"), ("--cpus", "x"), ("--deadline-ms", "-1"), ("--seconds", "nan"),
        ("--deadline-ms", "0"), ("--interval-ms", ""), ("--interval-ms", "-1"), ("--seconds", "0"),
        ("--fail-above", "1.1"), ("--backend", "a,,b"),
    ],
)  # fmt: skip
def test_wrong_usage_is_said(samrt_command: Cli, words: tuple[str, ...]) -> None:
    assert samrt_command("bench", *words).code == 2


def test_a_process_that_dies_is_reported(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, samrt_command: Cli
) -> None:
    monkeypatch.setattr(bench_run.sys, "executable", "/bin/false")
    found = samrt_command("bench", bundle_path, *SHORT)
    assert found.code == 1
    assert "the measuring process ended with 1 and no result" in found.err
