"""`benchmarks/targets.py`: rows met and missed, files not there, figures that do not mix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Records = dict[str, dict[str, Any]]
ENVIRONMENT = {
    "cpu": {"model": "a processor", "flags": ["fma"]},
    "cpus_usable": 2,
    "versions": {"samrt": "1", "python": "3.11", "onnxruntime": "1.31", "openvino": None},
}
RUN = {"environment": ENVIRONMENT, "commit": "new", "threads": 2, "load_average": [0.1, 0, 0]}


def found(ms: float, **more: Any) -> dict[str, Any]:
    return {"min_ms": ms, "peak_mb": 1000.0, "others": 0.0, "commit": "new", **more}


def peers() -> dict[str, Any]:
    """Ours at half of the best peer, but 16 boxes cost as much as 16 calls."""
    times = {"encode": 100.0, "decode 1 box": 10.0, "decode 16 boxes": 160.0, "box to mask": 10.0}
    rows = {
        row: {
            "threads": 2, "state": {"load_average": [0.25, 0.0, 0.0]}, "sgemm_gflops": 200.0,
            "peers": {
                "segment-anything (torch)": found(4 * ms),
                "traced graphs, ONNX Runtime": found(3 * ms),
                "traced graphs, OpenVINO": found(2 * ms),
                "samexporter": {"reason": "absent", "commit": "new"},
                "samrt, ONNX Runtime": found(ms, of_sgemm=0.9),
                "samrt, OpenVINO": found(0.1 * ms),
            },
        }
        for row, ms in times.items()
    }  # fmt: skip
    models = {name: {"rows": json.loads(json.dumps(rows))} for name in ("sam", "mobile_sam")}
    return {"host": ENVIRONMENT, "models": models}


@pytest.fixture
def records() -> Records:
    part = {"wall_min_ms": 100.0, "others": 0.0, "mask_iou_mean": 0.99, "mask_iou_worst": 0.95}
    int8 = {**RUN, "bundle": {"commit": "new"}, "fp32": part, "int8": {**part, "wall_min_ms": 50.0}}
    stages = {name: {"median_ms": 40.0} for name in ("file_to_mask", "encode", "box_to_mask")}
    return {
        "peers.json": peers(),
        "int8.json": {"models": {"sam:vit_b": int8, "mobile_sam": dict(int8)}},
        "tiny.json": {
            **RUN, "stages": stages, "cold_start": {"median_ms": 490.0, "peak_rss_mb": 100.0}
        },
        "everything.json": {
            **RUN, "points": 256, "samrt": {"wall_s": 1.0, "masks": 7},
            "segment_anything": {"wall_s": 10.0},
        },
    }  # fmt: skip


@pytest.fixture
def tool(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("targets")


@pytest.fixture
def table(tool: ModuleType, records: Records, tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Writes the records and returns the printed lines by their first cell; the rest as ''."""

    def printed() -> dict[str, str]:
        for name, record in records.items():
            (tmp_path / name).write_text(json.dumps(record))
        text = tool.table(tool.load(tmp_path))
        cells = {line.split(" | ")[0].lstrip("| "): line for line in text.splitlines()[2:]}
        return {**cells, "": text}

    return printed


def test_rows_that_are_met_and_one_that_is_not(table: Callable[[], dict[str, str]]) -> None:
    rows = table()
    assert rows["MobileSAM, encode 1024²"] == (
        "| MobileSAM, encode 1024² | ≤ 0.65 × best peer | 0.50 (100 ms for 200 ms, OpenVINO) "
        "| met |  |"
    )
    assert "90% of 200 GFLOP/s | met" in rows["the same, of the machine's sgemm rate"]
    assert "0.33 (10.0 ms for 30.0 ms, SAM ViT-B); 0.33" in rows["SAM decoder, one box"]
    assert "0.25 (10.0 ms for 40.0 ms" in rows["box to mask of 1024²"]
    sixteen = rows["SAM decoder, 16 boxes in one call"]
    assert "1.00 (160 ms for 16 × 10.0 ms, SAM ViT-B)" in sixteen
    assert "**fell short by 100.0%**" in sixteen
    assert "NOTES.md" in sixteen
    assert rows[""].count("NOTES.md") == 1
    assert (
        "0.50 (50.0 ms for 100 ms; gate: mask IoU 0.9900, worst 0.9500) | met"
        in (rows["INT8 encoder, MobileSAM"])
    )
    assert (
        "0.10 (1000 ms for 10.00 s, 256 points, 7 masks) | met"
        in (rows["everything mode, embedding ready"])
    )
    assert not {"†", "\\*", "not measured"} & set(rows[""].split())
    last = rows[""].splitlines()[-1]
    assert last.count("load average before it") == 4
    assert "a processor (fma), 2 CPUs, 2 threads; samrt 1, Python 3.11, ONNX Runtime 1.31; " in last
    assert last.endswith("commit new")


@pytest.mark.parametrize(
    ("what", "value", "short"),
    [
        ("`tiny`, image file to mask, 512²", 54.0, "20.0%"),
        ("`samrt infer` with `tiny`, cold", 550.0, "10.0%"),
        ("the same, of the machine's sgemm rate", 0.6, "25.0%"),
    ],
)
def test_how_much_is_missing(
    table: Callable[[], dict[str, str]], records: Records, what: str, value: float, short: str
) -> None:
    if "sgemm" in what:
        rows = records["peers.json"]["models"]["mobile_sam"]["rows"]
        rows["encode"]["peers"]["samrt, ONNX Runtime"]["of_sgemm"] = value
    elif "cold" in what:
        records["tiny.json"]["cold_start"]["median_ms"] = value
    else:
        records["tiny.json"]["stages"]["file_to_mask"]["median_ms"] = value
    row = table()[what]
    assert f"| **fell short by {short}** |" in row
    assert "NOTES.md" in row


def test_exactly_the_limit_is_met(table: Callable[[], dict[str, str]], records: Records) -> None:
    records["tiny.json"]["stages"]["file_to_mask"]["median_ms"] = 45.0
    assert "| met |" in table()["`tiny`, image file to mask, 512²"]


def test_the_worse_of_two_models_decides(
    table: Callable[[], dict[str, str]], records: Records
) -> None:
    row = records["peers.json"]["models"]["mobile_sam"]["rows"]["box to mask"]
    row["peers"]["samrt, ONNX Runtime"]["min_ms"] = 28.0
    line = table()["box to mask of 1024²"]
    assert "0.25 (10.0 ms" in line
    assert "0.70 (28.0 ms" in line
    assert "**fell short by 100.0%**" in line


def test_what_is_not_there_says_how_to_measure_it(
    table: Callable[[], dict[str, str]], records: Records
) -> None:
    del records["tiny.json"], records["int8.json"]["models"]["sam:vit_b"]
    peers = records["peers.json"]["models"]["sam"]["rows"]["decode 1 box"]["peers"]
    peers["traced graphs, ONNX Runtime"] = {"reason": "No module", "commit": "new"}
    records["int8.json"]["models"]["mobile_sam"] = {**RUN, "reason": "killed"}
    rows = table()
    assert "| not measured: run `make bench-tiny` (no `tiny.json`) |  |  |" in (
        rows["the same, peak memory"] + rows["`samrt infer` with `tiny`, cold"]
    )
    assert (
        "run `make bench-int8` (no 'sam:vit_b' in `int8.json`)" in (rows["INT8 encoder, SAM ViT-B"])
    )
    assert "not measured: killed; run `make bench-int8`" in rows["INT8 encoder, MobileSAM"]
    assert "ONNX Runtime: No module; run `make bench-peers`" in rows["SAM decoder, one box"]


def test_a_refused_encoder_falls_short(
    table: Callable[[], dict[str, str]], records: Records
) -> None:
    refused = {**RUN, "bundle": {"commit": "new"}, "refused": "worst | mask IoU 0.915"}
    records["int8.json"]["models"]["mobile_sam"] = refused
    row = table()["INT8 encoder, MobileSAM"]
    assert "refused by the gate: worst / mask IoU 0.915 | **fell short**: no answer" in row
    assert '"Eight bits" in `benchmarks/NOTES.md`' in row


def test_other_commits_machines_and_programs_are_marked(
    table: Callable[[], dict[str, str]], records: Records
) -> None:
    records["int8.json"]["models"]["mobile_sam"]["bundle"] = {"commit": "old"}
    machine = {**ENVIRONMENT, "cpu": {"model": "another", "flags": []}}
    records["everything.json"]["environment"] = machine
    peers = records["peers.json"]["models"]["sam"]["rows"]["encode"]["peers"]
    peers["traced graphs, OpenVINO"].update(commit="old", others=0.3)
    text = table()[""]
    (head,) = re.findall(r"^\| INT8 encoder, MobileSAM(.*?) \|", text, re.MULTILINE)
    assert head == " †"
    assert "| everything mode, embedding ready † |" in text
    assert "| SAM ViT-B, encode 1024² † \\* |" in text
    assert "| INT8 encoder, SAM ViT-B |" in text
    assert text.count("†") == 4
    assert "† from another commit or machine than most rows" in text
    assert "\\* other programs took more than 10% of the processors" in text
    (line,) = [line for line in text.splitlines() if line.startswith("- `everything.json`")]
    assert "another (), 2 CPUs" in line


def test_the_recorded_results_can_be_read(tool: ModuleType, capsys: Any) -> None:
    assert tool.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(tool.HEAD)
    recorded = tool.rows(tool.load(tool.RESULTS))
    assert len(recorded) == len(tool.TARGETS)
    assert sum(row.short_by is not None for row in recorded) >= 10


def test_sections_parts_and_peers_exist(
    tool: ModuleType, benchmark_module: Callable[[str], ModuleType]
) -> None:
    notes = (ROOT / tool.NOTES).read_text("utf-8")
    sections = set(re.findall(r"^#+ (.+)$", notes, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in tool.TARGETS:
        assert target.section in sections, target.section
        assert re.search(rf"^{target.part}:.*\n\t.*/{target.file}", makefile, re.MULTILINE)
        assert (
            f" {target.part.removeprefix('bench-')}"
            in (re.findall(r"^PARTS \?=(.*)$", makefile, re.MULTILINE)[0])
        )
    pytest.importorskip("torch", reason="PyTorch is not installed (extra export)")
    engines = benchmark_module("peer_engines")
    assert {tool.read.OURS, tool.read.TORCH, tool.read.OFFICIAL} <= set(engines.PEERS)
    assert {name for name in engines.PEERS if name.startswith("samrt,")} == set(engines.OURS)
