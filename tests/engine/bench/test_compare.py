"""Tables, pictures and comparisons made from documents, without measuring anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from samrt.bench.compare import compare, comparison_table, read_document
from samrt.bench.plot import svg
from samrt.bench.report import markdown, ms
from samrt.bench.stats import summary
from samrt.errors import OptionError

STATE: dict[str, Any] = {
    "load_average": [0.1, 0.1, 0.1], "governors": ["performance"],
    "clocks_mhz": {"lowest": 800.0, "highest": 2000.0, "floor": 800.0, "ceiling": 2000.0},
    "temperatures_c": {"cpu": 48.0}, "power_mode": "15W", "on_battery": None, "tegrastats": None,
    "gpus": [],
}  # fmt: skip


def make_run(backend: str = "onnxruntime", scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    encode = rng.normal(10.0 * scale, 0.2, 70).clip(1.0)
    times = {"encode": encode.tolist(), "end_to_end": (encode + 1.0).tolist()}
    return {
        "scenario": "single-stream",
        "engine": {
            "model_id": "tiny@0", "family": "tiny", "variant": "v1", "threads": 2,
            "precision_effective": "fp32", "backend_effective": backend, "backend_version": "1",
            "backend_requested": "auto", "backend_reason": "asked for", "device": "CPU",
        },
        "settings": {"prompts_per_image": 1, "prompts": [{}], "deadline_ms": 12.0},
        "picture": {"name": "a & b.png", "width": 512, "height": 500, "sha256": "0"},
        "affinity": [0, 1, 2, 3],
        "warmup": {"runs": 5, "seconds": 1.0},
        "load_ms": 100.0,
        "memory": {"peak_rss_bytes": 10**8, "gpu_bytes": None},
        "answer": {"against": "FP32 in onnxruntime 1", "mask_iou_worst": 0.9995},
        "state": {"before": STATE, "after": STATE},
        "throughput_per_s": None,
        "remarks": ["a remark"],
        "stages": {n: summary(v, 12.0 if n == "end_to_end" else None) for n, v in times.items()},
        "times_ms": times,
        **changes,
    }  # fmt: skip


def make_document(*runs: dict[str, Any], cpu: str = "A CPU") -> dict[str, Any]:
    return {
        "bench_version": 1,
        "samrt": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "host": {
            "cpu": {"model": cpu, "flags": ["avx2"]}, "board": None, "gpus": [], "commit": "abc",
            "versions": {"python": "3"},
        },
        "runs": list(runs) or [make_run()],
    }  # fmt: skip


def test_the_tables_hold_what_was_measured() -> None:
    run = make_run()
    text = markdown(make_document(run))
    late = run["stages"]["end_to_end"]["deadline"]["misses"]
    for part in (
        "| single-stream, onnxruntime fp32 |   70 |", f"{late} ({late / 70:.1%})", "needs 662",
        "0.99950", "CPUs 0-3", "800 to 2000 MHz", "48 °C", "power mode 15W", "commit abc",
        "  - a remark", "checked against FP32 in onnxruntime 1",
    ):  # fmt: skip
        assert part in text, part
    widths = {len(line) for line in text.splitlines() if line.startswith("| end to end")}
    rows = [line for line in text.splitlines() if line.startswith("| single-stream")]
    assert len(rows) == 2
    assert widths == {len(rows[0])}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_times_have_three_digits(value: float | None, text: str) -> None:
    assert ms(value) == text


def test_the_picture_is_sound_and_to_scale() -> None:
    fast, slow = make_run(scale=1.0), make_run("openvino", scale=2.0)
    root = ElementTree.fromstring(svg(make_document(fast, slow)))
    name = "{http://www.w3.org/2000/svg}"
    bars = {}
    for rect in root.iter(f"{name}rect"):
        title = rect.find(f"{name}title")
        if title is not None and (title.text or "").startswith("encode: "):
            bars[title.text] = float(rect.attrib["width"])
        assert float(rect.attrib.get("x", 0)) >= 0
        assert float(rect.attrib.get("x", 0)) + float(rect.attrib["width"]) <= 960
    medians = [run["stages"]["encode"]["median"] for run in (fast, slow)]
    widths = sorted(bars.values())
    assert widths[1] / widths[0] == pytest.approx(medians[1] / medians[0], rel=0.01)
    counts = [
        int((title.text or "").split(": ")[1].split()[0])
        for title in root.iter(f"{name}title")
        if (title.text or "").endswith(" runs")
    ]
    assert sum(counts) == 140


def test_a_picture_of_equal_times_is_drawn() -> None:
    times = {"end_to_end": [5.0] * 12}
    stages = {"end_to_end": summary(times["end_to_end"])}
    run = make_run(times_ms=times, stages=stages, settings={"deadline_ms": None})
    root = ElementTree.fromstring(svg(make_document(run)))
    assert any("12 runs" in (title.text or "") for title in root.iter() if title.text)


def test_a_ratio_comes_with_its_interval() -> None:
    results, doubts = compare(make_document(), make_document(make_run(scale=1.5)))
    assert doubts == []
    first = {item.stage: item for item in results}["encode"]
    assert first.ratio == pytest.approx(1.5, rel=0.02)
    assert first.low < first.ratio < first.high
    assert first.verdict == "slower"
    back, _ = compare(make_document(make_run(scale=1.5)), make_document())
    assert {item.verdict for item in back} == {"faster"}
    same, _ = compare(make_document(), make_document())
    assert {item.verdict for item in same} == {"no difference shown"}
    assert [item.stage for item in same] == ["end_to_end", "encode"]
    assert "| 1.000 |" in comparison_table(same)


def test_single_runs_of_two_backends_are_compared_and_several_by_name() -> None:
    one, other = make_run(), make_run("openvino")
    results, _ = compare(make_document(one), make_document(other))
    assert results[0].run == "single-stream, onnxruntime fp32 / single-stream, openvino fp32"
    both, _ = compare(make_document(one, other), make_document(other))
    assert {item.run for item in both} == {"single-stream, openvino fp32"}
    with pytest.raises(OptionError, match="no runs to compare"):
        compare(make_document(one, other), make_document(make_run(scenario="offline")))


def test_what_speaks_against_a_comparison_is_said() -> None:
    other = make_run()
    other["engine"] = {**other["engine"], "threads": 4, "model_id": "tiny@1"}
    other["picture"] = {**other["picture"], "sha256": "1"}
    _, doubts = compare(make_document(), make_document(other, cpu="Another"))
    text = "; ".join(doubts)
    for part in ("other cpu", "threads 2 and 4", "model_id tiny@0 and tiny@1", "other pictures"):
        assert part in text


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda d: "", "is not JSON"),
        (lambda d: "[" * 100_000, "is not JSON"),
        (lambda d: "[]", "bench_version None"),
        (lambda d: json.dumps({**d, "bench_version": 9}), "bench_version 9, expected 1"),
        (lambda d: json.dumps({**d, "runs": 5}), "is damaged"),
        (lambda d: json.dumps({**d, "runs": [{}]}), "is damaged"),
        (lambda d: json.dumps({**d, "runs": [make_run(times_ms={})]}), "is damaged"),
        (lambda d: json.dumps({**d, "runs": [make_run(times_ms={"a": ["x"]})]}), "is damaged"),
        (lambda d: json.dumps({**d, "runs": [make_run(times_ms={"a": [-1]})]}), "is damaged"),
    ],
)
def test_a_damaged_document_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], str], text: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(spoil(make_document()), "utf-8")
    with pytest.raises(OptionError, match=text) as caught:
        read_document(path)
    assert "\n" not in str(caught.value)


def test_a_sound_document_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(make_document()), "utf-8")
    assert read_document(path) == json.loads(json.dumps(make_document()))
    with pytest.raises(OptionError, match="cannot read"):
        read_document(tmp_path / "none.json")
